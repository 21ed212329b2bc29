"""How a convolution's sums become its target in OpenCL: scaled, a residual added, gated, and stored; or as logits."""

from __future__ import annotations

from dataclasses import dataclass, field

from automc.compiler.kernel import Context
from automc.compiler.opencl.grid import Numbers
from automc.compression.operations import Convolve


@dataclass(frozen=True)
class Result:
    """C text that stores the sums of an item, and the numbers that it needs.

    It knows the item's `panel` of eight channels, the first one's number `channel`, how many are its own, `count`, and
    a `pixel`.
    """

    logits: bool
    residual: bool
    gated: bool
    numbers: Numbers = field(compare=False)

    @classmethod
    def of(cls, operation: Convolve, context: Context) -> Result:
        """The result of a convolution."""
        target = context.program.tensors.get(operation.target)
        numbers: Numbers = {"target": context.interior(operation.target), "outputs": operation.outputs}
        if target is not None:
            numbers = {**numbers, "low": operation.low, "high": operation.high, "zero": target.zero_point}
        if operation.residual is not None:
            numbers = {
                **numbers,
                "residual": context.interior(operation.residual),
                "residual_zero": context.program.tensors[operation.residual].zero_point,
                "residual_multiplier": operation.residual_multiplier,
            }
        if operation.gate is not None:
            numbers = {**numbers, "gate": context.interior(operation.gate)}
        return cls(target is None, operation.residual is not None, operation.gate is not None, numbers)

    @property
    def title(self) -> str:
        """What people are told about it."""
        return ", gated" if self.gated else ""

    @property
    def open(self) -> list[str]:
        """C text that says by which `multiplier` the sums are scaled, and how many `rows` of a window are looked at.

        That of a closed channel is zero, which makes it the zero-point; where all are closed, nothing is multiplied.
        """
        load = "vload8(panel, (const __global float *)(constants + multipliers))"
        if not self.gated:
            return [f"const float8 multiplier = {load};"]
        return [
            "const int8 is_open = centred(arena + gate + channel, 0);",
            f"const float8 multiplier = {load} * convert_float8(is_open);",
            "if (!any(is_open != 0)) rows = 0;",
        ]

    def store(self, sums: str, pixel: str) -> list[str]:
        """C text that stores the sums of a pixel."""
        values = f"scaled({sums}, multiplier)"
        place = f"({pixel}) * outputs + channel"
        if self.logits:
            return [f"store_values(arena + target + 4 * ({place}), {values}, count);"]
        if self.residual:
            values += f" + scaled_by(centred(arena + residual + {place}, residual_zero), residual_multiplier)"
        return [f"store_bytes(arena + target + {place}, rounded({values}, low, high, zero), count);"]
