"""`Problem`: everything that an environment file names, loaded, so that policies can be priced and judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Protocol

from automc.compression.policy import Policy
from automc.environment.metrics import Metrics
from automc.environment.quality import Metric, find_metric
from automc.environment.reward import REWARDS, Costs, Limits
from automc.environment.space import SearchSpace
from automc.errors import InfeasibleBudget
from automc.network.datasets import Dataset, Splits
from automc.network.graph import Network
from automc.schema import EnvironmentSpec

if TYPE_CHECKING:
    from torch import nn

    from automc.compression.prepare import Preparation
    from automc.cost.model import Cost

_REMEMBERED_COSTS = 20_000  # an agent asks for the same early choices in every episode


class Pricing(Protocol):
    """A `CostModel`, as far as a problem needs it."""

    def cost(self, policy: Policy) -> Cost: ...


@dataclass(frozen=True, eq=False)
class Problem:
    """What is compressed, on which images, for which device, what may be chosen and what counts as good.

    `module` is the dense network that `network` was traced from; `target` is the instruction set that the prices are
    for; `identity` holds the SHA-256 of everything that the answer to a policy depends on; `prepare` calibrates, at its
    first call, what makes Programs of policies.
    """

    name: str
    spec: EnvironmentSpec
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
    def dense_cost(self) -> Cost:
        """What the whole network costs in 8 bits."""
        return self.cost(Policy())

    @cached_property
    def limits(self) -> Limits:
        """The goal's limits in the metrics' own units. Raises `ConfigError` where the device cannot know a metric."""
        return Limits.of(self.spec.goal, self.dense_cost)

    def reward(self, metrics: Metrics) -> float:
        """What the goal gives for a judged policy."""
        return REWARDS[self.spec.goal.reward](metrics, self.limits, self.metric.score)

    @cached_property
    def cost_of(self) -> Callable[[tuple[int, ...]], Cost]:
        """The cost of one index for each decision of the space; the latest answers are remembered."""
        return lru_cache(_REMEMBERED_COSTS)(lambda choices: self.cost(self.space.policy(choices)))

    @cached_property
    def cheapest(self) -> tuple[int, ...]:
        """Choices that keep every limit, where some can be found: the smallest, or what descending from them reaches.

        Raises `InfeasibleBudget` with the lowest cost reached, where a hard limit is not kept.
        """
        choices = self.space.smallest()
        if not self.limits.fits(self.cost_of(choices)):
            choices = _descend(choices, self.space, lambda candidate: self.limits.worst(self.cost_of(candidate)))
        cost = self.cost_of(choices)
        if self.limits.hard and not self.limits.fits(cost):
            raise InfeasibleBudget(
                f"{self.name}: no policy of the search space keeps the budget. {self._shortfall(cost)}"
            )
        return choices

    def _shortfall(self, cost: Costs) -> str:
        return "; ".join(
            f"{metric}: the lowest cost found is {getattr(cost, metric):.6g}, the limit is {limit:.6g} "
            f"({getattr(self.dense_cost, metric):.6g} dense at 8 bits)"
            for metric, limit in self.limits.costs.items()
        )


def _descend(
    choices: tuple[int, ...], space: SearchSpace, value: Callable[[tuple[int, ...]], float]
) -> tuple[int, ...]:
    """Change one decision after the other for the better until none helps; a narrower choice need not be cheaper."""
    best, lowest = choices, value(choices)
    improved = True
    while improved:
        improved = False
        for position, decision in enumerate(space.decisions):
            for index in range(len(decision.choices)):
                candidate = replaced(best, position, index)
                if (found := value(candidate)) < lowest:
                    best, lowest, improved = candidate, found, True
    return best


def replaced(choices: Sequence[int], position: int, index: int) -> tuple[int, ...]:
    """The choices with one of them changed."""
    return (*choices[:position], index, *choices[position + 1 :])
