"""A program for a target: its kernels, and where in the arena everything lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from automc.compiler.arena import Lifetime, Piece, plan
from automc.compiler.isa import OVERREAD, Target
from automc.compiler.kernel import Context, Kernel, Own, Place
from automc.compiler.layout import Layout
from automc.compiler.schedules import schedule
from automc.compression.program import Program


@dataclass(frozen=True, eq=False)
class Lowered:
    """A program as kernels, one an operation, with the arena's plan."""

    program: Program
    target: Target
    kernels: tuple[Kernel, ...]
    layouts: Mapping[str, Layout]
    offsets: Mapping[Piece, int]
    arena_bytes: int

    def address(self, place: Place, position: int) -> int:
        """The offset in the arena of a place that the kernel at `position` uses."""
        if isinstance(place.name, str):
            position = self._writers[place.name]
        return self.offsets[(position, place.name)] + place.offset

    @property
    def expanded_bytes(self) -> int:
        """What Huffman-coded weights take in the arena."""
        return sum(kernel.expanded_bytes for kernel in self.kernels)

    @cached_property
    def _writers(self) -> Mapping[str, int]:
        return {operation.target: position for position, operation in enumerate(self.program.operations)}


def lower(program: Program, target: Target) -> Lowered:
    """Choose a kernel for every operation and plan the arena."""
    context = Context(program, target)
    kernels = tuple(schedule(operation, context) for operation in program.operations)
    lifetimes: dict[Piece, Lifetime] = {}
    for position, (operation, kernel) in enumerate(zip(program.operations, kernels, strict=True)):
        readers = [index for index, reader in enumerate(program.operations) if operation.target in reader.sources]
        layout = context.layouts.get(operation.target)
        size = layout.size_bytes if layout else 4 * program.outputs
        lifetimes[(position, operation.target)] = Lifetime(size, position, max(readers, default=position))
        if kernel.scratch_bytes:
            lifetimes[(position, Own.SCRATCH)] = Lifetime(kernel.scratch_bytes, position, position)
        if kernel.expanded_bytes:
            lifetimes[(position, Own.EXPANDED)] = Lifetime(kernel.expanded_bytes, 0, len(kernels) - 1)
    offsets, total = plan(lifetimes)
    return Lowered(program, target, kernels, context.layouts, offsets, total + OVERREAD)
