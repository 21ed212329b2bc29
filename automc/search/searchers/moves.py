"""Moves from one policy to another that keep the budget: what searchers by mutation and by repair share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from automc.environment.problem import Problem
from automc.environment.space import Choices, replaced

_ATTEMPTS = 10  # to find another policy than the one that is changed


def within_budget(problem: Problem, choices: Sequence[int], random: np.random.Generator) -> Choices:
    """The choices themselves where they keep every limit; else decisions drawn at random step down until they do.

    To lower whatever comes last would spoil the same layers every time. Under a soft goal nothing is lowered. Where no
    way down keeps the limits, the answer is `problem.cheapest`.
    """
    found, limits = tuple(choices), problem.limits
    while limits.hard and not limits.fits(problem.cost_of(found)):
        lowerable = [position for position, index in enumerate(found) if index > 0]
        if not lowerable:
            return problem.cheapest
        position = int(random.choice(lowerable))
        found = replaced(found, position, found[position] - 1)
    return found


def mutated(problem: Problem, choices: Choices, changes: int, random: np.random.Generator) -> Choices:
    """A policy within the budget of which `changes` decisions, or as many as there are, were drawn anew."""
    decisions = problem.space.decisions
    found = choices
    for _ in range(_ATTEMPTS):
        for position in random.choice(len(decisions), min(changes, len(decisions)), replace=False):
            others = [index for index in range(len(decisions[position].choices)) if index != choices[position]]
            found = replaced(found, int(position), int(random.choice(others)))
        found = within_budget(problem, found, random)
        if found != choices:
            break
    return found
