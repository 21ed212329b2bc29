"""What a kernel takes according to a table: its row, or an estimate between rows that says it is one."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from automc.cost.kernels import Kernel
from automc.cost.table import LatencyTable
from automc.errors import TableError

Tiles = tuple[int, int]  # (input groups, output panels)


class Latency(NamedTuple):
    """`interpolated` where no row says it exactly."""

    latency_ms: float
    interpolated: bool


class Lookup:
    """The latency of any kernel, from the rows of one table.

    A kernel's time is a staircase in its channels, so distances are counted in tiles: panels of output channels and
    groups of input channels that the instruction set computes at once. In order of preference:

    1. the row of this kernel;
    2. rows of the same geometry (all but channels and bits), of the bits nearest to the kernel's, bilinear between the
       measured tile counts around it; beyond them, in proportion to the work;
    3. the nearest geometry of the same operation, in proportion to the work.
    """

    def __init__(self, table: LatencyTable) -> None:
        self._table = table
        self._memory: dict[Kernel, Latency] = {row.kernel: Latency(row.latency_ms, False) for row in table.rows}
        self._surfaces: dict[Kernel, dict[tuple[int, int], dict[Tiles, float]]] = defaultdict(lambda: defaultdict(dict))
        for row in sorted(table.rows, key=lambda row: row.kernel):
            bits = row.kernel.weight_bits, row.kernel.activation_bits
            self._surfaces[_geometry(row.kernel)][bits][self._tiles(row.kernel)] = row.latency_ms

    def __call__(self, kernel: Kernel) -> Latency:
        """Raises `TableError` if the table has no row of this operation at all."""
        if (known := self._memory.get(kernel)) is None:
            known = self._memory[kernel] = Latency(self._estimate(kernel), True)
        return known

    def _estimate(self, kernel: Kernel) -> float:
        geometry = self._nearest_geometry(kernel)
        surfaces = self._surfaces[geometry]
        bits = _nearest_bits((kernel.weight_bits, kernel.activation_bits), surfaces)
        pixels = kernel.height * kernel.width * kernel.kernel_height * kernel.kernel_width
        measured_pixels = geometry.height * geometry.width * geometry.kernel_height * geometry.kernel_width
        return _interpolate(surfaces[bits], self._tiles(kernel)) * pixels / measured_pixels

    def _nearest_geometry(self, kernel: Kernel) -> Kernel:
        wanted = _geometry(kernel)
        if wanted in self._surfaces:
            return wanted
        candidates = [geometry for geometry in self._surfaces if geometry.operation == kernel.operation]
        if not candidates:
            header = self._table.header
            raise TableError(
                f"the latency table of {header.device} has no row of the operation '{kernel.operation}'; "
                f"run `automc measure` for target {header.target} with this network to add what is missing"
            )
        return min(candidates, key=lambda known: _geometry_distance(wanted, known))

    def _tiles(self, kernel: Kernel) -> Tiles:
        header = self._table.header
        return math.ceil(kernel.inputs / header.input_tile), math.ceil(kernel.outputs / header.output_tile)


def _geometry(kernel: Kernel) -> Kernel:
    """The kernel without its channels and bits."""
    return kernel._replace(inputs=0, outputs=0, weight_bits=0, activation_bits=0)


def _geometry_distance(wanted: Kernel, known: Kernel) -> tuple[float, ...]:
    """Other kernel sizes and strides weigh most, then the presence of a residual, then the number of pixels."""
    shape = sum(abs(math.log(a / b)) for a, b in zip(wanted[5:9], known[5:9], strict=True))
    pixels = abs(math.log(wanted.height * wanted.width / (known.height * known.width)))
    return shape, pixels, float(wanted.residual != known.residual)


def _nearest_bits(wanted: tuple[int, int], surfaces: Mapping[tuple[int, int], object]) -> tuple[int, int]:
    """Instructions are chosen by how fast partial sums grow: by the sum of the bits; the dearer of two equals."""
    return min(surfaces, key=lambda bits: (abs(sum(bits) - sum(wanted)), abs(bits[0] - wanted[0]), -bits[0], -bits[1]))


def _interpolate(surface: Mapping[Tiles, float], wanted: Tiles) -> float:
    """Bilinear in the cell around `wanted` if its corners are measured, else in proportion from the nearest point."""
    inputs = _around(sorted({tiles[0] for tiles in surface}), wanted[0])
    outputs = _around(sorted({tiles[1] for tiles in surface}), wanted[1])
    if all((i, o) in surface for i in inputs for o in outputs):
        i, o = min(max(wanted[0], inputs[0]), inputs[1]), min(max(wanted[1], outputs[0]), outputs[1])
        low, high = (_between(outputs, [surface[row, column] for column in outputs], o) for row in inputs)
        return _between(inputs, [low, high], i) * (wanted[0] * wanted[1]) / (i * o)
    nearest = min(surface, key=lambda tiles: sum(abs(math.log(a / b)) for a, b in zip(tiles, wanted, strict=True)))
    return surface[nearest] * (wanted[0] * wanted[1]) / (nearest[0] * nearest[1])


def _around(axis: list[int], wanted: int) -> tuple[int, int]:
    """The measured values just below and just above `wanted`; the same one twice at or beyond an end."""
    above = bisect_left(axis, wanted)
    if above < len(axis) and axis[above] == wanted:
        return wanted, wanted
    return axis[max(above - 1, 0)], axis[min(above, len(axis) - 1)]


def _between(ends: tuple[int, int], values: list[float], wanted: int) -> float:
    if ends[0] == ends[1]:
        return values[0]
    share = (wanted - ends[0]) / (ends[1] - ends[0])
    return values[0] + share * (values[1] - values[0])
