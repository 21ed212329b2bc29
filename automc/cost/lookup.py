"""What a kernel takes according to a table: its row, or an estimate between rows that says it is one."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from automc.cost.kernels import Kernel, partial_sum_growth
from automc.cost.table import LatencyTable, Row
from automc.errors import TableError

Tiles = tuple[int, int]  # (steps of input channels, vectors of output channels)
Bits = tuple[int, int]  # (of weights, of activations)


class Surface(dict[Tiles, float]):
    """The latency at each measured tile count; complete before the first question."""

    @cached_property
    def axes(self) -> tuple[list[int], list[int]]:
        """The measured counts along inputs and outputs, ascending."""
        return sorted({at[0] for at in self}), sorted({at[1] for at in self})


# What the nearest row leaves uncertain of an estimate, as a share: nine tenths of the rows of tables of this project's
# development machine, each left out in turn, were nearer to the estimate by the others.
_UNCERTAIN = 0.02
_UNCERTAIN_AN_OCTAVE = 0.08
_ANOTHER_BIT = 0.5  # octaves: for each bit by which partial sums grow otherwise
_ANOTHER_KIND = 1.0  # octaves: another geometry, or another encoding of weights
_SIDES = [f"{each}_{along}" for each in ("kernel", "stride", "dilation") for along in ("height", "width")]
_MEDIAN_INTERVAL = 1.57  # quartile distances over the root of the count (McGill, Tukey and Larsen 1978)


class Latency(NamedTuple):
    """`interpolated` where no row says it exactly; `uncertainty_ms` is half of an interval of about 95 % (of a row) or
    90 % (of an estimate), and grows with the distance to the nearest row.
    """

    latency_ms: float
    uncertainty_ms: float
    interpolated: bool


class Lookup:
    """The latency of any kernel, from the rows of one table.

    A kernel's time is a staircase in its channels, so distances are counted in tiles: vectors of output channels and
    steps of neighbouring input values, as the instruction set takes them at once. In order of preference:

    1. the row of this kernel;
    2. rows of its geometry (all but channels, bits and residual) and of the bits nearest to its own: bilinear between
       the tile counts around it; where these bits have no rows around it, the surface of other bits that has, times
       the ratio of the two at the nearest tile counts where both were measured; a residual adds what it adds elsewhere;
    3. the nearest geometry of the same operation, in proportion to the work.

    Weights that are stored otherwise than as they are, and of which the table has no row, take what those of the
    nearest density take, or else the dense kernel, in proportion to the blocks that are not skipped.

    The distance to the nearest row is in octaves: doublings of tile counts, of pixels and of the window's sides.
    """

    def __init__(self, table: LatencyTable) -> None:
        self._header = table.header
        self._memory = {row.kernel: Latency(row.latency_ms, _uncertainty_ms(row), False) for row in table.rows}
        self._geometries: dict[Kernel, _Geometry] = defaultdict(_Geometry)
        for row in sorted(table.rows, key=lambda row: row.kernel):
            self._geometries[row.kernel.geometry].add(row.kernel, self._tiles(row.kernel), row.latency_ms)

    def __call__(self, kernel: Kernel) -> Latency:
        """Raises `TableError` if the table has no row of this operation at all."""
        if (known := self._memory.get(kernel)) is None:
            latency, octaves = self._estimate(kernel)
            share = _UNCERTAIN + _UNCERTAIN_AN_OCTAVE * octaves
            known = self._memory[kernel] = Latency(latency, share * latency, True)
        return known

    def _estimate(self, kernel: Kernel) -> tuple[float, float]:
        """The latency, and the octaves to the nearest row."""
        if kernel != kernel.dense and kernel.geometry not in self._geometries:
            known = self._nearest_density(kernel)
            latency, octaves = self._estimate(known)
            return latency * kernel.multiplied_percent / known.multiplied_percent, octaves + _ANOTHER_KIND
        geometry = self._nearest_geometry(kernel)
        latency, octaves = self._geometries[geometry].estimate(kernel, self._tiles(kernel))
        if geometry == kernel.geometry:
            return latency, octaves
        pixels = kernel.height * kernel.width * kernel.kernel_height * kernel.kernel_width
        measured_pixels = geometry.height * geometry.width * geometry.kernel_height * geometry.kernel_width
        apart = sum(_geometry_distance(kernel, geometry)) / math.log(2)
        return latency * pixels / measured_pixels, octaves + _ANOTHER_KIND + apart

    def _nearest_density(self, kernel: Kernel) -> Kernel:
        """As the kernel, and of a density that is known; dense where none is."""
        like = kernel.geometry
        densities = [
            known.density_percent
            for known in self._geometries
            if known == like._replace(density_percent=known.density_percent)
        ]
        if not densities:
            return kernel.dense
        nearest = min(densities, key=lambda percent: abs(math.log(percent / kernel.density_percent)))
        return kernel._replace(density_percent=nearest)

    def _nearest_geometry(self, kernel: Kernel) -> Kernel:
        wanted = kernel.geometry
        if wanted in self._geometries:
            return wanted
        candidates = [
            known for known in self._geometries if known.operation == kernel.operation and known == known.dense
        ]
        if not candidates:
            raise TableError(
                f"the latency table of {self._header.device} has no row of the operation '{kernel.operation}'; "
                f"run `automc measure` for target {self._header.target} with this network to add what is missing"
            )
        return min(candidates, key=lambda known: _geometry_distance(wanted, known))

    def _tiles(self, kernel: Kernel) -> Tiles:
        """Steps along one row of the window, whose pixels' channels are neighbours in memory, and output vectors."""
        if not kernel.weight_bits:
            return 1, kernel.outputs
        outputs = math.ceil(kernel.outputs / self._header.output_tile)
        if kernel.operation == "depthwise":
            return 1, outputs
        if kernel.dilation_width > 1:  # its pixels are no neighbours
            return kernel.kernel_width * math.ceil(kernel.inputs / self._header.input_tile), outputs
        return math.ceil(kernel.inputs * kernel.kernel_width / self._header.input_tile), outputs


