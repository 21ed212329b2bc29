"""How much memory a library needs while it runs."""

from __future__ import annotations

from automc.compiler.lowering import lower
from automc.compiler.targets import find_target
from automc.compression.program import Program


def plan_memory(program: Program, target: str) -> int:
    """The bytes of the arena that a library of `program` needs: all tensors, scratch and padding, reused where dead."""
    return lower(program, find_target(target)).arena_bytes
