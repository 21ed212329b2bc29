"""What moves stored values or compares them: an item for each value that is written."""

from __future__ import annotations

import numpy as np

from automc.compiler.kernel import Choice, Constant, Context, Kernel
from automc.compiler.opencl.grid import Numbers, grid
from automc.compression.operations import Join, Rank, Select, Shuffle


def concatenation(operation: Join, context: Context) -> Kernel:
    """The kernel of a concatenation, whose code differs by the number of parts; each is brought to the target's scale.

    What has this scale already comes out as it is.
    """
    tensors = context.program.tensors
    target = tensors[operation.target]
    numbers: Numbers = {
        "target": context.interior(operation.target),
        "channels": target.channels,
        "limit": target.limit,
        "zero": target.zero_point,
    }
    body = ["const int pixel = item / channels;", "int channel = item % channels;", "float value = 0;"]
    for n, (name, multiplier) in enumerate(zip(operation.parts, operation.multipliers, strict=True)):
        numbers = {
            **numbers,
            f"part{n}": context.interior(name),
            f"channels{n}": tensors[name].channels,
            f"zero{n}": tensors[name].zero_point,
            f"multiplier{n}": multiplier,
        }
        body += [
            f"if (channel >= 0 && channel < channels{n}) {{",
            f"  const int number = arena[part{n} + pixel * channels{n} + channel] - zero{n};",
            f"  value = convert_float_rte(number) * as_float(multiplier{n});",
            "}",
            f"channel -= channels{n};",
        ]
    body += [
        "const int whole = convert_int_rte(clamp(value, (float)(-zero), (float)(limit - zero)));",
        "arena[target + item] = whole + zero;",
    ]
    return grid(Choice("concatenation"), target.size, numbers, body)


def _places(operation: Select | Shuffle, context: Context) -> Numbers:
    """Where the source and the target of what moves whole pixels lie, and how their pixels and channels do."""
    source, target = (context.program.tensors[name] for name in (operation.source, operation.target))
    return {
        "source": context.interior(operation.source),
        "source_width": source.width,
        "source_channels": source.channels,
        "target": context.interior(operation.target),
        "width": target.width,
        "channels": target.channels,
    }


def selection(operation: Select, context: Context) -> Kernel:
    """The kernel of a selection of channels and pixels."""
    target = context.program.tensors[operation.target]
    numbers: Numbers = {
        **_places(operation, context),
        "zero": target.zero_point,
        "stride": operation.stride,
        "index": Constant(np.array(operation.index, np.int32)),
    }
    body = [
        "const int channel = ((const __global int *)(constants + index))[item % channels], pixel = item / channels;",
        "const int from = pixel / width * stride * source_width + pixel % width * stride;",
        "arena[target + item] = channel < 0 ? zero : arena[source + from * source_channels + max(channel, 0)];",
    ]
    return grid(Choice("selection"), target.size, numbers, body)


def shuffling(operation: Shuffle, context: Context) -> Kernel:
    """The kernel that turns channels into pixels."""
    target = context.program.tensors[operation.target]
    numbers: Numbers = {
        **_places(operation, context),
        "factor": operation.factor,
    }
    body = [
        "const int pixel = item / channels, y = pixel / width, x = pixel % width;",
        "const int channel = (item % channels * factor + y % factor) * factor + x % factor;",
        "const int from = y / factor * source_width + x / factor;",
        "arena[target + item] = arena[source + from * source_channels + channel];",
    ]
    return grid(Choice("shuffle"), target.size, numbers, body)


def ranking(operation: Rank, context: Context) -> Kernel:
    """The kernel of a rank: each item counts the values that come before its own."""
    source = context.program.tensors[operation.source]
    numbers: Numbers = {
        "source": context.interior(operation.source),
        "target": context.interior(operation.target),
        "count": operation.count,
    }
    body = [
        "const int own = arena[source + item];",
        "int before = 0;",
        "for (int i = 0; i < items; i++) {",
        "  const int other = arena[source + i];",
        "  before += other > own || (other == own && i < item);",
        "}",
        "arena[target + item] = before < count;",
    ]
    return grid(Choice("rank"), source.channels, numbers, body)