class _Geometry:
    """The rows of one geometry: for kernels without and with a residual, a surface of tile counts for each bits."""

    def __init__(self) -> None:
        self._plain: dict[Bits, Surface] = {}
        self._residual: dict[Bits, Surface] = {}

    def add(self, kernel: Kernel, tiles: Tiles, latency_ms: float) -> None:
        family = self._residual if kernel.residual else self._plain
        family.setdefault((kernel.weight_bits, kernel.activation_bits), Surface())[tiles] = latency_ms

    def estimate(self, kernel: Kernel, tiles: Tiles) -> tuple[float, float]:
        """The latency, and the octaves to the nearest row of the surface that it comes from."""
        bits = kernel.weight_bits, kernel.activation_bits
        if not self._plain or (kernel.residual and _inside(self._residual.get(bits, Surface()), tiles)):
            return _of_family(self._residual, bits, tiles), _octaves(self._residual, bits, tiles)
        plain = _of_family(self._plain, bits, tiles)
        added = self._added_by_residual(bits, tiles) if kernel.residual else 0.0
        return plain + added, _octaves(self._plain, bits, tiles)

    def _added_by_residual(self, bits: Bits, tiles: Tiles) -> float:
        """It depends on the outputs alone."""
        both = {known: self._residual[known] for known in self._residual if known in self._plain}
        if not both:
            return 0.0
        nearest = _nearest_bits(bits, both)
        plain = self._plain[nearest]
        added = Surface({(1, at[1]): time - plain[at] for at, time in both[nearest].items() if at in plain})
        return max(0.0, _in_proportion(added, (1, tiles[1]))) if added else 0.0


def _of_family(family: Mapping[Bits, Surface], bits: Bits, tiles: Tiles) -> float:
    nearest = _nearest_bits(bits, family)
    surface = family[nearest]
    if not _inside(surface, tiles):
        around = {
            known: other
            for known, other in family.items()
            if _inside(other, tiles) and not surface.keys().isdisjoint(other)
        }
        if around:
            other = around[_nearest_bits(nearest, around)]
            common = _nearest_tiles([at for at in surface if at in other], tiles)
            return _bilinear(other, tiles) * surface[common] / other[common]
    return _in_proportion(surface, tiles)


