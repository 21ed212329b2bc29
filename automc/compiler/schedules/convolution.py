"""Convolution as dot products: tiles of pixels by output channels in registers, over a window's neighbouring bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.compiler.isa import LANES, STEP, Path
from automc.compiler.kernel import Choice, Context, Kernel, Place, chunks, padded, signature
from automc.compiler.schedules.products import Products, Window
from automc.compiler.schedules.result import Result
from automc.compiler.schedules.weights import Weights, choose_path
from automc.compression.operations import Convolve


def convolution(operation: Convolve, context: Context) -> Kernel:
    """The kernel of a convolution that is not depthwise; groups are computed one after the other."""
    source = context.layouts[operation.source]
    groups = operation.groups
    window = Window.of(operation.weight.shape, operation.dilation, groups)
    rows = _rows(operation.weight, window)
    path, interval = choose_path(rows, context.largest_values[operation.source], context.target.paths)
    height, width = context.program.output_size(operation)
    panels = chunks(operation.outputs // groups, path.vectors * LANES)
    weights = Weights.of(operation, rows, window.run, path, panels * groups, one_by_one=True)
    tile = Tile.of(height, width, path)
    result = Result.of(operation, context)
    body = _Body(operation, window, weights, interval, tile, result, source.row_bytes, source.tensor.channels)
    full = panels.count(panels[0])
    code = [
        signature("const uint8_t *source", *weights.parameters, *result.parameters),
        f"  for (int group = 0; group < {groups}; group++) {{",
        *body.panels(panels[0], full, height, width),
        *(body.panels(panels[-1], 1, height, width) if len(panels) > full else []),
        *([f"    source += {window.run};"] if groups > 1 else []),
        "  }",
        "}",
    ]
    return Kernel(
        "\n".join(code),
        (Place(operation.source, source.start(operation.padding)), *weights.arguments, *result.arguments),
        Choice(
            f"dot products, {path.name}{result.title}",
            f"{tile.height}x{tile.width} x {panels[0]}",
            interval,
            weights.size_bytes,
        ),
        {**weights.helpers, **result.helpers},
        weights.scratch_bytes,
    )


@dataclass(frozen=True)
class Tile:
    """How many neighbouring output pixels are computed at once."""

    height: int
    width: int

    @classmethod
    def of(cls, height: int, width: int, path: Path) -> Tile:
        """Tiles of about equal widths, or of several short rows."""
        if width >= path.pixels:
            return cls(1, -(-width // -(-width // path.pixels)))
        tall = max(1, path.pixels // width)
        return cls(-(-height // -(-height // tall)), width)


@dataclass(frozen=True)
class _Body:
    """Prints the loops of a kernel."""

    operation: Convolve
    window: Window
    weights: Weights
    interval: int
    tile: Tile
    result: Result
    row_bytes: int
    channels: int  # of a pixel of the source

    def panels(self, channels: int, count: int, height: int, width: int) -> list[str]:
        """The loop over `count` panels of `channels` output channels each."""
        vectors = -(-channels // LANES)
        values = vectors * LANES * self.window.runs * self.window.steps * STEP
        body = [
            *(f"const value_t m{v} = value_load({self.result.multipliers} + {v * LANES});" for v in range(vectors)),
            _loop("y", height, self.tile.height),
            _loop("x", width, self.tile.width),
            *("  " + line for line in self._tile(channels, vectors)),
            "}}",
        ]
        return [
            f"  for (int i = 0; i < {count}; i++) {{",
            f"    {self.weights.open(values)}",
            *("    " + line for line in self.result.panel(body, channels, vectors * LANES, (height, width))),
            f"    stored += {values * self.weights.bits // 8};",
            f"    bias += {vectors * LANES}; multipliers += {vectors * LANES};",
            f"    {self.result.advance(channels)}",
            "  }",
        ]

    def _tile(self, channels: int, vectors: int) -> list[str]:
        pixels = [(y, x) for y in range(self.tile.height) for x in range(self.tile.width)]
        names = [(p, v) for p in range(len(pixels)) for v in range(vectors)]
        stride, dilation = self.operation.stride, self.operation.dilation
        products = Products(
            self.window,
            self.weights.path,
            self.interval,
            tuple(y * stride[0] * self.row_bytes + x * stride[1] * self.channels for y, x in pixels),
            vectors,
            dilation[0] * self.row_bytes,
            dilation[1] * self.channels,
        )
        return [
            f"const uint8_t *at = source + y * {stride[0] * self.row_bytes} + x * {stride[1] * self.channels};",
            f"const {self.weights.path.weight_type} *w = panel;",
            *(f"acc_t c{p}_{v} = acc_load(bias + {v * LANES});" for p, v in names),
            *products.lines(),
            *(
                line
                for p, (y, x) in enumerate(pixels)
                for v in range(vectors)
                for line in self.result.store(f"c{p}_{v}", f"m{v}", y, x, v * LANES, min(LANES, channels - v * LANES))
            ),
        ]


def _rows(weight: NDArray[np.int8], window: Window) -> NDArray[np.int8]:
    """Weights as the kernel meets them: `out x (runs * steps) x STEP`."""
    runs = weight.transpose(0, 2, 3, 1).reshape(len(weight), window.runs, window.run)
    return padded(runs, STEP).reshape(len(weight), -1, STEP)


def _loop(name: str, length: int, tile: int) -> str:
    """A loop over tiles; where they do not fit evenly, the last one lies over the one before it."""
    if length % tile == 0:
        return f"for (int {name} = 0; {name} < {length}; {name} += {tile}) {{"
    last = length - tile
    return (
        f"for (int {name}_ = 0; {name}_ < {length}; {name}_ += {tile}) {{ "
        f"const int {name} = {name}_ < {last} ? {name}_ : {last};"
    )
