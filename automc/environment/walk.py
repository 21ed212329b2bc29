"""`Walks`: policies in the making, side by side, one decision after the other, always inside the budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from automc.compression.policy import Policy
from automc.environment.measures import Floats
from automc.environment.problem import Problem, Rows
from automc.environment.space import Choices, Decision
from automc.errors import InvalidAction

Bools = NDArray[np.bool_]


class Walks:
    """Asks the decisions of a problem's search space in order, of one policy for each of `shares`.

    Under a hard goal no cost of a policy may exceed its share of the limit. Each walk knows a completion that keeps the
    limits at all times: a choice is allowed only where the policy with the cheapest rest, or with the rest of that
    completion, keeps them. So something is always allowed, and whatever is chosen ends within the budget. Under a soft
    goal everything is allowed.

    Raises `InfeasibleBudget` where no policy keeps a hard limit.
    """

    def __init__(self, problem: Problem, shares: Sequence[float] = (1.0,)) -> None:
        self.problem = problem
        self.shares = np.array(shares, np.float64)
        self.position = 0
        self._limits = np.array([*problem.limits.costs.values()]) * self.shares[:, None]  # `walks x limits`
        cheapest = {share: problem.cheapest_within(share) for share in dict.fromkeys(shares)}
        self._cheapest = np.array([cheapest[share] for share in shares], np.uint8)
        self._completion = self._cheapest.copy()
        self._largest = np.array([problem.space.largest()] * len(shares), np.uint8)
        self.least = problem.costs_of(self._cheapest)  # `walks x limits`: the costs with the cheapest rest
        self._options: tuple[Bools, Floats] | None = None  # what is allowed now, and what it costs at least

    @property
    def done(self) -> bool:
        """Whether every decision is made."""
        return self.position == len(self.problem.space.decisions)

    @property
    def decision(self) -> Decision:
        """What is asked now."""
        return self.problem.space.decisions[self.position]

    @property
    def chosen(self) -> Rows:
        """`walks x decided`: an index for every decision that is made."""
        return self._completion[:, : self.position]

    @property
    def most(self) -> Floats:
        """`walks x limits`: the costs with the largest rest."""
        return self.problem.costs_of(self._with_rest(self._largest))

    def allowed(self) -> Bools:
        """`walks x choices`: which choices of the present decision may be made; never none."""
        return self._known()[0]

    def _known(self) -> tuple[Bools, Floats]:
        """What is allowed, and `walks x choices x limits`: what each choice costs with the cheapest rest."""
        if self._options is None:
            count, walks = len(self.decision.choices), len(self.shares)
            rows = np.repeat(self._with_rest(self._cheapest), count, 0)
            rows[:, self.position] = np.tile(np.arange(count, dtype=np.uint8), walks)
            costs = self.problem.costs_of(rows).reshape(walks, count, -1)
            allowed: Bools = np.all(costs <= self._limits[:, None], axis=2) | (not self.problem.limits.hard)
            for walk, index in np.argwhere(~allowed).tolist():
                allowed[walk, index] = self._completes(int(walk), int(index))
            self._options = allowed, costs
        return self._options

    def _with_rest(self, rest: Rows) -> Rows:
        rows = rest.copy()
        rows[:, : self.position] = self.chosen
        return rows

    def nearest(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each walk the allowed choice nearest to its index, the one that compresses more where two are as near."""
        allowed = self.allowed()
        distance = 2 * np.abs(np.arange(allowed.shape[1]) - indices[:, None]) + (
            np.arange(allowed.shape[1]) > indices[:, None]
        )
        found: NDArray[np.int64] = np.where(allowed, distance, np.iinfo(np.int64).max).argmin(1)
        return found

    def choose(self, indices: NDArray[np.int64]) -> None:
        """Decide in every walk. Raises `InvalidAction`, and changes nothing, for a choice that is not allowed."""
        allowed, costs = self._known()
        for walk, index in enumerate(indices):
            if not 0 <= index < allowed.shape[1] or not allowed[walk, index]:
                fitting = ", ".join(str(choice) for choice in np.flatnonzero(allowed[walk]))
                raise InvalidAction(f"choice {index} is not allowed for {self.decision}; allowed are {fitting}")
        self.least = costs[np.arange(len(indices)), indices]
        self._completion[:, self.position] = indices
        self.position += 1
        self._options = None
        cheap = np.flatnonzero((self.least <= self._limits).all(1))
        self._completion[cheap, self.position :] = self._cheapest[cheap, self.position :]

    def _completes(self, walk: int, index: int) -> bool:
        """Whether the completion that is known keeps the limits with `index` now."""
        row = self._completion[walk].copy()
        if (row[self.position + 1 :] == self._cheapest[walk, self.position + 1 :]).all():
            return False
        row[self.position] = index
        return bool((self.problem.costs_of(row[None])[0] <= self._limits[walk]).all())


class Walk:
    """One policy in the making; see `Walks`."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.walks = Walks(problem)

    @property
    def done(self) -> bool:
        """Whether every decision is made."""
        return self.walks.done

    @property
    def chosen(self) -> Choices:
        """An index for every decision that is made."""
        return tuple(self.walks.chosen[0].tolist())

    @property
    def policy(self) -> Policy:
        """The finished policy. Raises `PolicyError` while a decision is open."""
        return self.problem.space.policy(self.chosen)

    def allowed(self) -> Bools:
        """Which choices of the present decision may be made; never none."""
        allowed: Bools = self.walks.allowed()[0]
        return allowed

    def nearest(self, index: int) -> int:
        """The allowed choice nearest to `index`, the one that compresses more where two are as near."""
        return int(self.walks.nearest(np.array([index]))[0])

    def choose(self, index: int) -> None:
        """Decide. Raises `InvalidAction`, and changes nothing, for a choice that is not allowed."""
        self.walks.choose(np.array([index]))
