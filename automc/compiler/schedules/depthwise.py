"""Depthwise convolution: lanes are channels, and the taps of a window stand in the place of neighbouring bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from automc.compiler.isa import LANES, STEP, Path, Register
from automc.compiler.kernel import Context, Kernel, Place, chunks, padded, signature
from automc.compiler.schedules.result import Result
from automc.compiler.schedules.weights import Weights, choose_path
from automc.compression.operations import Convolve


def depthwise(operation: Convolve, context: Context) -> Kernel:
    """The kernel of a convolution that gives every channel its own window."""
    source = context.layouts[operation.source]
    channels = operation.outputs
    rows = padded(operation.weight.reshape(channels, -1), STEP).reshape(channels, -1, STEP)
    path, interval = choose_path(rows, context.largest_values[operation.source], context.target.paths)
    # Residuals and logits are read and written in the order of the channels, which quads do not keep.
    plain = operation.residual is not None or operation.target not in context.layouts
    panels = _panels(channels, () if plain else path.quads)
    run = math.prod(operation.kernel)
    weights = Weights.of(operation, rows, run, path, panels, one_by_one=True, order=_order(panels))
    result = Result.of(operation, context)
    height, width = context.program.output_size(operation)
    rows_step, columns_step = operation.stride[0] * source.row_bytes, operation.stride[1] * channels
    taps = _taps(operation, source.row_bytes, rows.shape[1])

    def loops(count: int, pieces: int) -> list[str]:
        vectors = -(-count // LANES)
        before, each = (_quad if count > LANES else _single)(path, interval, taps, result, count)
        body = [
            *before,
            f"for (int y = 0; y < {height}; y++) for (int x = 0; x < {width}; x++) {{",
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
        weights.choice(f"depthwise, {path.name}{result.title}", f"1x1 x {panels[0]}", interval),
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


def _quad(path: Path, interval: int, taps: list[list[int]], result: Result, count: int) -> tuple[list[str], list[str]]:
    """C text before the loops over pixels and in them, for four registers."""
    of = Register(0, count // LANES // 4).prefix
    name = of + path.name
    lines = [f"{of}acc_t c[4] = {{b[0], b[1], b[2], b[3]}};"]
    for steps in _widened_together(taps, interval):
        lines.append(f"{{ {name}_sum s[4] = {{{', '.join([f'{name}_zero()'] * 4)}}};")
        for step in steps:
            lines.append(f"  {name}_dot_taps4(s, {_pointers(taps[step])}, panel + {step * count * STEP});")
        lines.append(f"  for (int r = 0; r < 4; r++) c[r] = {name}_widen(c[r], s[r]); }}")
    lines.append(f"{of}value_t v[4];")
    lines.append(f"for (int r = 0; r < 4; r++) v[r] = {of}value_scale(c[r], m[r]);")
    before = [
        f"{of}acc_t b[4]; {of}acc_load4(b, bias);",
        f"{of}value_t m[4]; {of}value_load4(m, {result.multipliers});",
    ]
    return before, [*lines, *result.store_quad("v", of)]


def _taps(operation: Convolve, row_bytes: int, steps: int) -> list[list[int]]:
    """For each step, where its taps lie from the window's first; what fills up the last step has weights of zero."""
    taps = [
        i * operation.dilation[0] * row_bytes + j * operation.dilation[1] * operation.outputs
        for i in range(operation.kernel[0])
        for j in range(operation.kernel[1])
    ]
    taps += [taps[-1]] * (steps * STEP - len(taps))
    return [taps[step * STEP : (step + 1) * STEP] for step in range(steps)]


def _widened_together(taps: list[list[int]], interval: int) -> list[range]:
    return [range(first, min(first + interval, len(taps))) for first in range(0, len(taps), interval)]


def _pointers(taps: list[int]) -> str:
    return ", ".join(f"at + {offset}" for offset in taps)
