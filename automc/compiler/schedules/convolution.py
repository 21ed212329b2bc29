"""Convolution as dot products: tiles of pixels by output channels in registers, over a window's neighbouring bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.compiler.bounds import widening_interval
from automc.compiler.isa import LANES, STEP, Path
from automc.compiler.kernel import SCRATCH, Argument, Choice, Constant, Context, Kernel, Place, padded, signature
from automc.compiler.schedules.result import Result
from automc.compiler.storage import decoder, encode, needs_decoding
from automc.compression.operations import Convolve


@dataclass(frozen=True)
class Window:
    """How a kernel walks over a window: `rows x columns` runs of `run` neighbouring bytes, in steps of `STEP`.

    The columns of the window are one run where they are neighbours in memory.
    """

    rows: int
    columns: int
    run: int

    @property
    def steps(self) -> int:
        """Steps of one run; the last may reach behind it, where the weights are zero."""
        return -(-self.run // STEP)

    @classmethod
    def of(cls, shape: tuple[int, ...], dilation: tuple[int, int], groups: int) -> Window:
        """The window of weights of a shape `out x in/groups x kh x kw`."""
        _, channels, rows, columns = shape
        if columns == 1 or (dilation[1] == 1 and groups == 1):
            return cls(rows, 1, columns * channels)
        return cls(rows, columns, channels)

    def rows_of(self, weight: NDArray[np.int8]) -> NDArray[np.int8]:
        """Weights as the kernel meets them: `out x (rows * columns * steps) x STEP`."""
        outputs = len(weight)
        runs = weight.transpose(0, 2, 3, 1).reshape(outputs, self.rows * self.columns, self.run)
        return padded(runs, STEP).reshape(outputs, -1, STEP)


def choose_path(rows: NDArray[np.int8], largest_value: int, paths: tuple[Path, ...]) -> tuple[Path, int]:
    """The first path on which these weights are exact, and how many of its steps fit between widenings."""
    for path in paths:
        interval = widening_interval(rows, largest_value, path)
        if interval > 0:
            return path, interval
    raise AssertionError("a target's last path is exact for every weight")


def convolution(operation: Convolve, context: Context) -> Kernel:
    """The kernel of a convolution that is not depthwise; groups are computed one after the other."""
    source = context.layouts[operation.source]
    groups = operation.groups
    window = Window.of(operation.weight.shape, operation.dilation, groups)
    rows = window.rows_of(operation.weight)
    path, interval = choose_path(rows, context.largest_values[operation.source], context.target.paths)
    height, width = context.program.output_size(operation)
    outputs = operation.outputs // groups
    tile = Tile.of(height, width, path)
    result = Result.of(operation, context)
    panels = panel_channels(outputs, path)

    weights, biases, multipliers = [], [], []
    for group in range(groups):
        first = group * outputs
        for channels in panels:
            part = slice(first, first + channels)
            lanes = -(-channels // LANES) * LANES
            panel = np.zeros((lanes, *rows.shape[1:]), np.int8)
            panel[:channels] = rows[part]
            weights.append(encode(np.ascontiguousarray(panel.transpose(1, 0, 2)), operation.weight_bits))
            biases.append(padded(operation.bias[part], LANES))
            multipliers.append(padded(operation.multiplier[part], LANES))
            first += channels
    constants = [np.concatenate(arrays) for arrays in (weights, biases, multipliers)]

    decoded = needs_decoding(operation.weight_bits, path.weight_type)
    helper = decoder(operation.weight_bits, path.weight_type) if decoded else None
    body = _Body(operation, window, path, interval, tile, result, source.row_bytes, source.tensor.channels)
    lines = [
        signature(
            "const uint8_t *source", "const uint8_t *weights", "const int32_t *bias", "const float *multipliers",
            *result.parameters, *([f"{path.weight_type} *scratch"] if decoded else []),
        ),
        f"  for (int group = 0; group < {groups}; group++) {{",
    ]  # fmt: skip
    full = panels.count(panels[0])
    lines += body.panels(panels[0], full, height, width, helper[0] if helper else None)
    if len(panels) > full:
        lines += body.panels(panels[-1], 1, height, width, helper[0] if helper else None)
    lines += [f"  source += {window.run if groups > 1 else 0};", "  }", "}"]

    arguments: list[Argument] = [
        Place(operation.source, source.start(operation.padding)), *map(Constant, constants), *result.arguments
    ]  # fmt: skip
    width_bytes = 2 if path.weight_type == "int16_t" else 1
    scratch = -(-panels[0] // LANES) * LANES * rows.shape[1] * STEP * width_bytes if decoded else 0
    return Kernel(
        "\n".join(lines),
        (*arguments, *([SCRATCH] if decoded else [])),
        Choice(
            f"dot products, {path.name}", f"{tile.height}x{tile.width} x {min(panels[0], path.vectors * LANES)}",
            interval, sum(array.nbytes for array in constants),
        ),
        {helper[0]: helper[1]} if helper else {},
        scratch,
    )  # fmt: skip


def panel_channels(outputs: int, path: Path) -> list[int]:
    """Output channels of each panel: full ones, then what remains."""
    size = path.vectors * LANES
    return [size] * (outputs // size) + ([outputs % size] if outputs % size else [])


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
    path: Path
    interval: int
    tile: Tile
    result: Result
    row_bytes: int
    channels: int  # of a pixel of the source

    def panels(self, channels: int, count: int, height: int, width: int, decode: str | None) -> list[str]:
        """The loop over `count` panels of `channels` output channels each."""
        vectors = -(-channels // LANES)
        values = vectors * LANES * self.window.rows * self.window.columns * self.window.steps * STEP
        stored = values * self.operation.weight_bits // 8
        panel = (
            f"{decode}(scratch, weights, {values});" if decode else "const int8_t *scratch = (const int8_t *)weights;"
        )
        return [
            f"  for (int panel = 0; panel < {count}; panel++) {{",
            f"    {panel}",
            *(f"    const value_t m{v} = value_load(multipliers + {v * LANES});" for v in range(vectors)),
            f"    {_loop('y', height, self.tile.height)}",
            f"    {_loop('x', width, self.tile.width)}",
            *("      " + line for line in self._tile(channels, vectors)),
            "    }}",
            f"    weights += {stored}; bias += {vectors * LANES}; multipliers += {vectors * LANES};",
            f"    {self.result.advance(channels)}",
            "  }",
        ]

    def _tile(self, channels: int, vectors: int) -> list[str]:
        pixels = [(y, x) for y in range(self.tile.height) for x in range(self.tile.width)]
        names = [(p, v) for p in range(len(pixels)) for v in range(vectors)]
        stride, dilation = self.operation.stride, self.operation.dilation
        offsets = [y * stride[0] * self.row_bytes + x * stride[1] * self.channels for y, x in pixels]
        name = self.path.name
        zero = [f"{name}_sum s{p}_{v} = {name}_zero();" for p, v in names]
        widen = [f"c{p}_{v} = {name}_widen(c{p}_{v}, s{p}_{v});" for p, v in names]

        step = [
            f"const {name}_act a{p} = {name}_load(from + {offset} + k); "
            + " ".join(f"s{p}_{v} = {name}_dot(s{p}_{v}, a{p}, w + {v * LANES * STEP});" for v in range(vectors))
            for p, offset in enumerate(offsets)
        ]

        def steps(first: str, last: str) -> list[str]:
            advance = vectors * LANES * STEP
            return [f"for (int k = {first}; k < {last}; k += {STEP}, w += {advance}) {{", *step, "}"]

        runs = self.window.rows * self.window.columns
        run = self.window.steps * STEP
        if self.interval >= self.window.steps:
            segment = steps("0", str(run))
        else:
            count = -(-self.window.steps // self.interval)
            block = -(-self.window.steps // count) * STEP
            whole = run // block * block
            segment = [
                f"for (int k0 = 0; k0 < {whole}; k0 += {block}) {{",
                *zero,
                *steps("k0", f"k0 + {block}"),
                *widen,
                "}",
            ]
            if whole < run:
                segment += ["{", *zero, *steps(str(whole), str(run)), *widen, "}"]
        if self.window.steps <= self.interval < self.window.steps * runs:
            segment = [*zero, *segment, *widen]
        loops = [
            f"for (int i = 0; i < {self.window.rows}; i++) for (int j = 0; j < {self.window.columns}; j++) {{",
            f"const uint8_t *from = at + i * {dilation[0] * self.row_bytes} + j * {dilation[1] * self.channels};",
            *segment,
            "}",
        ]
        if self.interval >= self.window.steps * runs:
            loops = [*zero, *loops, *widen]
        return [
            f"const uint8_t *at = source + y * {stride[0] * self.row_bytes} + x * {stride[1] * self.channels};",
            f"const {self.path.weight_type} *w = scratch;",
            *(f"acc_t c{p}_{v} = acc_load(bias + {v * LANES});" for p, v in names),
            *loops,
            *(
                line
                for p, (y, x) in enumerate(pixels)
                for v in range(vectors)
                for line in self.result.store(f"c{p}_{v}", f"m{v}", y, x, v * LANES, min(LANES, channels - v * LANES))
            ),
        ]


def _loop(name: str, length: int, tile: int) -> str:
    """A loop over tiles; where they do not fit evenly, the last one lies over the one before it."""
    if length % tile == 0:
        return f"for (int {name} = 0; {name} < {length}; {name} += {tile}) {{"
    last = length - tile
    return (
        f"for (int {name}_ = 0; {name}_ < {length}; {name}_ += {tile}) {{ "
        f"const int {name} = {name}_ < {last} ? {name}_ : {last};"
    )
