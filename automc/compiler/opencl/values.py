"""What computes each value from those at its own place: quantisation, sums, tables, gains, results of a map.

Nothing lies between pixels or rows, so that a tensor is one run of values; behind its end there is room for a vector,
since everything begins at multiples of 64 bytes.
"""

from __future__ import annotations

import dataclasses

from automc.compiler.kernel import SCRATCH, Choice, Constant, Context, Kernel
from automc.compiler.opencl.grid import Numbers, grid, vectors
from automc.compression.operations import Dequantise, Lookup, Quantise, Scale, Sum


def quantisation(operation: Quantise, context: Context) -> Kernel:
    """The kernel that maps the caller's pixels, which `input` has written to its scratch, to the first tensor."""
    tensor = context.program.tensors[operation.target]
    numbers: Numbers = {
        "pixels": SCRATCH,
        "target": context.interior(operation.target),
        "table": Constant(operation.table),
        "channels": tensor.channels,
    }
    body = ["arena[target + item] = constants[table + item % channels * 256 + arena[pixels + item]];"]
    kernel = grid(Choice("table", weight_bytes=operation.table.nbytes), tensor.size, numbers, body)
    return dataclasses.replace(kernel, scratch_bytes=tensor.size)


def addition(operation: Sum, context: Context) -> Kernel:
    """The kernel of a sum of two tensors."""
    tensors = context.program.tensors
    target = tensors[operation.target]
    numbers: Numbers = {
        "first": context.interior(operation.first),
        "first_zero": tensors[operation.first].zero_point,
        "first_multiplier": operation.multipliers[0],
        "second": context.interior(operation.second),
        "second_zero": tensors[operation.second].zero_point,
        "second_multiplier": operation.multipliers[1],
        "target": context.interior(operation.target),
        "low": operation.low,
        "high": operation.high,
        "zero": target.zero_point,
    }
    body = [
        "const float8 a = scaled_by(centred(arena + first + 8 * item, first_zero), first_multiplier);",
        "const float8 b = scaled_by(centred(arena + second + 8 * item, second_zero), second_multiplier);",
        "vstore8(rounded(a + b, low, high, zero), item, arena + target);",
    ]
    return grid(Choice("sum"), vectors(target.size), numbers, body)


def look_up(operation: Lookup, context: Context) -> Kernel:
    """The kernel of a table that every value goes through; the mask keeps it within the table, whatever it finds."""
    numbers: Numbers = {
        "source": context.interior(operation.source),
        "target": context.interior(operation.target),
        "table": Constant(operation.table),
        "limit": context.program.tensors[operation.source].limit,
    }
    body = ["arena[target + item] = constants[table + (arena[source + item] & limit)];"]
    choice = Choice("table", weight_bytes=operation.table.nbytes)
    return grid(choice, context.program.tensors[operation.target].size, numbers, body)


def gains(operation: Scale, context: Context) -> Kernel:
    """The kernel of a product of every channel with its gain."""
    tensors = context.program.tensors
    target = tensors[operation.target]
    numbers: Numbers = {
        "source": context.interior(operation.source),
        "source_zero": tensors[operation.source].zero_point,
        "gains": context.interior(operation.gains),
        "gains_zero": tensors[operation.gains].zero_point,
        "multiplier": operation.multiplier,
        "target": context.interior(operation.target),
        "channels": target.channels,
        "panels": vectors(target.channels),
        "low": operation.low,
        "high": operation.high,
        "zero": target.zero_point,
    }
    body = [
        "const int channel = item % panels * 8, place = item / panels * channels + channel;",
        "const int8 gain = centred(arena + gains + channel, gains_zero);",
        "const float8 values = scaled_by(centred(arena + source + place, source_zero) * gain, multiplier);",
        "store_bytes(arena + target + place, rounded(values, low, high, zero), channels - channel);",
    ]
    items = target.height * target.width * vectors(target.channels)
    return grid(Choice("gains"), items, numbers, body)


def dequantisation(operation: Dequantise, context: Context) -> Kernel:
    """The kernel that writes a map as the program's results."""
    source = context.program.tensors[operation.source]
    numbers: Numbers = {
        "source": context.interior(operation.source),
        "zero": source.zero_point,
        "multiplier": source.scale,
        "target": context.interior(operation.target),
    }
    body = [
        "const float value = convert_float_rte(arena[source + item] - zero) * as_float(multiplier);",
        "((__global float *)(arena + target))[item] = value;",
    ]
    return grid(Choice("results"), source.size, numbers, body)