def _nearest_bits(wanted: Bits, family: Mapping[Bits, object]) -> Bits:
    """The measured bits of the nearest growth, then of the nearest weight bits; the dearer of two equals."""
    growth = partial_sum_growth(*wanted)
    return min(
        family, key=lambda bits: (abs(partial_sum_growth(*bits) - growth), abs(bits[0] - wanted[0]), -bits[0], -bits[1])
    )


def _in_proportion(surface: Surface, tiles: Tiles) -> float:
    """Bilinear where the surface has rows around `tiles`; else from the nearest place, in proportion to the tiles."""
    nearest = tiles
    if not _inside(surface, tiles):
        nearest = _clamped(surface.axes[0], tiles[0]), _clamped(surface.axes[1], tiles[1])
        if not _inside(surface, nearest):
            nearest = _nearest_tiles(list(surface), tiles)
    return _bilinear(surface, nearest) * (tiles[0] * tiles[1]) / (nearest[0] * nearest[1])


def _bilinear(surface: Surface, tiles: Tiles) -> float:
    inputs, outputs = _cell(surface, tiles)
    ends = [_between(outputs, [surface[row, column] for column in outputs], tiles[1]) for row in inputs]
    return _between(inputs, ends, tiles[0])


def _inside(surface: Surface, tiles: Tiles) -> bool:
    """Whether the corners of the cell around `tiles` are all measured."""
    if tiles in surface:
        return True
    if not surface:
        return False
    inputs, outputs = _cell(surface, tiles)
    surrounded = inputs[0] <= tiles[0] <= inputs[1] and outputs[0] <= tiles[1] <= outputs[1]
    return surrounded and all((row, column) in surface for row in inputs for column in outputs)


def _cell(surface: Surface, tiles: Tiles) -> tuple[Tiles, Tiles]:
    """The measured input and output counts just below and just above; the same one twice at or beyond an end."""
    if tiles in surface:
        return (tiles[0], tiles[0]), (tiles[1], tiles[1])
    ends = []
    for counts, wanted in zip(surface.axes, tiles, strict=True):
        above = bisect_left(counts, wanted)
        exact = above < len(counts) and counts[above] == wanted
        ends.append((wanted, wanted) if exact else (counts[max(above - 1, 0)], counts[min(above, len(counts) - 1)]))
    return ends[0], ends[1]


def _between(ends: Tiles, values: list[float], wanted: int) -> float:
    if ends[0] == ends[1]:
        return values[0]
    share = (wanted - ends[0]) / (ends[1] - ends[0])
    return values[0] + share * (values[1] - values[0])


def _clamped(counts: list[int], wanted: int) -> int:
    return min(max(wanted, counts[0]), counts[-1])


def _nearest_tiles(measured: list[Tiles], wanted: Tiles) -> Tiles:
    return min(measured, key=lambda at: _apart(at, wanted))


def _apart(one: Tiles, other: Tiles) -> float:
    """Octaves between two tile counts; none at all, of a layer that has lost its channels, counts as one."""
    return sum(abs(math.log2(max(a, 1) / max(b, 1))) for a, b in zip(one, other, strict=True))


def _octaves(family: Mapping[Bits, Surface], bits: Bits, tiles: Tiles) -> float:
    nearest = _nearest_bits(bits, family)
    grown = abs(partial_sum_growth(*bits) - partial_sum_growth(*nearest))
    return _ANOTHER_BIT * grown + min(_apart(at, tiles) for at in family[nearest])


def _uncertainty_ms(row: Row) -> float:
    """Of a timed row that of its median, of a simulated one half of its bracket."""
    if row.source == "simulated":
        return row.spread_ms / 2
    return _MEDIAN_INTERVAL * row.spread_ms / math.sqrt(row.count)


def _geometry_distance(wanted: Kernel, known: Kernel) -> tuple[float, float]:
    """Other windows, strides and dilations weigh most, then the number of pixels."""
    shape = sum(abs(math.log(getattr(wanted, side) / getattr(known, side))) for side in _SIDES)
    return shape, abs(math.log(wanted.height * wanted.width / (known.height * known.width)))
