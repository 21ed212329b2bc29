"""Depthwise convolution: lanes are channels, and the taps of a window stand in the place of neighbouring bytes."""

from __future__ import annotations

import numpy as np

from automc.compiler.isa import LANES, STEP
from automc.compiler.kernel import SCRATCH, Choice, Constant, Context, Kernel, Place, chunks, padded, signature
from automc.compiler.schedules.convolution import choose_path
from automc.compiler.schedules.result import Result
from automc.compiler.storage import decoder, encode, needs_decoding
from automc.compression.operations import Convolve


def depthwise(operation: Convolve, context: Context) -> Kernel:
    """The kernel of a convolution that gives every channel its own window."""
    source = context.layouts[operation.source]
    channels = operation.outputs
    rows = padded(operation.weight.reshape(channels, -1), STEP).reshape(channels, -1, STEP)
    path, interval = choose_path(rows, context.largest_values[operation.source], context.target.paths)
    steps = rows.shape[1]
    lanes = -(-channels // LANES) * LANES
    panels = np.zeros((lanes, steps, STEP), np.int8)
    panels[:channels] = rows
    # All panels are decoded at once: one alone is too small to be worth a loop.
    ordered = np.ascontiguousarray(panels.reshape(-1, LANES, steps, STEP).transpose(0, 2, 1, 3))
    constants = [
        encode(ordered, operation.weight_bits), padded(operation.bias, LANES), padded(operation.multiplier, LANES)
    ]  # fmt: skip
    result = Result.of(operation, context)
    decoded = needs_decoding(operation.weight_bits, path.weight_type)
    helper = decoder(operation.weight_bits, path.weight_type) if decoded else None

    height, width = context.program.output_size(operation)
    stride, dilation = operation.stride, operation.dilation
    taps = [
        i * dilation[0] * source.row_bytes + j * dilation[1] * channels
        for i in range(operation.kernel[0])
        for j in range(operation.kernel[1])
    ]
    taps += [taps[-1]] * (steps * STEP - len(taps))  # their weights are zero

    def panel(count: int, pieces: int) -> list[str]:
        tile = [
            f"const uint8_t *at = source + y * {stride[0] * source.row_bytes} + x * {stride[1] * channels};",
            "acc_t c = acc_load(bias);",
        ]
        for first in range(0, steps, interval):
            tile += ["{", f"{path.name}_sum s = {path.name}_zero();"]
            for step in range(first, min(first + interval, steps)):
                pointers = ", ".join(f"at + {offset}" for offset in taps[step * STEP : (step + 1) * STEP])
                weights = f"w + {step * LANES * STEP}"
                tile.append(f"s = {path.name}_dot(s, {path.name}_taps({pointers}), {weights});")
            tile += [f"c = {path.name}_widen(c, s);", "}"]
        return [
            f"  for (int panel = 0; panel < {pieces}; panel++) {{",
            "    const value_t m = value_load(multipliers);",
            f"    for (int y = 0; y < {height}; y++) for (int x = 0; x < {width}; x++) {{",
            *("      " + line for line in [*tile, *result.store("c", "m", 0, 0, 0, count)]),
            "    }",
            f"    w += {steps * STEP * LANES}; bias += {LANES}; multipliers += {LANES}; source += {count};",
            f"    {result.advance(count)}",
            "  }",
        ]

    pieces = chunks(channels, LANES)
    full = pieces.count(pieces[0])
    lines = [
        signature(
            "const uint8_t *source", "const uint8_t *weights", "const int32_t *bias", "const float *multipliers",
            *result.parameters, *([f"{path.weight_type} *scratch"] if decoded else []),
        ),
        *([f"  {helper[0]}(scratch, weights, {panels.size});"] if helper else []),
        f"  const {path.weight_type} *w = {'scratch' if helper else '(const int8_t *)weights'};",
        *panel(pieces[0], full),
        *(panel(pieces[-1], 1) if len(pieces) > full else []),
        "}",
    ]  # fmt: skip
    return Kernel(
        "\n".join(lines),
        (
            Place(operation.source, source.start(operation.padding)), *map(Constant, constants), *result.arguments,
            *([SCRATCH] if decoded else []),
        ),
        Choice(f"depthwise, {path.name}", f"1x1 x {LANES}", interval, sum(array.nbytes for array in constants)),
        {helper[0]: helper[1]} if helper else {},
        panels.size * (2 if path.weight_type == "int16_t" else 1) if decoded else 0,
    )  # fmt: skip
