"""Convolution as dot products: tiles of pixels by output channels in registers, over a window's neighbouring bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.compiler.isa import LANES, STEP, Path
from automc.compiler.kernel import Context, Kernel, Place, chunks, padded, signature
from automc.compiler.schedules.centred import Starts, centred
from automc.compiler.schedules.products import Products, Window
from automc.compiler.schedules.result import Result
from automc.compiler.schedules.weights import Weights, choose_path
from automc.compression.operations import Convolve


def convolution(operation: Convolve, context: Context) -> Kernel:
    """The kernel of a convolution that is not depthwise; groups are computed one after the other."""
    source = context.layouts[operation.source]
    groups = operation.groups
    window = Window.of(operation.weight.shape, operation.dilation, groups)
    rows = window_rows(operation.weight, window)
    largest = context.largest_values[operation.source]
    size = context.program.output_size(operation)
    path, interval = choose_path(rows, largest, context.target.paths)
    path, interval = centred(path, interval, rows, largest, window, context.pixels_of(operation))
    starts = Starts.of(path, window, interval)
    panels = chunks(operation.outputs // groups, path.vectors * LANES)
    weights = Weights.of(operation, rows, window.run, path, panels * groups, one_by_one=True)
    pixels = path.tile_pixels(-(-panels[0] // LANES), interval)
    tile = Tile.of(*size, pixels)
    result = Result.of(operation, context)
    reading = Reading(operation, source.row_bytes, source.tensor.channels)

    def products(offsets: tuple[int, ...], vectors: int) -> list[str]:
        return Products(path, interval, offsets, vectors, window, *reading.window_bytes).lines()

    def open_panel(vectors: int) -> list[str]:
        return [*weights.open(vectors), *starts.open(vectors, starts.steps)]

    code = [
        signature("const uint8_t *source", *weights.parameters, *starts.parameters, *result.parameters),
        f"  for (int group = 0; group < {groups}; group++) {{",
        *loops(panels, tile, reading, result, path, open_panel, products),
        *([f"    source += {window.run};"] if groups > 1 else []),
        "  }",
        "}",
    ]
    return Kernel(
        "\n".join(code),
        (
            Place(operation.source, source.start(operation.padding)),
            *weights.arguments,
            *starts.arguments(weights.scratch_bytes),
            *result.arguments,
        ),
        weights.choice(
            f"dot products, {path.name}{result.title}", f"{tile.height}x{tile.width} x {panels[0]}", interval
        ),
        {**weights.helpers, **starts.helpers, **result.helpers},
        starts.scratch_bytes(weights.scratch_bytes, path.vectors),
        in_place=tile.fits,
    )


@dataclass(frozen=True)
class Tile:
    """How many neighbouring output pixels are computed at once, of `rows x columns`."""

    rows: int
    columns: int
    height: int
    width: int

    @property
    def fits(self) -> bool:
        """Whether no pixel belongs to two tiles."""
        return self.rows % self.height == 0 and self.columns % self.width == 0

    @classmethod
    def of(cls, rows: int, columns: int, pixels: int) -> Tile:
        """Tiles of at most so many pixels that take least: each as long as a quarter of a pixel more than it has.

        Of equals, the tile of most pixels is taken, and of those the widest.
        """

        def takes(size: tuple[int, int]) -> tuple[int, int, int]:
            height, width = size
            tiles = -(-rows // height) * -(-columns // width)
            return tiles * (4 * height * width + 1), -height * width, height

        heights = range(1, min(rows, pixels) + 1)
        sizes = ((height, width) for height in heights for width in range(1, min(columns, pixels // height) + 1))
        return cls(rows, columns, *min(sizes, key=takes))


@dataclass(frozen=True)
class Reading:
    """How a kernel walks over the tensor that it reads."""

    operation: Convolve
    row_bytes: int
    pixel_bytes: int

    @property
    def window_bytes(self) -> tuple[int, int]:
        """Between rows and between columns of a window."""
        return self.operation.dilation[0] * self.row_bytes, self.operation.dilation[1] * self.pixel_bytes

    @property
    def tile_bytes(self) -> tuple[int, int]:
        """Between the windows of neighbouring output pixels."""
        return self.operation.stride[0] * self.row_bytes, self.operation.stride[1] * self.pixel_bytes


def loops(
    panels: Sequence[int],
    tile: Tile,
    reading: Reading,
    result: Result,
    path: Path,
    open_panel: Callable[[int], list[str]],
    products: Callable[[tuple[int, ...], int], list[str]],
) -> list[str]:
    """The loops over panels of output channels, all as many but the last, and over tiles of pixels.

    `open_panel` prints what makes `panel` point to the weights of so many vectors, `products` what adds to the
    accumulators of a tile, from the bytes at `at` plus each pixel's offset and the weights at `w`.
    """
    rows_step, columns_step = reading.tile_bytes
    pixels = [(y, x) for y in range(tile.height) for x in range(tile.width)]
    offsets = tuple(y * rows_step + x * columns_step for y, x in pixels)

    def of_panels(channels: int, count: int) -> list[str]:
        vectors = -(-channels // LANES)
        registers = path.registers(vectors)
        names = [(p, r) for p in range(len(pixels)) for r in registers]
        stores = [result.store(f"c{p}_{r.first}", f"m{r.first}", *pixels[p], r, channels) for p, r in names]
        body = [
            *(
                f"const {r.prefix}value_t m{r.first} = {r.prefix}value_load({result.multipliers} + {r.channel});"
                for r in registers
            ),
            tiles("y", tile.rows, tile.height),
            tiles("x", tile.columns, tile.width),
            f"  const uint8_t *at = source + y * {rows_step} + x * {columns_step};",
            f"  const {path.weight_type} *w = panel;",
            *(f"  {r.prefix}acc_t c{p}_{r.first} = {r.prefix}acc_load(bias + {r.channel});" for p, r in names),
            *("  " + line for line in products(offsets, vectors)),
            *("  " + line for before, _ in stores for line in before),
            *("  " + store for _, store in stores),
            "}}",
        ]
        return [
            f"  for (int i = 0; i < {count}; i++) {{",
            *("    " + line for line in open_panel(vectors)),
            *("    " + line for line in result.panel(body, channels, vectors * LANES, (tile.rows, tile.columns))),
            f"    bias += {vectors * LANES}; multipliers += {vectors * LANES};",
            f"    {result.advance(channels)}",
            "  }",
        ]

    full = panels.count(panels[0])
    return [*of_panels(panels[0], full), *(of_panels(panels[-1], 1) if len(panels) > full else [])]


def window_rows(weight: NDArray[np.int8], window: Window) -> NDArray[np.int8]:
    """Weights as the kernel meets them: `out x (runs * steps) x STEP`."""
    runs = weight.transpose(0, 2, 3, 1).reshape(len(weight), window.runs, window.run)
    return padded(runs, STEP).reshape(len(weight), -1, STEP)


def tiles(name: str, length: int, tile: int) -> str:
    """A loop over tiles; where they do not fit evenly, the last one lies over the one before it."""
    if length % tile == 0:
        return f"for (int {name} = 0; {name} < {length}; {name} += {tile}) {{"
    last = length - tile
    return (
        f"for (int {name}_ = 0; {name}_ < {length}; {name}_ += {tile}) {{ "
        f"const int {name} = {name}_ < {last} ? {name}_ : {last};"
    )
