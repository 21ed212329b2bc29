"""Runs a C compiler: zig from the `ziglang` package by default, a system's gcc or clang on request."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from automc.compiler.isa import Target
from automc.compiler.processes import Limits, run_limited
from automc.compiler.targets import host_architecture
from automc.errors import CompileError, NameNotFound
from automc.files import cache_directory, suggest

COMPILERS = ("zig", "gcc", "clang")
LIMITS = Limits(seconds=600, memory_bytes=32 << 30, file_bytes=1 << 30)

# Contraction would fuse a product with a sum and round once instead of twice.
_FLAGS = (
    "-std=c99", "-O3", "-g0", "-fPIC", "-ffp-contract=off", "-Werror=implicit", "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
)  # fmt: skip
_KINDS = {".o": ("-c",), ".so": ("-shared",), ".elf": ("-static", "-nostdlib")}


@dataclass(frozen=True)
class ToolChain:
    """A compiler with the flags for one target."""

    compiler: str
    version: str
    command: tuple[str, ...]
    archiver: tuple[str, ...]
    flags: tuple[str, ...]
    cross: bool = False  # whether it compiles for other systems than this one

    def compile(self, sources: Sequence[Path], output: Path, subject: str | None = None) -> None:
        """Compile or link `sources` to `output`, whose suffix says what it is.

        `.o`: an object, of one source. `.so`: a shared library. `.elf`: a program that needs nothing of its system but
        its calls, of objects that bring their own `_start`.

        Raises `CompileError` with the compiler's message. It names the sources, or their `subject` where they are
        temporary files.
        """
        # Without this, zig builds the other system's libraries first; they are found where the library is loaded.
        alone = ["-nostdlib"] if self.cross and output.suffix == ".so" else []
        command = [*self.command, *self.flags, *_KINDS[output.suffix], *alone, *map(str, sources)]
        self._run([*command, "-o", str(output)], subject or ", ".join(map(str, sources)))

    def with_flags(self, *flags: str) -> ToolChain:
        """The same with further flags."""
        return dataclasses.replace(self, flags=(*self.flags, *flags))

    def archive(self, objects: Sequence[Path], output: Path) -> None:
        """Put `objects` into the static library `output`."""
        self._run([*self.archiver, "rcsD", str(output), *map(str, objects)], output.name)

    def _run(self, command: list[str], subject: str) -> None:
        environment = dict(os.environ)
        if self.compiler == "zig":
            zig_cache = str(cache_directory() / "zig")
            environment |= {"ZIG_GLOBAL_CACHE_DIR": zig_cache, "ZIG_LOCAL_CACHE_DIR": zig_cache}
        try:
            ended = run_limited(command, LIMITS, environment=environment)
        except OSError as error:
            raise CompileError(f"{self.compiler} cannot be run: {error}. {_REMEDY}") from error
        except subprocess.TimeoutExpired as error:
            raise CompileError(f"{self.compiler} ran longer than {error.timeout:g} s on {subject}") from error
        if ended.status != 0:
            message = (ended.output + ended.errors).decode(errors="replace")
            raise CompileError(f"{self.compiler} failed on {subject}:\n{message.strip()[-4000:]}")


_REMEDY = "Install the package ziglang (pip install ziglang), or choose an installed compiler: zig, gcc or clang."


def tool_chain(compiler: str, target: Target) -> ToolChain:
    """The tool chain of a compiler by name, for `target`.

    Raises `NameNotFound` for an unknown compiler, `CompileError` where it is not installed or does not compile for
    other machines.
    """
    if compiler not in COMPILERS:
        raise NameNotFound(f"there is no compiler {compiler!r}{suggest(compiler, COMPILERS)}")
    cross = target.architecture not in (None, host_architecture())
    if compiler not in target.flags or (cross and compiler != "zig"):
        raise CompileError(f"{compiler} does not compile for {target.name} on this machine; zig does")
    flags = (*_FLAGS, *target.flags[compiler])
    if compiler == "zig":
        if importlib.util.find_spec("ziglang") is None:
            raise CompileError(f"zig is not installed. {_REMEDY}")
        command = (sys.executable, "-m", "ziglang")
        version = importlib.metadata.version("ziglang")
        # Without a target and a processor zig compiles for the very machine that it runs on.
        triple = target.triple if cross and target.triple else _host_triple()
        machine = ("-target", triple, *(() if target.flags["zig"] else ("-mcpu=baseline",)))
        flags = (*machine, *flags, "-fno-sanitize=all")
        return ToolChain("zig", version, (*command, "cc"), (*command, "ar"), flags, cross)
    found = shutil.which(compiler)
    if found is None:
        raise CompileError(f"{compiler} is not installed. {_REMEDY}")
    return ToolChain(compiler, _version(found), (found,), (shutil.which("ar") or "ar",), flags)


@cache
def _version(command: str) -> str:
    try:
        answer = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompileError(f"{command} does not tell its version: {error}. {_REMEDY}") from error
    return answer.stdout.partition("\n")[0]


def _host_triple() -> str:
    # An old C library's interface, so that the library also loads on older systems.
    system = {"Darwin": "macos", "Windows": "windows-gnu"}.get(platform.system(), "linux-gnu.2.17")
    return f"{host_architecture()}-{system}"
