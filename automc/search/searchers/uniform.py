"""Uniform search: one keep ratio, one width of weights and one of activations for the whole network."""

from __future__ import annotations

import math
from itertools import product

from automc.environment.problem import Problem
from automc.environment.space import KINDS, Choices, Decision, Kind, Value, share_of
from automc.search.searchers.base import Evaluate, Searcher

Level = dict[Kind, Value]  # kind of decision to the value that every decision of this kind takes


class Uniform(Searcher):
    """Evaluates every uniform policy that keeps the budget, the least compressed first, and is done."""

    def run(self, evaluate: Evaluate) -> None:
        for _ in evaluate.many(map(self.problem.space.policy, uniform_choices(self.problem))):
            pass


def uniform_choices(problem: Problem) -> list[Choices]:
    """The choices of every uniform policy that keeps the limits of a hard goal, the least compressed first.

    Where a decision does not offer a level, it takes the one of the nearest lower share that it has, or else its
    lowest.
    """
    spec = problem.space.spec
    levels = [
        dict(zip(KINDS, values, strict=True)) for values in product(spec.ratios, spec.weights, spec.activation_bits)
    ]
    levels.sort(key=lambda level: math.prod(share_of(kind, value) for kind, value in level.items()), reverse=True)
    found = dict.fromkeys(tuple(_nearest(decision, level) for decision in problem.space.decisions) for level in levels)
    limits = problem.limits
    return [choices for choices in found if not limits.hard or limits.fits(problem.cost_of(choices))]


def _nearest(decision: Decision, level: Level) -> int:
    asked = level[decision.kind]
    if asked in decision.choices:
        return decision.choices.index(asked)
    # Ratios are those of whole channels, so the asked one may have been rounded up a little.
    wanted = share_of(decision.kind, asked) * (1 + 1e-9)
    lower = [index for index, share in enumerate(decision.shares) if share <= wanted]
    return lower[-1] if lower else 0
