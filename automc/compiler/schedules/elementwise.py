"""What computes each value from those at its own place: sums, tables, gains, and the results of a map."""

from __future__ import annotations

from automc.compiler.isa import LANES
from automc.compiler.kernel import SCRATCH, Argument, Choice, Constant, Context, Kernel, literal, signature
from automc.compiler.schedules.loops import vectors
from automc.compression.operations import Dequantise, Lookup, Scale, Sum


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


def look_up(operation: Lookup, context: Context) -> Kernel:
    """The kernel of a table that every value goes through.

    Timed alone, it may find another tensor's bytes in the source's place: the mask keeps it within the table.
    """
    source, target = context.layouts[operation.source], context.layouts[operation.target]
    tensor = target.tensor
    value = f"source[y * {source.row_bytes} + i] & {source.tensor.limit}"
    code = [
        signature("const uint8_t *source", "uint8_t *target", "const uint8_t *table"),
        f"  for (int y = 0; y < {tensor.height}; y++) for (int i = 0; i < {tensor.width * tensor.channels}; i++)",
        f"    target[y * {target.row_bytes} + i] = table[{value}];",
        "}",
    ]
    places = (context.interior(operation.source), context.interior(operation.target))
    choice = Choice("table", weight_bytes=operation.table.nbytes)
    return Kernel("\n".join(code), (*places, Constant(operation.table)), choice)


def gains(operation: Scale, context: Context) -> Kernel:
    """The kernel of a product of every channel with its gain; the gains are centred once."""
    source, target = context.layouts[operation.source], context.layouts[operation.target]
    tensor, gain = target.tensor, context.layouts[operation.gains].tensor
    bounds = f"{operation.low}, {operation.high}, {tensor.zero_point}"
    product = f"(from[c + i] - {source.tensor.zero_point}) * centred[c + i]"
    body = " ".join(
        [
            "{",
            f"int32_t products[{LANES}] = {{0}};",
            f"for (int i = 0; i < COUNT; i++) products[i] = {product};",
            f"store_bytes(to + c, COUNT, value_scale(acc_load(products), value_splat(multiplier)), {bounds});",
            "}",
        ]
    )
    code = [
        signature(
            "const uint8_t *source", "const uint8_t *gains", "uint8_t *target", "float multiplier", "int32_t *centred"
        ),
        f"  for (int c = 0; c < {tensor.channels}; c++) centred[c] = gains[c] - {gain.zero_point};",
        f"  for (int y = 0; y < {tensor.height}; y++) for (int x = 0; x < {tensor.width}; x++) {{",
        f"    const uint8_t *from = source + y * {source.row_bytes} + x * {tensor.channels};",
        f"    uint8_t *to = target + y * {target.row_bytes} + x * {tensor.channels};",
        *("    " + line for line in vectors("c", tensor.channels, body)),
        "  }",
        "}",
    ]
    places = [context.interior(name) for name in (operation.source, operation.gains, operation.target)]
    arguments: tuple[Argument, ...] = (*places, literal(operation.multiplier), SCRATCH)
    return Kernel("\n".join(code), arguments, Choice("gains"), scratch_bytes=4 * tensor.channels)


def dequantisation(operation: Dequantise, context: Context) -> Kernel:
    """The kernel that writes a map as the program's results, row by row without the halo."""
    source = context.layouts[operation.source]
    tensor = source.tensor
    row = tensor.width * tensor.channels
    value = f"value_scale(acc_bytes(source + y * {source.row_bytes} + i, {tensor.zero_point}), value_splat(scale))"
    code = [
        signature("const uint8_t *source", "float *target", "float scale"),
        f"  for (int y = 0; y < {tensor.height}; y++) {{",
        *("    " + line for line in vectors("i", row, f"store_values(target + y * {row} + i, COUNT, {value});")),
        "  }",
        "}",
    ]
    places = (context.interior(operation.source), context.interior(operation.target))
    return Kernel("\n".join(code), (*places, literal(tensor.scale)), Choice("results"))
