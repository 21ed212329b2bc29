"""`automc-bench`: one static program for a device that checks compiled programs there, and times their kernels.

It needs nothing of the device but Linux' system calls. What it prints is a latency table for `latency_tables/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from automc.compiler.artifact import Artifact, static_batch
from automc.compiler.build import STATIC
from automc.compiler.freestanding import linked
from automc.compiler.isa import Target
from automc.compiler.targets import find_target
from automc.compiler.toolchain import ToolChain, tool_chain
from automc.compression.program import Program
from automc.cost.bench_source import Timed, bench_source
from automc.cost.kernels import Kernel
from automc.cost.recognise import kernel_of
from automc.cost.table import LatencyTable, empty_table
from automc.errors import CompileError
from automc.files import write_atomic


def build_bench(artifact: Artifact, device: str, cpu: str, path: Path, load_seconds: float = 0.0) -> None:
    """Write the program for `artifact` to `path`: run it on the device, and keep what it prints as `device`.csv.

    `cpu` names the device's processor in the table. The program answers 1 and says why where the library cannot run, or
    where one of the results of a few embedded images is not that of the Program. After all timing it computes one image
    again and again for `load_seconds`, for a power meter to see, and says on standard error how often. Raises
    `CompileError`.
    """
    program, target = artifact.program(), find_target(artifact.target)
    _require_bare(target)
    known = artifact.manifest
    if known["threads"] > 1:
        raise CompileError("a bench program times one thread: compile the library with one")
    notes = f"printed by the bench program of {program.name}, after its results were found to be exact"
    table = empty_table(device, cpu, target.name, known["compiler"], known["flags"], notes)
    timed = {known["prefix"]: Timed(program, known["arena_bytes"], kernels_of_program(program))}
    _write(bench_source(timed, table, True, load_seconds), artifact.folder / STATIC, tool_chain("zig", target), path)


def build_batch_bench(
    programs: Sequence[Program],
    kernels: Sequence[Mapping[int, Kernel]],
    table: LatencyTable,
    folder: Path,
    whole: bool = False,
) -> Path:
    """A program that times those `kernels` of each program that its operations (by position) call; it prints `table`.

    `whole`: the overhead in the header that it prints is the median over the programs of what each takes beyond the sum
    of its kernels, which must then be all that it calls. Raises `CompileError`.
    """
    _require_bare(find_target(table.header.target))
    lowered, tools = static_batch(programs, table.header.target, folder)
    timed = {
        prefix: Timed(each.program, each.arena_bytes, wanted)
        for (prefix, each), wanted in zip(lowered.items(), kernels, strict=True)
    }
    path = folder / "bench"
    _write(bench_source(timed, table, whole), folder / STATIC, tools, path)
    return path


def kernels_of_program(program: Program) -> dict[int, Kernel]:
    """The kernel of every operation, by position."""
    return {position: kernel_of(operation, program) for position, operation in enumerate(program.operations)}


def _require_bare(target: Target) -> None:
    if target.language != "C":
        raise CompileError(f"there is no bench program for {target.name}: it is for targets in C")


def _write(source: str, library: Path, tools: ToolChain, path: Path) -> None:
    write_atomic(path, linked(source, library, tools), mode=0o777)
