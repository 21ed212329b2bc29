"""AMC's two heuristics beside the uniform one: compress the shallow layers most, or the deep ones."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from automc.environment.problem import Problem
from automc.environment.space import Choices
from automc.search.searchers.base import Evaluate, Searcher

_LEVELS = 20  # of the share that either end of the network keeps


class _Ramp(Searcher):
    """Evaluates every policy within the budget whose shares grow evenly from one end of the network to the other."""

    shallow_first: ClassVar[bool]

    def run(self, evaluate: Evaluate) -> None:
        for _ in evaluate.many(map(self.problem.space.policy, ramp_choices(self.problem, self.shallow_first))):
            pass


class Shallow(_Ramp):
    """Compresses the first layers most (He et al. 2018, AMC, section 4.1), the largest policies first."""

    shallow_first = True


class Deep(_Ramp):
    """Compresses the last layers most (He et al. 2018, AMC, section 4.1), the largest policies first."""

    shallow_first = False


def ramp_choices(problem: Problem, shallow_first: bool) -> list[Choices]:
    """The choices of all ramps that keep the limits of a hard goal, the most costly first.

    A decision takes the largest choice whose share of the work (`Decision.shares`) is at most the ramp's there, or else
    its smallest.
    """
    space, limits = problem.space, problem.limits
    layers = list(dict.fromkeys(decision.layer for decision in space.decisions))
    depth = {layer: place / max(1, len(layers) - 1) for place, layer in enumerate(layers)}
    found = set()
    for least in range(_LEVELS):
        for most in range(least + 1, _LEVELS + 1):
            ends = (least, most) if shallow_first else (most, least)
            choices = []
            for decision in space.decisions:
                wanted = (ends[0] + (ends[1] - ends[0]) * depth[decision.layer]) / _LEVELS
                choices.append(max(0, int(np.searchsorted(decision.shares, wanted + 1e-9)) - 1))
            found.add(tuple(choices))
    fitting = [choices for choices in found if not limits.hard or limits.fits(problem.cost_of(choices))]
    return sorted(fitting, key=lambda choices: (-limits.ratio(problem.cost_of(choices)), choices))
