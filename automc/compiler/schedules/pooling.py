"""Pooling: the sum of a window's values scaled once, or their maximum."""

from __future__ import annotations

import numpy as np

from automc.compiler.isa import LANES
from automc.compiler.kernel import Choice, Constant, Context, Kernel, Place, literal, signature
from automc.compiler.schedules.loops import vectors
from automc.compression.operations import Pool


def mean(operation: Pool, context: Context) -> Kernel:
    """The kernel of a mean: lanes are channels; the halo's zero-points count as zeros."""
    source, target = context.layouts[operation.source], context.layouts[operation.target]
    tensor, channels = target.tensor, source.tensor.channels
    taps = operation.kernel[0] * operation.kernel[1]
    bounds = f"{operation.low}, {operation.high}, {tensor.zero_point}"
    start = f"source + y * {operation.stride[0] * source.row_bytes} + x * {operation.stride[1] * channels} + c"

    body = " ".join(
        [
            "{",
            f"const uint8_t *at = {start};",
            "acc_t sum = acc_load(bias);",
            f"for (int i = 0; i < {operation.kernel[0]}; i++) for (int j = 0; j < {operation.kernel[1]}; j++)",
            f"sum = acc_add(sum, acc_bytes(at + i * {source.row_bytes} + j * {channels}, 0));",
            f"store_bytes(target + y * {target.row_bytes} + x * {channels} + c, COUNT,",
            f"value_scale(sum, value_splat(multiplier)), {bounds});",
            "}",
        ]
    )
    code = [
        signature("const uint8_t *source", "uint8_t *target", "const int32_t *bias", "float multiplier"),
        f"  for (int y = 0; y < {tensor.height}; y++) for (int x = 0; x < {tensor.width}; x++) {{",
        *("    " + line for line in vectors("c", channels, body)),
        "  }",
        "}",
    ]
    arguments = (
        Place(operation.source, source.start(operation.padding)), context.interior(operation.target),
        Constant(np.full(LANES, -taps * source.tensor.zero_point, np.int32)), literal(operation.multiplier),
    )  # fmt: skip
    return Kernel("\n".join(code), arguments, Choice("mean"))


def maximum(operation: Pool, context: Context) -> Kernel:
    """The kernel of a maximum: windows are cut at the border, since padding takes no part."""
    source, target = context.layouts[operation.source], context.layouts[operation.target]
    tensor, channels = target.tensor, source.tensor.channels

    def cut(name: str, axis: int, length: int) -> list[str]:
        first = f"{name} * {operation.stride[axis]} - {operation.padding[axis]}"
        return [
            f"int {name}0 = {first}, {name}1 = {name}0 + {operation.kernel[axis]};",
            f"if ({name}0 < 0) {name}0 = 0;",
            f"if ({name}1 > {length}) {name}1 = {length};",
        ]

    code = [
        signature("const uint8_t *source", "uint8_t *target"),
        f"  for (int y = 0; y < {tensor.height}; y++) for (int x = 0; x < {tensor.width}; x++) {{",
        *("    " + line for line in cut("y", 0, source.tensor.height) + cut("x", 1, source.tensor.width)),
        f"    uint8_t *to = target + y * {target.row_bytes} + x * {channels};",
        f"    memset(to, 0, {channels});",
        "    for (int i = y0; i < y1; i++) for (int j = x0; j < x1; j++) {",
        f"      const uint8_t *from = source + i * {source.row_bytes} + j * {channels};",
        f"      for (int c = 0; c < {channels}; c++) to[c] = from[c] > to[c] ? from[c] : to[c];",
        "    }",
        "  }",
        "}",
    ]
    places = (context.interior(operation.source), context.interior(operation.target))
    return Kernel("\n".join(code), places, Choice("maximum"))
