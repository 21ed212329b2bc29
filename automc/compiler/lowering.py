"""A program for a target: its kernels, and where in the arena everything lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from automc.compiler.arena import Lifetime, Piece, aligned, plan
from automc.compiler.isa import OVERREAD, Target
from automc.compiler.kernel import Context, Decoded, Kernel, Own, Place
from automc.compiler.layout import Layout
from automc.compiler.opencl.schedules import schedule as schedule_opencl
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
        """What Huffman-coded weights take in the caller's memory: all of them, or one after the other."""
        if self.target.language == "C":
            return sum(kernel.expanded_bytes for kernel in self.kernels)
        arguments = (argument for kernel in self.kernels for argument in kernel.arguments)
        return max((each.expanded_bytes for each in arguments if isinstance(each, Decoded)), default=0)

    @property
    def caller_bytes(self) -> int:
        """The memory that the library's caller provides: the arena, unless that is a device's."""
        return self.arena_bytes if self.target.language == "C" else self.state_bytes + self.expanded_bytes

    @property
    def state_bytes(self) -> int:
        """What an OpenCL library keeps in the caller's memory: six words, and one for each kernel."""
        return aligned(8 * (6 + len(self.kernels)))

    @cached_property
    def _writers(self) -> Mapping[str, int]:
        return {operation.target: position for position, operation in enumerate(self.program.operations)}


def lower(program: Program, target: Target) -> Lowered:
    """Choose a kernel for every operation and plan the arena."""
    context = Context(program, target)
    schedule_one = {"C": schedule, "OpenCL C": schedule_opencl}[target.language]
    kernels = tuple(schedule_one(operation, context) for operation in program.operations)
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
