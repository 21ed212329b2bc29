"""What looks at one pixel at a time: sums, concatenations and selections of channels."""

from __future__ import annotations

import numpy as np

from automc.compiler.kernel import Choice, Constant, Context, Kernel, literal, signature
from automc.compiler.schedules.loops import vectors
from automc.compression.operations import Join, Select, Sum

_FEW_RUNS = 8  # up to so many pieces, channels are copied piece by piece


def addition(operation: Sum, context: Context) -> Kernel:
    """The kernel of a sum: rows of both tensors, whatever pixel a value belongs to."""
    target = context.layouts[operation.target]
    tensor = target.tensor
    bounds = f"{operation.low}, {operation.high}, {tensor.zero_point}"

    scaled = []
    for name in ("first", "second"):
        source = context.layouts[getattr(operation, name)]
        place = f"{name} + y * {source.row_bytes} + i"
        scaled.append(f"value_scale(acc_bytes({place}, {source.tensor.zero_point}), value_splat({name}_multiplier))")
    store = f"store_bytes(target + y * {target.row_bytes} + i, COUNT, value_add({', '.join(scaled)}), {bounds});"
    lines = [
        signature(
            "const uint8_t *first", "const uint8_t *second", "uint8_t *target", "float first_multiplier",
            "float second_multiplier",
        ),
        f"  for (int y = 0; y < {tensor.height}; y++) {{",
        *("    " + line for line in vectors("i", tensor.width * tensor.channels, store)),
        "  }",
        "}",
    ]  # fmt: skip
    places = [context.interior(name) for name in (operation.first, operation.second, operation.target)]
    return Kernel("\n".join(lines), (*places, *map(literal, operation.multipliers)), Choice("sum"))


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
