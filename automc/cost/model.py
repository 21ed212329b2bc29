"""`CostModel`: what a policy costs on a device, without building or compiling anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from automc.choices import Choice, Codebook, Sparse
from automc.compiler.sizes import stored_bytes
from automc.compression.policy import Policy
from automc.cost.energy import Energy, energy_of, kernel_energy, static_energy
from automc.cost.kernels import Kernel, KernelPlan
from automc.cost.lookup import Lookup
from automc.cost.table import LatencyTable, Source
from automc.errors import TableError
from automc.network.graph import Network

_GAP_BITS = 2  # how many more bits than the mean gap needs are kept for the gap before a weight that is not zero


@dataclass(frozen=True)
class Cost:
    """What one inference takes. `interpolated` names the layers whose latency no row of the table says exactly.

    `energy_mj` is None where the table states no energy model.
    """

    latency_ms: float
    energy_mj: float | None
    size_bytes: int
    macs: int
    interpolated: tuple[str, ...]
    source: Source


class _Price(NamedTuple):
    latency_ms: float
    interpolated: bool
    energy_mj: float
    size_bytes: int
    macs: int


class CostModel:
    """The cost of any policy of `network`, from one latency table.

    `order` says in which order slots leave each group; see `KernelPlan`.
    """

    def __init__(
        self, network: Network, table: LatencyTable, order: Mapping[str, NDArray[np.int64]] | None = None
    ) -> None:
        self.table = table
        self._plan = KernelPlan(network, order)
        self._lookup = Lookup(table)
        self._prices: dict[tuple[Kernel, int, Choice | None], _Price] = {}
        # One row that was not measured makes the sum something that was not measured.
        self._source: Source = next((row.source for row in table.rows if row.source != "measured"), "measured")
        self.cost(Policy())  # a table without a row for some operation is refused here, before time is spent

    def cost(self, policy: Policy) -> Cost:
        """The sum over the network's kernels and the overhead of one call."""
        latency, energy, size, macs = self.table.header.overhead_ms, 0.0, 0, 0
        interpolated: list[str] = []
        for layer, kernel, times, choice in self._plan.steps(policy):
            price = self._price(kernel, times, choice)
            latency += price.latency_ms
            energy += price.energy_mj
            size += price.size_bytes
            macs += price.macs
            if price.interpolated and layer not in interpolated[-1:]:
                interpolated.append(layer)
        coefficients = self.table.energy
        energy_mj = None if coefficients is None else energy + static_energy(latency, coefficients).total_mj
        return Cost(latency, energy_mj, size, macs, tuple(interpolated), self._source)

    def layer_latencies(self, policy: Policy) -> dict[str, float]:
        """The latency in milliseconds of what each layer computes, without the overhead of one call."""
        latencies: dict[str, float] = {}
        for layer, kernel, times, choice in self._plan.steps(policy):
            latencies[layer] = latencies.get(layer, 0.0) + self._price(kernel, times, choice).latency_ms
        return latencies

    def energy(self, policy: Policy) -> Energy:
        """The energy by cause. Raises `TableError` if the table states no energy model."""
        if self.table.energy is None:
            raise TableError(
                f"the latency table of {self.table.header.device} states no energy coefficients, so the energy of a "
                "policy is unknown; add '# energy.<name>: <value>' lines to its header, or take energy_mj out of the "
                "goal"
            )
        steps = self._plan.steps(policy)
        stored = [_weight_bytes(kernel, times, choice) for _, kernel, times, choice in steps]
        return energy_of(steps, stored, self.cost(policy).latency_ms, self.table.energy)

    def _price(self, kernel: Kernel, times: int, choice: Choice | None) -> _Price:
        if (known := self._prices.get((kernel, times, choice))) is not None:
            return known
        latency, interpolated = self._lookup(kernel)
        stored = _weight_bytes(kernel, times, choice)
        energy = 0.0
        if self.table.energy is not None:
            energy = kernel_energy(kernel, times, stored, self.table.energy).total_mj
        price = _Price(latency * times, interpolated, energy, stored, kernel.macs * times)
        self._prices[kernel, times, choice] = price
        return price


def _weight_bytes(kernel: Kernel, times: int, choice: Choice | None) -> int:
    """Stored weights, biases and multipliers; what entropy coding saves is known only of a Program."""
    if kernel.weight_bits == 0:
        return 0
    inputs, groups = (1, kernel.outputs) if kernel.operation == "depthwise" else (kernel.inputs, times)
    shape = times * kernel.outputs, inputs, kernel.kernel_height, kernel.kernel_width
    return stored_bytes(shape, _stored_bits(kernel, choice), groups)


def _stored_bits(kernel: Kernel, choice: Choice | None) -> float:
    """About how many bits each of the layer's weights takes in the library."""
    match choice:
        case Codebook():
            return math.ceil(math.log2(choice.entries))
        case Sparse() if choice.pattern == "blocks":
            return choice.density * choice.weight_bits
        case Sparse():
            symbol = choice.weight_bits if choice.entries is None else math.ceil(math.log2(choice.entries + 1))
            return min(8.0, choice.density * (symbol + _GAP_BITS + math.log2(1 / choice.density)))
    return kernel.weight_bits
