"""Uniform search: one keep ratio, one width of weights and one of activations for the whole network."""

from __future__ import annotations

import math
from itertools import product

from automc.environment.problem import Problem
from automc.environment.space import KINDS, Decision, Kind
from automc.search.searchers.base import Evaluate, Searcher

Level = dict[Kind, float]  # kind of decision to the value that every decision of this kind takes


class Uniform(Searcher):
    """Evaluates every uniform policy that keeps the budget, the least compressed first, and is done."""

    def run(self, evaluate: Evaluate) -> None:
        for choices in uniform_choices(self.problem):
            evaluate(self.problem.space.policy(choices))


def uniform_choices(problem: Problem) -> list[tuple[int, ...]]:
    """The choices of every uniform policy that keeps the limits of a hard goal, the least compressed first.

    Where a decision does not offer a level, it takes the nearest lower choice that it has, or else its lowest.
    """
    spec = problem.space.spec
    levels = [
        dict(zip(KINDS, values, strict=True))
        for values in product(spec.keep_ratio, spec.weight_bits, spec.activation_bits)
    ]
    levels.sort(key=lambda level: math.prod(level.values()), reverse=True)
    found = dict.fromkeys(tuple(_nearest(decision, level) for decision in problem.space.decisions) for level in levels)
    limits = problem.limits
    return [choices for choices in found if not limits.hard or limits.fits(problem.cost_of(choices))]


def _nearest(decision: Decision, level: Level) -> int:
    # Ratios are those of whole channels, so the asked one may have been rounded up a little.
    wanted = level[decision.kind] * (1 + 1e-9)
    lower = [index for index, choice in enumerate(decision.choices) if choice <= wanted]
    return lower[-1] if lower else 0
