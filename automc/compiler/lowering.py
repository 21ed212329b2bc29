"""A program for a target: its kernels, and where in the arena everything lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from automc.compiler.arena import Lifetime, Piece, aligned, plan
from automc.compiler.isa import ALIGNMENT, OVERREAD, Target
from automc.compiler.kernel import Context, Decoded, Kernel, Own, Place
from automc.compiler.layout import Layout
from automc.compiler.opencl.schedules import schedule as schedule_opencl
from automc.compiler.schedules import schedule
from automc.compiler.strips import parts_of
from automc.compression.operations import Convolve, Operation
from automc.compression.program import Program
from automc.errors import InputError

MOST_THREADS = 64
_MOST_BYTES = (1 << 31) - 1  # kernels compute places in the arena in 32 bits


@dataclass(frozen=True, eq=False)
class Lowered:
    """A program as kernels, one an operation, with the arena's plan."""

    program: Program
    target: Target
    kernels: tuple[Kernel, ...]
    parts: tuple[tuple[Kernel, ...], ...]  # of each kernel, for several threads; or the kernel itself
    layouts: Mapping[str, Layout]
    offsets: Mapping[Piece, int]
    arena_bytes: int

    def address(self, place: Place, position: int, part: int = 0) -> int:
        """The offset in the arena of a place that a part of the kernel at `position` uses."""
        if isinstance(place.name, str):
            position = self._writers[place.name]
        own = part * aligned(self.kernels[position].scratch_bytes) if place.name is Own.SCRATCH else 0
        return self.offsets[(position, place.name)] + own + place.offset

    @property
    def threads(self) -> int:
        """How many compute at once."""
        return max(len(parts) for parts in self.parts)

    @property
    def pool_address(self) -> int:
        """The offset in the arena of the pointer to the threads, where there are several."""
        return self.arena_bytes - OVERREAD - ALIGNMENT

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


def lower(program: Program, target: Target, threads: int = 1) -> Lowered:
    """Choose a kernel for every operation, cut it for so many threads, and plan the arena.

    Raises `InputError` for a number of threads that makes no sense, and where the arena would take 2 GiB or more.
    """
    if not 1 <= threads <= MOST_THREADS:
        raise InputError(f"threads must be 1 to {MOST_THREADS}. Got {threads} instead.")
    if threads > 1 and target.language != "C":
        raise InputError(f"{target.name} divides the work itself: threads must be 1. Got {threads} instead.")
    context = Context(program, target)
    schedule_one = {"C": schedule, "OpenCL C": schedule_opencl}[target.language]
    kernels, parts = [], []
    for operation in program.operations:
        kernels.append(schedule_one(operation, context))
        cut = parts_of(operation, context, threads) if threads > 1 else [context]
        parts.append(tuple(schedule_one(operation, part) for part in cut) if len(cut) > 1 else (kernels[-1],))
    lifetimes: dict[Piece, Lifetime] = {}
    pieces: dict[str, Piece] = {}  # where each tensor lies
    for position, (operation, kernel) in enumerate(zip(program.operations, kernels, strict=True)):
        readers = [index for index, reader in enumerate(program.operations) if operation.target in reader.sources]
        layout = context.layouts.get(operation.target)
        size = layout.size_bytes if layout else 4 * program.outputs
        overwritten = _overwritten(operation, position, parts[position], context)
        piece = pieces[overwritten] if overwritten else (position, operation.target)
        pieces[operation.target] = piece
        first = lifetimes[piece].first if overwritten else position
        lifetimes[piece] = Lifetime(size, first, max(readers, default=position))
        if kernel.scratch_bytes:
            scratch_bytes = (len(parts[position]) - 1) * aligned(kernel.scratch_bytes) + kernel.scratch_bytes
            lifetimes[(position, Own.SCRATCH)] = Lifetime(scratch_bytes, position, position)
        if kernel.expanded_bytes:
            lifetimes[(position, Own.EXPANDED)] = Lifetime(kernel.expanded_bytes, 0, len(kernels) - 1)
    offsets, total = plan(lifetimes)
    for position, operation in enumerate(program.operations):
        offsets[(position, operation.target)] = offsets[pieces[operation.target]]
    total += OVERREAD + (ALIGNMENT if any(len(each) > 1 for each in parts) else 0)
    if total > _MOST_BYTES:
        raise InputError(f"{program.name} needs an arena of {total} bytes; it must be smaller than 2 GiB")
    return Lowered(program, target, tuple(kernels), tuple(parts), context.layouts, offsets, total)


def _overwritten(operation: Operation, position: int, kernels: Sequence[Kernel], context: Context) -> str | None:
    """The residual in whose place the target may lie, since nothing reads it any more, or None.

    Both have the same halo, so that every value of the target lies where the residual's value was.
    """
    if not isinstance(operation, Convolve) or operation.residual in (None, operation.source):
        return None
    if len(kernels) > 1 or not kernels[0].in_place:  # parts read the bytes behind their own, though not their values
        return None
    if any(operation.residual in later.sources for later in context.program.operations[position + 1 :]):
        return None
    same = context.layouts[operation.residual].halo == context.layouts[operation.target].halo
    return operation.residual if same else None
