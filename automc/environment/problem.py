"""`Problem`: everything that an environment file names, loaded, so that policies can be priced and judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from automc.compression.policy import Policy
from automc.cost.model import Cost, CostModel
from automc.environment.factors import COSTS, Factors
from automc.environment.feasibility import Feasibility, Kept
from automc.environment.measures import Floats
from automc.environment.quality import Metric, find_metric
from automc.environment.reward import REWARDS, Judged, Limits
from automc.environment.space import Choices, SearchSpace
from automc.errors import InfeasibleBudget
from automc.network.datasets import Dataset, Splits
from automc.network.graph import Network
from automc.schema import CostMetric, EnvironmentSpec

if TYPE_CHECKING:
    from torch import nn

    from automc.compression.prepare import Preparation

Rows = NDArray[np.uint8]  # `n x decisions`: an index for each decision

_NAMED_LAYERS = 3  # that hold up a latency
_REMEMBERED_COSTS = 20_000  # an agent asks for the same early choices in every episode


class Pricing(Protocol):
    """A `CostModel`, as far as a problem needs it."""

    def cost(self, policy: Policy) -> Cost: ...


@dataclass(frozen=True, eq=False)
class Problem:
    """What is compressed, on which images, for which device, what may be chosen and what counts as good.

    `module` is the dense network that `given` was traced from; `network` is the one that is searched: `given`, or a
    wider one that answers the same where the environment lets groups grow. `target` is the instruction set that the
    prices are for; `identity` holds the SHA-256 of everything that the answer to a policy depends on; `prepare`
    calibrates, at its first call, what makes Programs of policies.
    """

    name: str
    spec: EnvironmentSpec
    given: Network
    network: Network
    module: nn.Module
    dataset: Dataset
    splits: Splits
    space: SearchSpace
    pricing: Pricing
    target: str
    identity: Mapping[str, str]
    prepare: Callable[[], Preparation]

    def cost(self, policy: Policy) -> Cost:
        """What a policy costs on the device."""
        return self.pricing.cost(policy)

    @cached_property
    def metric(self) -> Metric:
        """How well a network answers. Raises `NameNotFound` for a metric that nobody has registered."""
        return find_metric(self.spec.metric)

    @cached_property
    def dense(self) -> Policy:
        """The given network in 8 bits: of groups that grew, as many channels as there were."""
        slots = {group.name: group.slots for group in self.network.groups if group.prunable}
        given = {group.name: group.slots for group in self.given.groups}
        return Policy(keep_ratio={name: given[name] / slots[name] for name in slots if given[name] < slots[name]})

    @cached_property
    def dense_cost(self) -> Cost:
        """What the given network costs in 8 bits."""
        return self.cost(self.dense)

    @cached_property
    def limits(self) -> Limits:
        """The goal's limits in the metrics' own units. Raises `ConfigError` where the device cannot know a metric."""
        return Limits.of(self.spec.goal, self.dense_cost)

    def reward(self, metrics: Judged) -> float:
        """What the goal gives for a judged policy; below zero where its Program turned out too large for a hard limit.

        Other costs are known before there is a Program, and a search does not ask for policies that exceed them.
        """
        reward = REWARDS[self.spec.goal.reward](metrics, self.limits, self.metric.score)
        share = metrics.size_bytes / self.limits.costs.get("size_bytes", float("inf"))
        return min(reward, 1 - share) if self.limits.hard and share > 1 else reward

    @cached_property
    def factors(self) -> Factors | None:
        """The costs of policies as sums over layers; None where prices are made up otherwise."""
        return Factors(self.space, self.pricing) if isinstance(self.pricing, CostModel) else None

    @cached_property
    def cost_of(self) -> Callable[[Choices], Cost]:
        """The cost of one index for each decision of the space; the latest answers are remembered."""
        factors = self.factors
        return lru_cache(_REMEMBERED_COSTS)(
            factors.cost if factors else lambda choices: self.cost(self.space.policy(choices))
        )

    def costs_of(self, rows: Rows) -> Floats:
        """`n x limits`: the limited costs of `n` choices, in the order of `limits.costs` and as exact as `cost_of`."""
        if self.factors is not None:
            return self.factors.costs(rows.astype(np.int64))[:, [COSTS.index(metric) for metric in self.limits.costs]]
        costs = map(self.cost_of, map(tuple, rows.tolist()))
        return np.array([[getattr(cost, metric) for metric in self.limits.costs] for cost in costs], np.float64)

    @cached_property
    def feasibility(self) -> Feasibility:
        """How low the costs of the search space go."""
        return Feasibility(self.space, self.cost_of, self.factors)

    @cached_property
    def cheapest(self) -> Choices:
        """Choices that keep every limit, where some can be found, see `Feasibility.keep`; else those that come nearest.

        Raises `InfeasibleBudget`, with what is reachable and what stands in the way, where a hard limit is not kept.
        """
        return self.cheapest_within(1.0)

    def cheapest_within(self, share: float) -> Choices:
        """As `cheapest`, for a share of the limits."""
        limits = self.limits.within(share)
        kept = self.feasibility.keep(limits)
        if limits.hard and kept.worst > 1:
            raise InfeasibleBudget(self._shortfall(kept, share))
        return kept.choices

    def lowest_line(self, metric: CostMetric) -> str:
        """The lowest reachable cost in `metric`, and, of a latency, the layers that hold it up."""
        lowest, dense = self.feasibility.lowest(metric), float(getattr(self.dense_cost, metric))
        text = f"{metric}: the lowest {'reachable' if lowest.exact else 'found'} is {_rounded_up(lowest.cost)}"
        text += f", {lowest.cost / dense:.1%} of the dense network at 8 bits"
        if metric != "latency_ms" or not isinstance(self.pricing, CostModel):
            return text
        prices = self.pricing.layer_prices(self.space.policy(lowest.choices))
        slowest = sorted(prices, key=lambda layer: -prices[layer].latency_ms)[:_NAMED_LAYERS]
        shares = (f"{layer} {prices[layer].latency_ms / lowest.cost:.0%}" for layer in slowest)
        return f"{text}; most of it in {', '.join(shares)}"

    def _shortfall(self, kept: Kept, share: float) -> str:
        certainty = "no policy of the search space keeps" if kept.certain else "no policy was found that keeps"
        budget = "the budget" if share == 1 else f"{share:g} of the budget"
        lines = [
            f"{self.lowest_line(metric)}. The limit is {limit:.6g}, {limit / getattr(self.dense_cost, metric):.1%}"
            for metric, limit in self.limits.costs.items()
        ]
        nearest = ", ".join(
            f"goal.limits.{metric}={_rounded_up(float(getattr(self.cost_of(kept.choices), metric)) / share)}"
            for metric in self.limits.costs
        )
        return "\n".join([f"{self.name}: {certainty} {budget}", *lines, f"The nearest reachable target: {nearest}"])


def _rounded_up(cost: float) -> str:
    """With six digits, never below `cost`, so that it can be asked for."""
    if cost.is_integer():
        return f"{cost:.0f}"
    digits = Decimal(repr(cost))
    return f"{digits.quantize(Decimal(1).scaleb(digits.adjusted() - 5), rounding=ROUND_CEILING):f}"
