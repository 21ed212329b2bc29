"""Depthwise convolution: lanes are channels, and the taps of a window stand in the place of neighbouring bytes."""

from __future__ import annotations

import math

from automc.compiler.isa import LANES, STEP
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
    panels = chunks(channels, LANES)
    weights = Weights.of(operation, rows, math.prod(operation.kernel), path, panels, one_by_one=False)
    result = Result.of(operation, context)
    height, width = context.program.output_size(operation)
    rows_step, columns_step = operation.stride[0] * source.row_bytes, operation.stride[1] * channels
    values = rows.shape[1] * STEP * LANES  # of a panel

    def loops(count: int, pieces: int) -> list[str]:
        body = [
            f"const value_t m = value_load({result.multipliers});",
            f"for (int y = 0; y < {height}; y++) for (int x = 0; x < {width}; x++) {{",
            f"  const uint8_t *at = source + y * {rows_step} + x * {columns_step};",
            "  acc_t c = acc_load(bias);",
            *("  " + line for line in products),
            *("  " + line for line in result.store("c", "m", 0, 0, 0, count)),
            "}",
        ]
        return [
            f"  for (int i = 0; i < {pieces}; i++) {{",
            *("    " + line for line in result.panel(body, count, LANES, (height, width))),
            f"    panel += {values}; bias += {LANES}; multipliers += {LANES}; source += {count};",
            f"    {result.advance(count)}",
            "  }",
        ]

    products = _products(_taps(operation, source.row_bytes, rows.shape[1]), path.name, interval)
    full = panels.count(panels[0])
    code = [
        signature("const uint8_t *source", *weights.parameters, *result.parameters),
        *("  " + line for line in weights.open(len(panels))),
        *loops(panels[0], full),
        *(loops(panels[-1], 1) if len(panels) > full else []),
        "}",
    ]
    return Kernel(
        "\n".join(code),
        (Place(operation.source, source.start(operation.padding)), *weights.arguments, *result.arguments),
        weights.choice(f"depthwise, {path.name}{result.title}", f"1x1 x {LANES}", interval),
        {**weights.helpers, **result.helpers},
        weights.scratch_bytes,
    )


def _taps(operation: Convolve, row_bytes: int, steps: int) -> list[list[int]]:
    """For each step, where its taps lie from the window's first; what fills up the last step has weights of zero."""
    taps = [
        i * operation.dilation[0] * row_bytes + j * operation.dilation[1] * operation.outputs
        for i in range(operation.kernel[0])
        for j in range(operation.kernel[1])
    ]
    taps += [taps[-1]] * (steps * STEP - len(taps))
    return [taps[step * STEP : (step + 1) * STEP] for step in range(steps)]


def _products(taps: list[list[int]], path: str, interval: int) -> list[str]:
    lines = []
    for first in range(0, len(taps), interval):
        lines.append(f"{{ {path}_sum s = {path}_zero();")
        for step in range(first, min(first + interval, len(taps))):
            pointers = ", ".join(f"at + {offset}" for offset in taps[step])
            lines.append(f"  s = {path}_dot_taps(s, {pointers}, panel + {step * LANES * STEP});")
        lines.append(f"  c = {path}_widen(c, s); }}")
    return lines
