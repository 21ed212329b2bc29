"""Depthwise convolution: lanes are channels, and the taps of a window stand in the place of neighbouring bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, product

import numpy as np
from numpy.typing import NDArray

from automc.compiler.isa import LANES, STEP, Path, Register
from automc.compiler.kernel import Context, Kernel, Place, chunks, signature
from automc.compiler.schedules.convolution import Tile, tiles
from automc.compiler.schedules.result import Result
from automc.compiler.schedules.weights import Weights, choose_path
from automc.compression.operations import Convolve

_MOST_PIXELS = 7  # of a tile: widths that are multiples of it are frequent


def depthwise(operation: Convolve, context: Context) -> Kernel:
    """The kernel of a convolution that gives every channel its own window."""
    source = context.layouts[operation.source]
    channels = operation.outputs
    # Residuals and logits are read and written in the order of the channels, which quads do not keep; in another order
    # a stream of non-zeros would be another one, and take other bytes than elsewhere.
    plain = operation.residual is not None or operation.encoding == "sparse" or operation.target not in context.layouts
    quads = () if plain else context.target.paths[0].quads
    in_columns = bool(quads) and channels >= LANES * min(quads) and _shares_columns(operation)
    places = _places(operation, in_columns)
    rows = np.where(places < 0, np.int8(0), operation.weight.reshape(channels, -1)[:, places])
    path, interval = choose_path(rows, context.largest_values[operation.source], context.target.paths)
    panels = _panels(channels, () if plain else path.quads)
    run = operation.kernel[0] if in_columns else math.prod(operation.kernel)
    weights = Weights.of(operation, rows, run, path, panels, one_by_one=True, order=_order(panels))
    result = Result.of(operation, context)
    height, width = context.program.output_size(operation)
    rows_step, columns_step = operation.stride[0] * source.row_bytes, operation.stride[1] * channels
    taps = _taps(operation, source.row_bytes, places)
    pixels = Tile.of(1, width, _MOST_PIXELS).width if in_columns else 1

    def loops(count: int, pieces: int) -> list[str]:
        vectors = -(-count // LANES)
        if count > LANES:
            before, each = _quad(path, interval, taps, result, count, [p * columns_step for p in range(pixels)])
        else:
            before, each = _single(path, interval, taps, result, count)
        body = [
            *before,
            f"for (int y = 0; y < {height}; y++) {tiles('x', width, pixels if count > LANES else 1)}",
            f"  const uint8_t *at = source + y * {rows_step} + x * {columns_step};",
            *("  " + line for line in each),
            "}",
        ]
        return [
            f"  for (int i = 0; i < {pieces}; i++) {{",
            *("    " + line for line in weights.open(vectors)),
            *("    " + line for line in result.panel(body, count, vectors * LANES, (height, width))),
            f"    bias += {vectors * LANES}; multipliers += {vectors * LANES}; source += {count};",
            f"    {result.advance(count)}",
            "  }",
        ]

    code = [
        signature("const uint8_t *source", *weights.parameters, *result.parameters),
        *(line for count, same in groupby(panels) for line in loops(count, len(list(same)))),
        "}",
    ]
    return Kernel(
        "\n".join(code),
        (Place(operation.source, source.start(operation.padding)), *weights.arguments, *result.arguments),
        weights.choice(f"depthwise, {path.name}{result.title}", f"1x{pixels} x {panels[0]}", interval),
        {**weights.helpers, **result.helpers},
        weights.scratch_bytes,
    )


def _panels(channels: int, quads: Sequence[int]) -> list[int]:
    """Channels cut into as wide quads as there are, and then into single vectors."""
    panels: list[int] = []
    for vectors in quads:
        panels += [vectors * LANES] * ((channels - sum(panels)) // (vectors * LANES))
    return panels + chunks(channels - sum(panels), LANES)


def _order(panels: Sequence[int]) -> list[int]:
    """The channel of each lane: in a quad, register r has the channels 4r to 4r + 3 of every 16."""
    order: list[int] = []
    for count in panels:
        first, blocks = len(order), count // 16
        if count <= LANES:
            order += range(first, first + count)
        else:
            order += [first + 16 * b + 4 * r + i for r in range(4) for b in range(blocks) for i in range(4)]
    return order


def _single(
    path: Path, interval: int, taps: list[list[int]], result: Result, count: int
) -> tuple[list[str], list[str]]:
    """C text before the loops over pixels and in them, for one vector."""
    lines = ["acc_t c = acc_load(bias);"]
    for steps in _widened_together(taps, interval):
        lines.append(f"{{ {path.name}_sum s = {path.name}_zero();")
        for step in steps:
            lines.append(f"  s = {path.name}_dot_taps(s, {_pointers(taps[step])}, panel + {step * LANES * STEP});")
        lines.append(f"  c = {path.name}_widen(c, s); }}")
    before, store = result.store("c", "m", 0, 0, Register(0, 1), count)
    return [f"const value_t m = value_load({result.multipliers});"], [*lines, *before, store]


def _quad(
    path: Path, interval: int, taps: list[list[int]], result: Result, count: int, pixels: list[int]
) -> tuple[list[str], list[str]]:
    """C text before the loops over tiles and in them, for four registers of each pixel, so far from the first one.

    What several pixels do with the same taps stands together, and no store between it, so that compilers transpose the
    taps once.
    """
    of = Register(0, count // LANES // 4).prefix
    name, last = of + path.name, len(taps) - 1
    lines = []
    pairs = product(range(len(pixels)), range(len(taps)))
    for p, step in sorted(pairs, key=lambda pair: (pixels[pair[0]] + taps[pair[1]][0], pair[1])):
        sums = f"s{p}_{step // interval}"
        if step == 0:
            lines.append(f"{of}acc_t c{p}[4] = {{b[0], b[1], b[2], b[3]}};")
        if step % interval == 0:
            lines.append(f"{name}_sum {sums}[4] = {{{', '.join([f'{name}_zero()'] * 4)}}};")
        pointers = _pointers([pixels[p] + tap for tap in taps[step]])
        lines.append(f"{name}_dot_taps4({sums}, {pointers}, panel + {step * count * STEP});")
        if (step + 1) % interval == 0 or step == last:
            lines.append(f"for (int r = 0; r < 4; r++) c{p}[r] = {name}_widen(c{p}[r], {sums}[r]);")
        if step == last:
            lines.append(f"{of}value_t v{p}[4];")
            lines.append(f"for (int r = 0; r < 4; r++) v{p}[r] = {of}value_scale(c{p}[r], m[r]);")
            lines += result.store_quad(f"v{p}", of, p)
    before = [
        f"{of}acc_t b[4]; {of}acc_load4(b, bias);",
        f"{of}value_t m[4]; {of}value_load4(m, {result.multipliers});",
    ]
    return before, lines


def _shares_columns(operation: Convolve) -> bool:
    """Whether steps may be a window's columns, which neighbouring windows share, without being more than in rows."""
    rows, columns = operation.kernel
    next_to_each_other = operation.stride[1] == operation.dilation[1] == 1
    return next_to_each_other and rows <= STEP and columns == -(-rows * columns // STEP)


def _places(operation: Convolve, in_columns: bool) -> NDArray[np.intp]:
    """The number in its window of each tap, `steps x STEP`, and -1 for what fills up a step."""
    places = np.arange(math.prod(operation.kernel)).reshape(operation.kernel)
    runs = places.T if in_columns else places.reshape(1, -1)
    return np.pad(runs, ((0, 0), (0, -runs.shape[1] % STEP)), constant_values=-1).reshape(-1, STEP)


def _taps(operation: Convolve, row_bytes: int, places: NDArray[np.intp]) -> list[list[int]]:
    """For each step, where its taps lie from the window's first; for what fills it up, the last one again."""
    rows, columns = np.divmod(np.maximum.accumulate(places, axis=1), operation.kernel[1])
    offsets = rows * operation.dilation[0] * row_bytes + columns * operation.dilation[1] * operation.outputs
    return [[int(offset) for offset in step] for step in offsets]


def _widened_together(taps: list[list[int]], interval: int) -> list[range]:
    return [range(first, min(first + interval, len(taps))) for first in range(0, len(taps), interval)]


def _pointers(taps: list[int]) -> str:
    return ", ".join(f"at + {offset}" for offset in taps)
