"""What the compiler decided for each layer, and why a layer is as fast as it is."""

from __future__ import annotations

from dataclasses import dataclass

from automc.compiler.kernel import Choice
from automc.compiler.lowering import lower
from automc.compiler.targets import find_target
from automc.compression.program import Program


@dataclass(frozen=True)
class Explanation:
    """One operation, by the tensor that it writes, and the choice made for it; prints as one line."""

    tensor: str
    choice: Choice

    def __str__(self) -> str:
        parts = [f"{self.tensor:24s} {self.choice.kernel:22s}"]
        if self.choice.tile:
            parts.append(f"{self.choice.tile} channels,")
        if self.choice.widened_every:
            parts.append(f"widened every {self.choice.widened_every} steps,")
        if self.choice.weight_bytes:
            parts.append(f"{self.choice.weight_bytes} bytes of constants")
        if self.choice.storage:
            parts.append(f"({self.choice.storage})")
        return " ".join(parts).rstrip(" ,")


def explain(program: Program, target: str) -> list[Explanation]:
    """The choices for every operation of `program`, in its order. Raises `NameNotFound` for an unknown target."""
    lowered = lower(program, find_target(target))
    pairs = zip(program.operations, lowered.kernels, strict=True)
    return [Explanation(operation.target, kernel.choice) for operation, kernel in pairs]
