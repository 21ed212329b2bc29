"""What moves stored values or compares them: concatenations, selections and shuffles of channels, ranks."""

from __future__ import annotations

import numpy as np

from automc.compiler.kernel import Choice, Constant, Context, Kernel, literal, signature
from automc.compiler.schedules.loops import vectors
from automc.compression.operations import Join, Rank, Select, Shuffle

_FEW_RUNS = 8  # up to so many pieces, channels are copied piece by piece


def concatenation(operation: Join, context: Context) -> Kernel:
    """The kernel of a concatenation: each part copied, or requantised where its scale differs."""
    target = context.layouts[operation.target]
    tensor = target.tensor
    parameters, lines, first = [], [], 0
    for position, (name, multiplier) in enumerate(zip(operation.parts, operation.multipliers, strict=True)):
        part = context.layouts[name]
        zero, channels = part.tensor.zero_point, part.tensor.channels
        parameters += [f"const uint8_t *part{position}", f"float multiplier{position}"]
        source = f"part{position} + y * {part.row_bytes} + x * {channels}"
        place = f"target + y * {target.row_bytes} + x * {tensor.channels} + {first}"
        unchanged = multiplier == 1.0 and zero == tensor.zero_point and context.largest_values[name] <= tensor.limit
        if unchanged:
            lines.append(f"memcpy({place}, {source}, {channels});")
        else:
            value = f"value_scale(acc_bytes({source} + i, {zero}), value_splat(multiplier{position}))"
            bounds = f"0, {tensor.limit}, {tensor.zero_point}"
            lines += vectors("i", channels, f"store_bytes({place} + i, COUNT, {value}, {bounds});")
        first += channels
    code = [
        signature(*parameters, "uint8_t *target"),
        f"  for (int y = 0; y < {tensor.height}; y++) for (int x = 0; x < {tensor.width}; x++) {{",
        *("    " + line for line in lines),
        "  }",
        "}",
    ]
    arguments = [
        argument
        for name, multiplier in zip(operation.parts, operation.multipliers, strict=True)
        for argument in (context.interior(name), literal(multiplier))
    ]
    return Kernel("\n".join(code), (*arguments, context.interior(operation.target)), Choice("concatenation"))


def selection(operation: Select, context: Context) -> Kernel:
    """The kernel of a selection: neighbouring channels are moved together where there are few such pieces."""
    source, target = context.layouts[operation.source], context.layouts[operation.target]
    tensor = target.tensor
    runs: list[list[int]] = []  # first channel of the source or -1, how many
    for channel in operation.index:
        follows = runs and channel == (-1 if runs[-1][0] < 0 else sum(runs[-1]))
        if follows:
            runs[-1][1] += 1
        else:
            runs.append([channel, 1])
    arguments = (context.interior(operation.source), context.interior(operation.target))
    parameters = ["const uint8_t *source", "uint8_t *target"]
    if len(runs) <= _FEW_RUNS:
        moves, place = [], 0
        for first, count in runs:
            if first < 0:
                moves.append(f"memset(to + {place}, {tensor.zero_point}, {count});")
            else:
                moves.append(f"memcpy(to + {place}, from + {first}, {count});")
            place += count
        constants = []
    else:
        parameters.append("const int32_t *index")
        constants = [Constant(np.array(operation.index, np.int32))]
        chosen = f"index[i] < 0 ? {tensor.zero_point} : from[index[i]]"
        moves = [f"for (int i = 0; i < {len(operation.index)}; i++) to[i] = (uint8_t)({chosen});"]
    stride = operation.stride
    code = [
        signature(*parameters),
        f"  for (int y = 0; y < {tensor.height}; y++) for (int x = 0; x < {tensor.width}; x++) {{",
        f"    const uint8_t *from = source + y * {stride * source.row_bytes} + x * {stride * source.tensor.channels};",
        f"    uint8_t *to = target + y * {target.row_bytes} + x * {tensor.channels};",
        *("    " + move for move in moves),
        "  }",
        "}",
    ]
    return Kernel("\n".join(code), (*arguments, *constants), Choice("selection"))


def shuffling(operation: Shuffle, context: Context) -> Kernel:
    """The kernel that turns channels into pixels: every value of the source goes to its place."""
    source, target = context.layouts[operation.source], context.layouts[operation.target]
    tensor, channels, factor = source.tensor, target.tensor.channels, operation.factor
    code = [
        signature("const uint8_t *source", "uint8_t *target"),
        f"  for (int y = 0; y < {tensor.height}; y++) for (int x = 0; x < {tensor.width}; x++)",
        f"    for (int i = 0; i < {factor}; i++) for (int j = 0; j < {factor}; j++) {{",
        f"      const uint8_t *from = source + y * {source.row_bytes} + x * {tensor.channels} + i * {factor} + j;",
        f"      uint8_t *to = target + (y * {factor} + i) * {target.row_bytes} + (x * {factor} + j) * {channels};",
        f"      for (int c = 0; c < {channels}; c++) to[c] = from[c * {factor**2}];",
        "    }",
        "}",
    ]
    places = (context.interior(operation.source), context.interior(operation.target))
    return Kernel("\n".join(code), places, Choice("shuffle"))


def ranking(operation: Rank, context: Context) -> Kernel:
    """The kernel of a rank: values are counted, from the greatest down to the one that the last place falls on.

    Timed alone, it may find another tensor's bytes in the source's place: the mask keeps what it counts among `counts`.
    """
    tensor = context.layouts[operation.source].tensor
    code = [
        signature("const uint8_t *source", "uint8_t *target"),
        f"  int32_t counts[{tensor.limit + 1}] = {{0}};",
        f"  for (int c = 0; c < {tensor.channels}; c++) counts[source[c] & {tensor.limit}]++;",
        f"  int left = {operation.count}, value = {tensor.limit};",
        "  while (counts[value] < left) left -= counts[value--];",
        f"  for (int c = 0; c < {tensor.channels}; c++)",
        "    target[c] = source[c] > value || (source[c] == value && left-- > 0);",
        "}",
    ]
    places = (context.interior(operation.source), context.interior(operation.target))
    return Kernel("\n".join(code), places, Choice("rank"))
