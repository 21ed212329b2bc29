"""Runs a C compiler: zig from the `ziglang` package by default, a system's gcc or clang on request."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from automc.compiler.isa import Target
from automc.errors import CompileError, NameNotFound
from automc.files import cache_directory, closest

COMPILERS = ("zig", "gcc", "clang")
TIME_LIMIT_SECONDS = 600

# Contraction would fuse a product with a sum and round once instead of twice.
_FLAGS = ("-std=c99", "-O3", "-g0", "-fPIC", "-ffp-contract=off", "-Werror=implicit")


@dataclass(frozen=True)
class ToolChain:
    """A compiler with the flags for one target."""

    compiler: str
    version: str
    command: tuple[str, ...]
    archiver: tuple[str, ...]
    flags: tuple[str, ...]

    def compile(self, sources: Sequence[Path], output: Path) -> None:
        """Compile each of `sources` for `output`: an object (`.o`, of one source) or a shared library.

        Raises `CompileError` with the compiler's message; the sources stay where they are.
        """
        action = ["-c"] if output.suffix == ".o" else ["-shared"]
        self._run([*self.command, *self.flags, *action, *map(str, sources), "-o", str(output)], sources)

    def archive(self, objects: Sequence[Path], output: Path) -> None:
        """Put `objects` into the static library `output`."""
        self._run([*self.archiver, "rcsD", str(output), *map(str, objects)], objects)

    def _run(self, command: list[str], sources: Sequence[Path]) -> None:
        environment = dict(os.environ)
        if self.compiler == "zig":
            zig_cache = str(cache_directory() / "zig")
            environment |= {"ZIG_GLOBAL_CACHE_DIR": zig_cache, "ZIG_LOCAL_CACHE_DIR": zig_cache}
        kept = ", ".join(map(str, sources))
        try:
            # A session of its own, so that a hanging compiler goes with the processes that it started.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env=environment, text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise CompileError(f"{self.compiler} cannot be run: {error}. {_REMEDY}") from error
        try:
            message, _ = process.communicate(timeout=TIME_LIMIT_SECONDS)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself just now
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise CompileError(f"{self.compiler} ran longer than {TIME_LIMIT_SECONDS} s on {kept}") from error
            raise
        if process.returncode != 0:
            raise CompileError(f"{self.compiler} failed on {kept}:\n{message.strip()[-4000:]}")


_REMEDY = "Install the package ziglang (pip install ziglang), or choose an installed compiler: zig, gcc or clang."


def tool_chain(compiler: str, target: Target) -> ToolChain:
    """The tool chain of a compiler by name, for `target`.

    Raises `NameNotFound` for an unknown compiler, `CompileError` where it is not installed.
    """
    if compiler not in COMPILERS:
        known = ", ".join(COMPILERS)
        raise NameNotFound(f"there is no compiler {compiler!r}{closest(compiler, COMPILERS)} (known: {known})")
    flags = (*_FLAGS, *target.flags[compiler])
    if compiler == "zig":
        if importlib.util.find_spec("ziglang") is None:
            raise CompileError(f"zig is not installed. {_REMEDY}")
        command = (sys.executable, "-m", "ziglang")
        version = importlib.metadata.version("ziglang")
        # Without a target and a processor zig compiles for the very machine that it runs on.
        machine = ("-target", _zig_target(), *(() if target.flags["zig"] else ("-mcpu=baseline",)))
        return ToolChain("zig", version, (*command, "cc"), (*command, "ar"), (*machine, *flags, "-fno-sanitize=all"))
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


def _zig_target() -> str:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    # An old C library's interface, so that the library also loads on older systems.
    system = {"Darwin": "macos", "Windows": "windows-gnu"}.get(platform.system(), "linux-gnu.2.17")
    return f"{machine}-{system}"
