"""The folder that a compiled network is delivered in: sources, libraries, the program itself, and a manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from automc.compiler.build import SHARED, STATIC, build
from automc.compiler.emit import prefix_of
from automc.compiler.emulation import Emulated, emulate
from automc.compiler.emulators import first_available, remedy
from automc.compiler.example import emit_cmake, emit_example
from automc.compiler.library import Library, open_code
from automc.compiler.lowering import Lowered, lower
from automc.compiler.pool import POOL_FILES
from automc.compiler.sources import emit_header, emit_source
from automc.compiler.targets import find_target, runs_here
from automc.compiler.toolchain import ToolChain, tool_chain
from automc.compression.program import Program
from automc.errors import CorruptFile, InputError, RunnerError
from automc.files import canonical_json, sha256_of, write_atomic

_MANIFEST = "manifest.json"
_SEAL = "sha256"  # the manifest's entry for its own checksum
_PROGRAM = "program.safetensors"
# And SHARED, where the target's systems load libraries, and the pool, where several threads compute.
_FILES = ("model.c", "model.h", "main.c", "CMakeLists.txt", STATIC, _PROGRAM)


@dataclass(frozen=True, eq=False)
class Artifact:
    """A compiled network in `folder`. `manifest` says what it is; sizes are in bytes."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def target(self) -> str:
        return str(self.manifest["target"])

    @property
    def size_bytes(self) -> int:
        """Code and constants of the network."""
        return int(self.manifest["size_bytes"])

    def summary(self) -> list[str]:
        """What was built, as lines for people."""
        known = self.manifest
        return [
            f"{known['name']} for {self.target}, {known['macs'] / 1e6:.2f} M MACs, by {known['compiler']}",
            f"static library: {self.size_bytes} bytes, of which {known['weight_bytes']} are weights and constants",
            f"arena at run time: {known['arena_bytes']} bytes, {known['expanded_bytes']} of them weights",
        ]

    def program(self) -> Program:
        """The program that was compiled."""
        return Program.load(self.folder / _PROGRAM)

    def load(self) -> Library:
        """The library, ready to run and to be timed. Raises `RunnerError` where it cannot run on this machine."""
        program = self.program()
        return Library(open_code(self.folder / SHARED), self.manifest["prefix"], program, self.manifest["arena_bytes"])

    def runnable(self) -> Library | Emulated:
        """The library, or where another processor is meant and an emulator is here, what runs it there.

        Raises `RunnerError` where neither can run.
        """
        target = find_target(self.target)
        if runs_here(target) or not target.machines:
            return self.load()
        machine = first_available(target.machines)
        if machine is None:
            ways = remedy(target.machines)
            raise RunnerError(f"{target.name} does not run on this machine, and no emulator is here: {ways}")
        lowered = {self.manifest["prefix"]: lower(self.program(), target, self.manifest["threads"])}
        return emulate(self.folder / STATIC, lowered, tool_chain("zig", target), machine)


