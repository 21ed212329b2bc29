"""What each choice of a policy bought, layer by layer, against the whole network at 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from automc.compression.policy import Policy
from automc.cost.model import CostModel, Price

KINDS = ("channels", "weights", "activations")


@dataclass(frozen=True)
class Amount:
    """A difference of costs; `energy_mj` is 0 where the table states no energy model."""

    latency_ms: float
    energy_mj: float
    size_bytes: float

    @classmethod
    def of(cls, price: Price) -> Amount:
        """The costs of one layer."""
        return cls(price.latency_ms, price.energy_mj, price.size_bytes)


@dataclass(frozen=True)
class LayerSavings:
    """What one layer costs whole at 8 bits, what it costs now, and how much of the difference each kind of choice made.

    Channels are those that the layer reads and writes, activations the bits of what it reads.
    """

    layer: str
    dense: Amount
    now: Amount
    saved: dict[str, Amount]  # by `KINDS`


def savings(model: CostModel, policy: Policy) -> list[LayerSavings]:
    """The savings of every layer in the order of computation.

    Choices help each other, so that what one brings depends on which came before. Here it is the mean over all orders,
    in which the savings of a layer add up to the whole difference (Shapley 1953).
    """
    fields = dict(zip(KINDS, ("keep_ratio", "weights", "activation_bits"), strict=True))
    prices = {
        taken: model.layer_prices(policy.model_copy(update={fields[kind]: {} for kind in KINDS if kind not in taken}))
        for count in range(len(KINDS) + 1)
        for taken in combinations(KINDS, count)
    }

    def amounts(taken: tuple[str, ...], layer: str) -> np.ndarray:
        return np.array(prices[taken][layer][:3])

    def saved(kind: str, layer: str) -> Amount:
        total = np.zeros(3)
        for before in prices:
            if kind not in before:
                after = tuple(each for each in KINDS if each in before or each == kind)
                orders = math.factorial(len(before)) * math.factorial(len(KINDS) - 1 - len(before))
                total += orders * (amounts(before, layer) - amounts(after, layer))
        return Amount(*(total / math.factorial(len(KINDS))).tolist())

    return [
        LayerSavings(
            layer,
            Amount.of(prices[()][layer]),
            Amount.of(prices[KINDS][layer]),
            {kind: saved(kind, layer) for kind in KINDS},
        )
        for layer in prices[()]
    ]
