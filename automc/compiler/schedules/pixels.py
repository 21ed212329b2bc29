"""Quantisation of the image: a table look-up a value."""

from __future__ import annotations

from automc.compiler.kernel import Choice, Constant, Context, Kernel, signature
from automc.compression.operations import Quantise


def quantisation(operation: Quantise, context: Context) -> Kernel:
    """The kernel that maps the caller's pixels to the first tensor."""
    target = context.layouts[operation.target]
    tensor = target.tensor
    code = [
        signature("const uint8_t *pixels", "uint8_t *target", "const uint8_t *table"),
        f"  for (int y = 0; y < {tensor.height}; y++) PLAIN for (int x = 0; x < {tensor.width}; x++)",
        f"    for (int c = 0; c < {tensor.channels}; c++)",
        f"      target[y * {target.row_bytes} + x * {tensor.channels} + c] = table[c * 256 + *pixels++];",
        "}",
    ]
    arguments = ("pixels", context.interior(operation.target), Constant(operation.table))
    return Kernel("\n".join(code), arguments, Choice("table", weight_bytes=operation.table.nbytes))
