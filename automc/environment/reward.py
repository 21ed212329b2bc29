"""The rewards by name: pure functions of what a policy is worth and of the limits that its cost should keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from automc.errors import ConfigError
from automc.schema import CostMetric, GoalSpec

HARD_GOALS = ("amc", "fastest")  # every trial keeps every limit; other goals weigh cost against quality


class Costs(Protocol):
    """What a policy costs: a cost model's answer, or the metrics of a trial."""

    @property
    def latency_ms(self) -> float: ...
    @property
    def energy_mj(self) -> float | None: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def macs(self) -> int: ...


class Judged(Costs, Protocol):
    """What a policy costs and is worth: the `Metrics` of an evaluated one, or what is expected of one."""

    @property
    def quality(self) -> float: ...
    @property
    def quality_loss(self) -> float: ...


@dataclass(frozen=True)
class Limits:
    """A goal with its limits as absolute numbers in the metrics' own units."""

    goal: GoalSpec
    costs: Mapping[CostMetric, float]

    @classmethod
    def of(cls, goal: GoalSpec, dense: Costs) -> Limits:
        """The limits of a goal, whose shares are shares of what the dense 8-bit network costs.

        Raises `ConfigError` for a limit on a metric that the device's table knows nothing about.
        """
        costs: dict[CostMetric, float] = {}
        for metric, limit in goal.limits.items():
            whole = getattr(dense, metric)
            if whole is None:
                raise ConfigError(
                    f"goal.limits: {metric} has a limit, but the device's table has no model of it; state one in its "
                    "header, as in '# energy.multiply_8x8_pj: 0.2', or take the limit out"
                )
            costs[metric] = float(limit[:-1]) / 100 * whole if isinstance(limit, str) else float(limit)
        return cls(goal, costs)

    @property
    def hard(self) -> bool:
        """Whether no policy may exceed a limit."""
        return self.goal.reward in HARD_GOALS

    def within(self, share: float) -> Limits:
        """A share of the same limits."""
        return Limits(self.goal, {metric: share * limit for metric, limit in self.costs.items()})

    @property
    def weights(self) -> NDArray[np.float64]:
        """What a unit of each limited cost counts in the weighted mean of cost / limit."""
        weights = np.array([self.goal.weights.get(metric, 1.0) for metric in self.costs])
        shares: NDArray[np.float64] = weights / weights.sum() / np.array([*self.costs.values()])
        return shares

    def ratio(self, cost: Costs) -> float:
        """The weighted mean of cost / limit."""
        weights = {metric: self.goal.weights.get(metric, 1.0) for metric in self.costs}
        shares = (weights[metric] * getattr(cost, metric) / limit for metric, limit in self.costs.items())
        return float(sum(shares) / sum(weights.values()))

    def worst(self, cost: Costs) -> float:
        """The largest cost / limit; at most 1 where every limit is kept."""
        return max(float(getattr(cost, metric)) / limit for metric, limit in self.costs.items())

    def fits(self, cost: Costs) -> bool:
        """Whether every limit is kept."""
        return all(getattr(cost, metric) <= limit for metric, limit in self.costs.items())

    def broken(self, cost: Costs) -> str:
        """In words, which limits of a hard goal forbid to deliver what costs so much; nothing where none does."""
        if not self.hard:
            return ""
        spent = {metric: getattr(cost, metric) for metric in self.costs}
        return "; ".join(
            f"{metric} is {spent[metric]:.6g}, above the limit of {limit:.6g}"
            for metric, limit in self.costs.items()
            if spent[metric] > limit
        )


Score = Callable[[float], float]  # a metric's value as a number about 1, see `Metric.score`


def amc(metrics: Judged, limits: Limits, score: Score) -> float:
    """The score, under limits that the environment keeps (He et al. 2018, AMC, section 3.3)."""
    return score(metrics.quality)


def mnasnet(metrics: Judged, limits: Limits, score: Score) -> float:
    """`score * ratio ** exponent` (Tan et al. 2019, MnasNet, equation 2 with alpha = beta)."""
    return float(score(metrics.quality) * limits.ratio(metrics) ** limits.goal.exponent)


def absolute(metrics: Judged, limits: Limits, score: Score) -> float:
    """`score - beta * |ratio - 1|` (Bender et al. 2020, TuNAS, section 3.1)."""
    return score(metrics.quality) - limits.goal.beta * abs(limits.ratio(metrics) - 1)


def fastest(metrics: Judged, limits: Limits, score: Score) -> float:
    """The share of the limits that is saved; below zero, by what is missing, where too much quality is lost.

    What is missing counts as the score loses it just below a value of 0.
    """
    excess = metrics.quality_loss - limits.goal.tolerance
    return score(-excess) - score(0.0) if excess > 0 else 1 - limits.ratio(metrics)


REWARDS: Mapping[str, Callable[[Judged, Limits, Score], float]] = {
    "amc": amc,
    "mnasnet": mnasnet,
    "absolute": absolute,
    "fastest": fastest,
}
