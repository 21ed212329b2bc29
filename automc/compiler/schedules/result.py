"""How a convolution's accumulators become its target: scaled, a residual added, clamped and stored; or as logits."""

from __future__ import annotations

from dataclasses import dataclass

from automc.compiler.kernel import Argument, Context, literal
from automc.compression.operations import Convolve


@dataclass(frozen=True)
class Result:
    """The C text that stores lanes of accumulators, and the parameters and arguments that it needs."""

    row_bytes: int
    channels: int
    bounds: tuple[int, int, int] | None  # low, high, zero-point; None for logits, which are stored as they are
    residual_row_bytes: int
    residual_zero_point: int
    parameters: tuple[str, ...]
    arguments: tuple[Argument, ...]

    @classmethod
    def of(cls, operation: Convolve, context: Context) -> Result:
        """The result of a convolution."""
        target = context.layouts.get(operation.target)
        if target is None:
            logits = context.interior(operation.target)
            return cls(0, operation.outputs, None, 0, 0, ("float *target",), (logits,))
        parameters: tuple[str, ...] = ("uint8_t *target",)
        arguments: tuple[Argument, ...] = (context.interior(operation.target),)
        row_bytes, zero_point = 0, 0
        if operation.residual is not None:
            parameters += ("const uint8_t *residual", "float residual_multiplier")
            arguments += (context.interior(operation.residual), literal(operation.residual_multiplier))
            residual = context.layouts[operation.residual]
            row_bytes, zero_point = residual.row_bytes, residual.tensor.zero_point
        bounds = (operation.low, operation.high, target.tensor.zero_point)
        return cls(target.row_bytes, operation.outputs, bounds, row_bytes, zero_point, parameters, arguments)

    def advance(self, channels: int) -> str:
        """Goes on to the next channels."""
        return f"target += {channels};" + (f" residual += {channels};" if self.has_residual else "")

    @property
    def has_residual(self) -> bool:
        return len(self.parameters) > 1

    def store(self, accumulators: str, multipliers: str, y: int, x: int, channel: int, count: int) -> list[str]:
        """Stores `count` lanes as the channels from `channel` of the pixel that lies `y`, `x` from the tile's first."""
        scaled = f"value_scale({accumulators}, {multipliers})"
        if self.bounds is None:
            return [f"store_values(target + {channel}, {count}, {scaled});"]
        if self.has_residual:
            place = f"residual + (y + {y}) * {self.residual_row_bytes} + (x + {x}) * {self.channels} + {channel}"
            other = f"value_scale(acc_bytes({place}, {self.residual_zero_point}), value_splat(residual_multiplier))"
            scaled = f"value_add({scaled}, {other})"
        place = f"target + (y + {y}) * {self.row_bytes} + (x + {x}) * {self.channels} + {channel}"
        low, high, zero_point = self.bounds
        return [f"store_bytes({place}, {count}, {scaled}, {low}, {high}, {zero_point});"]
