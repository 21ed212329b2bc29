"""`Searcher`: what every method of search shares, learned or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from automc.compression.policy import Policy
from automc.environment.problem import Problem
from automc.search.searchers.settings import Settings
from automc.search.trials import Trial


class Evaluate:
    """What a searcher asks. Both ways end by raising `BudgetSpent`."""

    def __call__(self, policy: Policy) -> Trial:
        """The trial of a policy."""
        raise NotImplementedError

    def many(self, policies: Iterable[Policy]) -> Iterator[Trial]:
        """The trials of policies of which none depends on the answer to another, in their order.

        They may be computed side by side, so `policies`, which may have no end, is drawn from ahead of the answers.
        """
        return map(self, policies)


class Searcher:
    """A method of search for one problem.

    It proposes policies by calling `evaluate`, and must be a deterministic function of its seed and the answers: it
    draws from generators of its own, reads no clock, and does not know how many trials there will be.
    """

    settings_model: ClassVar[type[Settings]] = Settings
    learns: ClassVar[bool] = False  # whether it is an agent, which the others are baselines for

    def __init__(self, problem: Problem, settings: Any, seed: int) -> None:
        self.problem = problem
        self.settings = settings
        self.seed = seed

    @property
    def asks_side_by_side(self) -> bool:
        """Whether it asks for several policies at once, by `evaluate.many`, so that processes can share the work."""
        return True

    def run(self, evaluate: Evaluate) -> None:
        """Call `evaluate` until nothing is left to try, or it raises `BudgetSpent`, which must pass through."""
        raise NotImplementedError

    def save(self, folder: Path, trials: Sequence[Trial]) -> None:
        """Write what was learned from these trials into the study's folder; most searchers learn nothing."""
