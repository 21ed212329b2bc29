"""`CostModel`: what a policy costs on a device, without building or compiling anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from automc.choices import Choice, Sparse
from automc.compiler.sizes import BYTES_OF_CODE_LENGTHS, block_bytes, stored_bytes
from automc.compression.policy import Policy
from automc.cost.energy import Energy, energy_of, kernel_energy, static_energy
from automc.cost.kernels import Kernel, KernelPlan, Part, Step
from automc.cost.lookup import Lookup
from automc.cost.table import LatencyTable, Source
from automc.errors import TableError
from automc.network.graph import Network

_GAP_BITS = 2  # how many more bits than the mean gap needs are kept for the gap before a weight that is not zero
_SAVED_BITS = 0.25  # by a Huffman code, of what a symbol has; more in most layers, so that estimates are seldom too low


@dataclass(frozen=True)
class Cost:
    """What one inference takes. `interpolated` names the layers whose latency no row of the table says exactly.

    `uncertainty_ms` is by how much the latency may be off if all the table's errors add up. `energy_mj` is None where
    the table states no energy model. `size_bytes` is exact for plain weights, and an estimate for those of a codebook,
    sparse or Huffman coded ones: what they take is known when there is a Program.
    """

    latency_ms: float
    energy_mj: float | None
    size_bytes: int
    macs: int
    interpolated: tuple[str, ...]
    source: Source
    uncertainty_ms: float = 0.0


class Price(NamedTuple):
    """What one part of a network costs; `interpolated` where no row of the table says its latency exactly.

    `energy_mj` is 0 where the table states no energy model.
    """

    latency_ms: float
    energy_mj: float
    size_bytes: int
    macs: int
    uncertainty_ms: float = 0.0
    interpolated: bool = False


class CostModel:
    """The cost of any policy of `network`, from one latency table: a sum of prices, one for each of its `parts`.

    `order` says in which order slots leave each group; see `KernelPlan`.
    """

    def __init__(
        self, network: Network, table: LatencyTable, order: Mapping[str, NDArray[np.int64]] | None = None
    ) -> None:
        self.network = network
        self.table = table
        self._plan = KernelPlan(network, order)
        self.parts = self._plan.parts
        self._lookup = Lookup(table)
        self._prices: dict[tuple[Kernel, int, Choice | None], Price] = {}
        # One row that was not measured makes the sum something that was not measured.
        self._source: Source = next((row.source for row in table.rows if row.source != "measured"), "measured")
        self.cost(Policy())  # a table without a row for some operation is refused here, before time is spent

    def cost(self, policy: Policy) -> Cost:
        """The sum over the network's parts and the overhead of one call."""
        counts = self._plan.counts(policy)
        return self.total([self._sum(part.steps(policy, counts)) for part in self.parts])

    def price(self, part: Part, policy: Policy) -> Price:
        """What one part costs under `policy`, of which only what the part depends on is looked at."""
        return self._sum(self._plan.steps_of(part, policy))

    @cached_property
    def call(self) -> Price:
        """What a call costs beside the parts: the overhead."""
        return Price(self.table.header.overhead_ms, self._static_mj(self.table.header.overhead_ms), 0, 0)

    def total(self, prices: Sequence[Price]) -> Cost:
        """The cost of a policy from the price of each part, in their order."""
        latency, energy, size, macs, uncertainty, _ = self.call
        interpolated: list[str] = []
        for part, price in zip(self.parts, prices, strict=True):
            latency += price[0]
            energy += price[1]
            size += price[2]
            macs += price[3]
            uncertainty += price[4]
            if price[5] and part.layer not in interpolated[-1:]:
                interpolated.append(part.layer)
        energy_mj = None if self.table.energy is None else energy
        return Cost(latency, energy_mj, size, macs, tuple(interpolated), self._source, uncertainty)

    def layer_prices(self, policy: Policy) -> dict[str, Price]:
        """What each layer costs, without the overhead of one call."""
        steps: dict[str, tuple[Step, ...]] = {}
        for step in self._plan.steps(policy):
            steps[step.layer] = (*steps.get(step.layer, ()), step)
        return {layer: self._sum(own) for layer, own in steps.items()}

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

    def _sum(self, steps: tuple[Step, ...]) -> Price:
        if len(steps) == 1:
            _, kernel, times, choice = steps[0]
            return self._price(kernel, times, choice)
        prices = [self._price(kernel, times, choice) for _, kernel, times, choice in steps]
        latencies, energies, sizes, macs, uncertainties, interpolated = zip(*prices, strict=True)
        return Price(sum(latencies), sum(energies), sum(sizes), sum(macs), sum(uncertainties), any(interpolated))

    def _price(self, kernel: Kernel, times: int, choice: Choice | None) -> Price:
        if (known := self._prices.get((kernel, times, choice))) is not None:
            return known
        found = self._lookup(kernel)
        latency = found.latency_ms * times
        stored = _weight_bytes(kernel, times, choice)
        energy = self._static_mj(latency)
        if self.table.energy is not None:
            energy += kernel_energy(kernel, times, stored, self.table.energy).total_mj
        price = Price(latency, energy, stored, kernel.macs * times, found.uncertainty_ms * times, found.interpolated)
        self._prices[kernel, times, choice] = price
        return price

    def _static_mj(self, latency_ms: float) -> float:
        return 0.0 if self.table.energy is None else static_energy(latency_ms, self.table.energy).total_mj


def _weight_bytes(kernel: Kernel, times: int, choice: Choice | None) -> int:
    """Stored weights, biases and multipliers: exact for plain weights, else about what a Program's will turn out to be.

    What indices, lists of non-zeros and Huffman codes take depends on the weights themselves.
    """
    if kernel.weight_bits == 0:
        return 0
    inputs, groups = (1, kernel.outputs) if kernel.operation == "depthwise" else (kernel.inputs, times)
    shape = times * kernel.outputs, inputs, kernel.kernel_height, kernel.kernel_width
    bits, head = _symbol(kernel, choice)
    if isinstance(choice, Sparse):
        if choice.pattern == "blocks":
            return head + block_bytes(shape, bits, choice.density)
        bits = choice.density * (bits + _GAP_BITS + math.log2(1 / choice.density))
    return head + stored_bytes(shape, bits, groups, (kernel.dilation_height, kernel.dilation_width))


def _symbol(kernel: Kernel, choice: Choice | None) -> tuple[float, int]:
    """About how many bits each weight that is stored takes, and the bytes that say what shared values or codes mean."""
    bits, entries = kernel.weight_bits, getattr(choice, "entries", None)
    if entries is not None:
        values = entries + isinstance(choice, Sparse)  # where shared ones do not count zero
        bits = min(bits, math.ceil(math.log2(values)))
    if getattr(choice, "huffman", False):
        return max(1.0, bits - _SAVED_BITS), BYTES_OF_CODE_LENGTHS + (entries or 1 << bits)
    return bits, 0 if entries is None else 1 << bits
