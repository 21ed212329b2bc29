"""Which budgets a search space can keep: the lowest costs there are, before any policy is tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from automc.environment.factors import COSTS, Factors
from automc.environment.reward import Costs, Limits
from automc.environment.space import Choices, SearchSpace, replaced
from automc.schema import CostMetric

_ROUNDS = 40  # of weighing several limits against each other
_RATE = 4.0  # of the weights' change, for a limit that is exceeded by its own size


@dataclass(frozen=True)
class Lowest:
    """Choices of the lowest cost in one metric; `exact` where it is certain that there is none lower."""

    choices: Choices
    cost: float
    exact: bool


@dataclass(frozen=True)
class Kept:
    """The choices that came nearest to keeping all limits: `worst` is their largest cost / limit, 1 or less if kept.

    `certain` where the limits are kept, or where it is proven that no choices keep them.
    """

    choices: Choices
    worst: float
    certain: bool


class Feasibility:
    """How low the costs of a search space go. Without `factors` what it finds is not certain to be the lowest."""

    def __init__(self, space: SearchSpace, cost_of: Callable[[Choices], Costs], factors: Factors | None) -> None:
        self._space, self._cost_of, self._factors = space, cost_of, factors

    def lowest(self, metric: CostMetric) -> Lowest:
        """The lowest cost in `metric`, whatever the others are."""
        choices = self._cheapest({metric: 1.0})
        exact = choices is not None
        if choices is None:
            choices = self._descend(self._space.smallest(), lambda cost: float(getattr(cost, metric)))
        return Lowest(choices, float(getattr(self._cost_of(choices), metric)), exact)

    def keep(self, limits: Limits) -> Kept:
        """Choices that keep every limit: the smallest, or the cheapest, or what a descent reaches.

        Where several limits are exceeded, their weights grow with what is missing (Arora, Hazan and Kale 2012, "The
        multiplicative weights update method"). If the least weighted mean of cost / limit is above 1, for any weights,
        no choices keep all limits.
        """
        best = self._kept(self._space.smallest(), limits)
        weights = dict.fromkeys(limits.costs, 1 / len(limits.costs))
        for _ in range(_ROUNDS):
            if best.worst <= 1:
                return best
            choices = self._cheapest({metric: weights[metric] / limit for metric, limit in limits.costs.items()})
            if choices is None:
                break
            cost = self._cost_of(choices)
            ratios = {metric: float(getattr(cost, metric)) / limit for metric, limit in limits.costs.items()}
            best = min(best, self._kept(choices, limits), key=lambda kept: kept.worst)
            if sum(weights[metric] * ratios[metric] for metric in weights) > 1:
                return Kept(best.choices, best.worst, certain=True)
            grown = {metric: weights[metric] * np.exp(_RATE * (ratios[metric] - 1)) for metric in weights}
            weights = {metric: float(weight / sum(grown.values())) for metric, weight in grown.items()}
        found = self._kept(self._descend(best.choices, limits.worst), limits)
        return Kept(found.choices, found.worst, certain=found.worst <= 1)

    def _kept(self, choices: Choices, limits: Limits) -> Kept:
        worst = limits.worst(self._cost_of(choices))
        return Kept(choices, worst, certain=worst <= 1)

    def _cheapest(self, weights: Mapping[CostMetric, float]) -> Choices | None:
        if self._factors is None:
            return None
        return self._factors.cheapest([weights.get(metric, 0.0) for metric in COSTS])

    def _descend(self, choices: Choices, value: Callable[[Costs], float]) -> Choices:
        """Change one decision after the other for the better until none helps; a narrower choice may be dearer."""
        best, lowest = choices, value(self._cost_of(choices))
        improved = True
        while improved:
            improved = False
            for position, decision in enumerate(self._space.decisions):
                for index in range(len(decision.choices)):
                    candidate = replaced(best, position, index)
                    if (found := value(self._cost_of(candidate))) < lowest:
                        best, lowest, improved = candidate, found, True
        return best
