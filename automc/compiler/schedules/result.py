"""How a convolution's accumulators become its target: scaled, a residual added, gated, and stored; or as logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from automc.compiler.isa import Register
from automc.compiler.kernel import Argument, Context, literal
from automc.compression.operations import Convolve

_OPEN_CHANNELS = """\
/* The multipliers of open channels, and zeros, which make a channel its zero-point; answers whether any is open. */
INLINE int open_channels(float *open, const float *multipliers, const uint8_t *gate, int count, int lanes) {
  int any = 0;
  for (int i = 0; i < lanes; i++) {
    const int is_open = i < count && gate[i];
    open[i] = is_open ? multipliers[i] : 0.0f;
    any |= is_open;
  }
  return any;
}
"""


@dataclass(frozen=True)
class Result:
    """The C text that stores lanes of accumulators, and the parameters and arguments that it needs.

    It scales by the vectors of multipliers that begin at `self.multipliers` in C.
    """

    row_bytes: int
    channels: int
    bounds: tuple[int, int, int] | None  # low, high, zero-point; None for logits, which are stored as they are
    residual: tuple[int, int] | None  # bytes of a row, zero-point
    gated: bool
    parameters: tuple[str, ...]
    arguments: tuple[Argument, ...]

    @classmethod
    def of(cls, operation: Convolve, context: Context) -> Result:
        """The result of a convolution."""
        place = context.interior(operation.target)
        target = context.layouts.get(operation.target)
        if target is None:
            return cls(0, operation.outputs, None, None, False, ("float *target",), (place,))
        bounds = (operation.low, operation.high, target.tensor.zero_point)
        parameters: tuple[str, ...] = ("uint8_t *target",)
        arguments: tuple[Argument, ...] = (place,)
        residual = None
        if operation.residual is not None:
            parameters += ("const uint8_t *residual", "float residual_multiplier")
            arguments += (context.interior(operation.residual), literal(operation.residual_multiplier))
            layout = context.layouts[operation.residual]
            residual = layout.row_bytes, layout.tensor.zero_point
        if operation.gate is not None:
            parameters += ("const uint8_t *gate",)
            arguments += (context.interior(operation.gate),)
        gated = operation.gate is not None
        return cls(target.row_bytes, operation.outputs, bounds, residual, gated, parameters, arguments)

    @property
    def multipliers(self) -> str:
        """The name in C of a panel's multipliers."""
        return "open" if self.gated else "multipliers"

    @property
    def helpers(self) -> Mapping[str, str]:
        """C functions by name."""
        return {"open_channels": _OPEN_CHANNELS} if self.gated else {}

    @property
    def title(self) -> str:
        """What people are told about it."""
        return ", gated" if self.gated else ""

    def panel(self, body: list[str], channels: int, lanes: int, size: tuple[int, int]) -> list[str]:
        """`body`, the computation of a panel of `channels`; with a gate only where one of them is open."""
        if self.bounds is None or not self.gated:
            return body
        return [
            f"float open[{lanes}];",
            f"if (open_channels(open, multipliers, gate, {channels}, {lanes})) {{",
            *("  " + line for line in body),
            "} else {",
            f"  for (int y = 0; y < {size[0]}; y++) for (int x = 0; x < {size[1]}; x++)",
            f"    memset(target + y * {self.row_bytes} + x * {self.channels}, {self.bounds[2]}, {channels});",
            "}",
        ]

    def advance(self, channels: int) -> str:
        """Goes on to the next channels."""
        moving = ["target", *(["residual"] if self.residual else []), *(["gate"] if self.gated else [])]
        return " ".join(f"{name} += {channels};" for name in moving)

    def store(
        self, accumulators: str, multipliers: str, y: int, x: int, register: Register, channels: int
    ) -> tuple[list[str], str]:
        """What stores those lanes of a register that are among the panel's `channels`, and what must stand before it.

        The pixel lies `y`, `x` from the tile's first. A residual that is overwritten in place is read in whole
        registers: right behind a store of fewer lanes, a processor would wait for that store to leave it (four times
        the time of a layer), so all of a tile is read before any of it is stored.
        """
        channel, of = register.channel, register.prefix
        count = min(register.lanes, channels - channel)
        scaled = f"{of}value_scale({accumulators}, {multipliers})"
        if self.bounds is None:
            return [], f"{of}store_values(target + {channel}, {count}, {scaled});"
        before = []
        if self.residual is not None:
            row_bytes, zero = self.residual
            place = f"residual + (y + {y}) * {row_bytes} + (x + {x}) * {self.channels} + {channel}"
            other = f"{of}value_scale({of}acc_bytes({place}, {zero}), {of}value_splat(residual_multiplier))"
            before = [f"const {of}value_t sum_{accumulators} = {of}value_add({scaled}, {other});"]
            scaled = f"sum_{accumulators}"
        place = f"target + (y + {y}) * {self.row_bytes} + (x + {x}) * {self.channels} + {channel}"
        low, high, zero_point = self.bounds
        return before, f"{of}store_bytes({place}, {count}, {scaled}, {low}, {high}, {zero_point});"

    def store_quad(self, values: str, of: str, pixel: int) -> list[str]:
        """Stores the scaled values of a quad of registers, for so many pixels behind `y`, `x`; the prefix is `of`."""
        assert self.bounds is not None
        low, high, zero_point = self.bounds
        place = f"target + y * {self.row_bytes} + (x + {pixel}) * {self.channels}"
        return [f"{of}store_bytes4({place}, {values}, {low}, {high}, {zero_point});"]
