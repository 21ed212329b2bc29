"""Pooling: an item walks over the windows of eight neighbouring channels, and leaves out what lies outside."""

from __future__ import annotations

from automc.compiler.kernel import Choice, Context, Kernel
from automc.compiler.opencl.grid import Numbers, grid, vectors
from automc.compression.operations import Pool


def pooling(operation: Pool, context: Context) -> Kernel:
    """The kernel of a mean or of a maximum."""
    tensors = context.program.tensors
    source, target = tensors[operation.source], tensors[operation.target]
    numbers: Numbers = {
        "source": context.interior(operation.source),
        "height": source.height,
        "width": source.width,
        "channels": source.channels,
        "rows": operation.kernel[0],
        "columns": operation.kernel[1],
        "stride_y": operation.stride[0],
        "stride_x": operation.stride[1],
        "padding_y": operation.padding[0],
        "padding_x": operation.padding[1],
        "target": context.interior(operation.target),
        "target_width": target.width,
        "panels": vectors(target.channels),
    }
    if operation.kind == "mean":
        numbers = {
            **numbers,
            "source_zero": source.zero_point,
            "multiplier": operation.multiplier,
            "low": operation.low,
            "high": operation.high,
            "zero": target.zero_point,
        }
        start, step = "int8 sum = (int8)(0);", "sum += centred(from, source_zero);"
        result = "rounded(scaled_by(sum, multiplier), low, high, zero)"
    else:
        start, step, result = "uchar8 greatest = (uchar8)(0);", "greatest = max(greatest, vload8(0, from));", "greatest"
    body = [
        "const int channel = item % panels * 8, pixel = item / panels;",
        "const int y = pixel / target_width * stride_y - padding_y, x = pixel % target_width * stride_x - padding_x;",
        start,
        "for (int i = max(y, 0); i < min(y + rows, height); i++)",
        "  for (int j = max(x, 0); j < min(x + columns, width); j++) {",
        "    const __global uchar *from = arena + source + (i * width + j) * channels + channel;",
        f"    {step}",
        "  }",
        f"store_bytes(arena + target + pixel * channels + channel, {result}, channels - channel);",
    ]
    items = target.height * target.width * vectors(target.channels)
    return grid(Choice("mean" if operation.kind == "mean" else "maximum"), items, numbers, body)