def compile_program(program: Program, target: str, folder: Path, compiler: str = "zig", threads: int = 1) -> Artifact:
    """Compile `program` for the target of this name into `folder`, to be computed by so many threads at most.

    Raises `NameNotFound` for an unknown target or compiler, `CompileError` where the compiler is missing or fails,
    `InputError` for a number of threads that makes no sense.
    """
    lowered = lower(program, find_target(target), threads)
    tools = tool_chain(compiler, lowered.target)
    prefix = prefix_of(lowered)
    optional = ((SHARED,) if lowered.target.loadable else ()) + (tuple(POOL_FILES) if lowered.threads > 1 else ())
    build(emit_source({prefix: lowered}), tools, folder, lowered.target.loadable, lowered.threads > 1)
    write_atomic(folder / "model.h", emit_header(lowered, prefix))
    write_atomic(folder / "main.c", emit_example(program, prefix))
    write_atomic(folder / "CMakeLists.txt", emit_cmake(lowered.target, lowered.threads))
    program.save(folder / _PROGRAM)
    for name in (SHARED, *POOL_FILES):  # what another library of this folder had, and this one has not
        if name not in optional:
            (folder / name).unlink(missing_ok=True)
    kernels = zip(program.operations, lowered.kernels, strict=True)
    weight_bytes = sum(kernel.choice.weight_bytes for kernel in lowered.kernels)
    manifest = {
        "name": program.name,
        "program": program.fingerprint,
        "prefix": prefix,
        "target": target,
        "compiler": f"{tools.compiler} {tools.version}",
        "flags": list(tools.flags),
        "threads": lowered.threads,
        "arena_bytes": lowered.arena_bytes,
        "expanded_bytes": lowered.expanded_bytes,
        "weight_bytes": weight_bytes,
        "size_bytes": (folder / STATIC).stat().st_size,
        "macs": program.macs,
        "operations": [{"tensor": operation.target, **asdict(kernel.choice)} for operation, kernel in kernels],
        "files": {name: sha256_of(folder / name) for name in (*_FILES, *optional)},
    }
    manifest[_SEAL] = _seal(manifest)
    write_atomic(folder / _MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return Artifact(folder, manifest)


def open_artifact(folder: Path) -> Artifact:
    """The artifact in a folder.

    Raises `InputError` where there is none, and `CorruptFile` where a file is missing or not what the manifest says,
    or the manifest not what was written.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        raise InputError(f"there is no library at {folder}; automc run and automc compile write one")
    try:
        manifest = dict(json.loads(path.read_text()))
        seal = _seal(manifest)
    except (OSError, ValueError, TypeError) as error:
        raise CorruptFile(f"{folder} holds no readable {_MANIFEST}: {error}") from error
    if _SEAL not in manifest:
        raise CorruptFile(f"{path} has no {_SEAL}: an older automc wrote it, or it was changed; compile it again")
    if manifest[_SEAL] != seal:
        raise CorruptFile(f"{path} was changed after automc wrote it")
    checksums = manifest["files"]
    for name in (*_FILES, *(name for name in (SHARED, *POOL_FILES) if name in checksums)):
        path = folder / name
        if not path.is_file():
            raise CorruptFile(f"{path} is missing")
        if sha256_of(path) != checksums.get(name):
            raise CorruptFile(f"{path} was changed after automc wrote it")
    return Artifact(folder, manifest)


def _seal(manifest: dict[str, Any]) -> str:
    """The checksum of all that a manifest says beside it."""
    return sha256_of(canonical_json({name: value for name, value in manifest.items() if name != _SEAL}).encode())


def compile_batch(
    programs: Sequence[Program], target: str, folder: Path, *flags: str, threads: int = 1
) -> list[Library]:
    """Compile many programs for one target as one library in `folder`, with further `flags`, and load each.

    To measure or to test them.

    Raises `RunnerError` where they do not run on this machine.
    """
    if not find_target(target).loadable:
        raise RunnerError(f"libraries for {target} cannot be loaded and timed on this machine")
    lowered = _batch(programs, target, threads)
    pooled = any(each.threads > 1 for each in lowered.values())
    tools = tool_chain("zig", find_target(target)).with_flags(*flags)
    build(emit_source(lowered), tools, folder, threads=pooled)
    code = open_code(folder / SHARED)
    return [Library(code, prefix, each.program, each.arena_bytes) for prefix, each in lowered.items()]


def static_batch(
    programs: Sequence[Program], target: str, folder: Path, *flags: str
) -> tuple[dict[str, Lowered], ToolChain]:
    """Compile many programs for one target as one static library in `folder`; each by the prefix of its functions."""
    lowered = _batch(programs, target)
    tools = tool_chain("zig", find_target(target)).with_flags(*flags)
    build(emit_source(lowered), tools, folder, loadable=False)
    return lowered, tools


def _batch(programs: Sequence[Program], target: str, threads: int = 1) -> dict[str, Lowered]:
    found = find_target(target)
    return {f"automc_{number}": lower(program, found, threads) for number, program in enumerate(programs)}
