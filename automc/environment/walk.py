"""`Walk`: a policy in the making, one decision after the other, always inside the budget."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from automc.compression.policy import Policy
from automc.environment.problem import Problem
from automc.environment.space import Decision
from automc.errors import InvalidAction


class Walk:
    """Asks the decisions of a problem's search space in order.

    Under a hard goal it knows a completion that keeps every limit at all times: a choice is allowed only where the
    policy with the cheapest rest, or with the rest of that completion, keeps them. So something is always allowed, and
    whatever is chosen ends within the budget. Under a soft goal everything is allowed.

    Raises `InfeasibleBudget` where no policy keeps a hard limit.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.chosen: tuple[int, ...] = ()
        self._completion = problem.cheapest if problem.limits.hard else ()

    @property
    def done(self) -> bool:
        """Whether every decision is made."""
        return len(self.chosen) == len(self.problem.space.decisions)

    @property
    def decision(self) -> Decision:
        """What is asked now."""
        return self.problem.space.decisions[len(self.chosen)]

    @property
    def policy(self) -> Policy:
        """The finished policy. Raises `PolicyError` while a decision is open."""
        return self.problem.space.policy(self.chosen)

    def allowed(self) -> NDArray[np.bool_]:
        """Which choices of the present decision may be made; never none."""
        return np.array([self._completed(index) is not None for index in range(len(self.decision.choices))])

    def nearest(self, index: int) -> int:
        """The allowed choice nearest to `index`, the one that compresses more where two are as near."""
        choices = range(len(self.decision.choices))
        return next(
            candidate
            for candidate in sorted(choices, key=lambda candidate: (abs(candidate - index), candidate))
            if self._completed(candidate) is not None
        )

    def choose(self, index: int) -> None:
        """Decide. Raises `InvalidAction`, and changes nothing, for a choice that is not allowed."""
        completion = self._completed(index) if 0 <= index < len(self.decision.choices) else None
        if completion is None:
            allowed = ", ".join(str(choice) for choice in np.flatnonzero(self.allowed()))
            raise InvalidAction(f"choice {index} is not allowed for {self.decision}; allowed are {allowed}")
        self._completion = completion
        self.chosen = (*self.chosen, index)

    def _completed(self, index: int) -> tuple[int, ...] | None:
        """All choices, with `index` now, that keep every limit; None where none were found."""
        problem = self.problem
        if not problem.limits.hard:
            return ()
        begun, asked = (*self.chosen, index), len(self.chosen) + 1
        for rest in (problem.cheapest, self._completion):
            candidate = begun + rest[asked:]
            if problem.limits.fits(problem.cost_of(candidate)):
                return candidate
        return None
