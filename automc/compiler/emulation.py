"""Programs of a library, run by an emulator of a processor that is not here."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automc.compiler.emulators import QEMU_PLUGIN, command
from automc.compiler.freestanding import START, driver, linked, linked_for_system
from automc.compiler.isa import Machine
from automc.compiler.lowering import Lowered
from automc.compiler.processes import Ended, Limits, run_limited
from automc.compiler.sources import STATUS
from automc.compiler.targets.portable import PORTABLE
from automc.compiler.toolchain import ToolChain, tool_chain
from automc.compression.interpreter import check_pixels
from automc.compression.program import Program
from automc.errors import RunnerError
from automc.files import cache_directory, sha256_of, write_atomic

LIMITS = Limits(seconds=600, memory_bytes=16 << 30, file_bytes=1 << 30)


@dataclass(frozen=True, eq=False)
class Emulated:
    """A program of its own that holds a library's programs, and the machine that it is run on."""

    executable: Path
    machine: Machine
    programs: tuple[Program, ...]

    @property
    def program(self) -> Program:
        """The only one."""
        (program,) = self.programs
        return program

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The logits, `n x outputs`, of images `n x height x width x channels`, where there is one program.

        Raises `DataError` for other images, `RunnerError` if the program fails or wrote where it may not.
        """
        (logits,) = self.run_all([pixels])
        return logits

    def run_all(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """The logits of each program for its images, in one run. Errors are those of `run`."""
        ended = self._execute(command(self.machine, self.executable), self._request(images, repeats=1))
        output = _Reader(ended.output)
        return [output.logits(program, len(pixels)) for program, pixels in zip(self.programs, images, strict=True)]

    def instructions(self, number: int, pixels: NDArray[np.uint8]) -> int:
        """How many instructions the program of this number executes for one image, `height x width x channels`.

        What computing it twice takes more than computing it once: exact, and the same in every run.
        """
        images = [np.zeros((0, *program.image_shape), np.uint8) for program in self.programs]
        images[number] = pixels[None]
        once, twice = (self._count(self._request(images, repeats)) for repeats in (1, 2))
        return twice - once

    def _count(self, request: bytes) -> int:
        with tempfile.TemporaryDirectory() as folder:
            count = Path(folder) / "count"
            plugin = None if self.machine.emulator == "unicorn" else qemu_plugin(QEMU_PLUGIN)
            self._execute(command(self.machine, self.executable, count, plugin), request)
            return int(count.read_text())

    def _request(self, images: Sequence[NDArray[np.uint8]], repeats: int) -> bytes:
        parts = []
        for program, pixels in zip(self.programs, images, strict=True):
            check_pixels(program, pixels)
            parts += [np.array([len(pixels), repeats], "<u4").tobytes(), pixels.tobytes()]
        return b"".join(parts)

    def _execute(self, emulator: list[str], request: bytes) -> Ended:
        try:
            ended = run_limited(emulator, LIMITS, request)
        except OSError as error:
            raise RunnerError(f"{self.machine} cannot be run: {error}") from error
        except subprocess.TimeoutExpired as error:
            raise RunnerError(f"{self.executable} ran longer than {error.timeout:g} s on {self.machine}") from error
        if ended.status != 0:
            said = ended.errors.decode(errors="replace").strip()[-2000:]
            raise RunnerError(f"{self.executable} failed on {self.machine} with status {ended.status}: {said}")
        return ended


class _Reader:
    """Reads what the driver writes, piece by piece."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def logits(self, program: Program, images: int) -> NDArray[np.float32]:
        """Of one program. Raises `RunnerError` where it did not run, or wrote where it may not."""
        status = self._number()
        if status != 0:
            raise RunnerError(f"{program.name} cannot run: {STATUS.get(status, f'init answered {status}')}")
        rows = []
        for _ in range(images):
            rows.append(np.frombuffer(self._bytes(4 * program.outputs), "<f4"))
            if not self._number():
                raise RunnerError(f"the library of {program.name} wrote outside its arena or its output")
        return np.array(rows, np.float32).reshape(images, program.outputs)

    def _number(self) -> int:
        return int.from_bytes(self._bytes(4), "little")

    def _bytes(self, count: int) -> bytes:
        piece = self._content[self._at : self._at + count]
        if len(piece) != count:
            raise RunnerError(f"the program wrote {len(self._content)} bytes, too few")
        self._at += count
        return piece


def emulate(library: Path, lowered: Mapping[str, Lowered], tools: ToolChain, machine: Machine) -> Emulated:
    """The programs of a static library, by their prefixes, ready to run on `machine`.

    Raises `CompileError` where they cannot be linked.
    """
    languages = {each.target.language for each in lowered.values()}
    begin, link, name = (START, linked, "program.elf") if languages == {"C"} else ("", linked_for_system, "program.so")
    source = begin + driver(lowered)
    key = sha256_of("\n".join((sha256_of(library.read_bytes()), source, tools.version, *tools.flags)).encode())
    executable = cache_directory() / "emulate" / key[:32] / name
    if not executable.exists():
        write_atomic(executable, link(source, library, tools), mode=0o777)
    return Emulated(executable, machine, tuple(each.program for each in lowered.values()))


def qemu_plugin(source: str) -> Path:
    """A plugin of QEMU, compiled for this machine once."""
    tools = tool_chain("zig", PORTABLE)
    key = sha256_of("\n".join((source, tools.version, *tools.flags)).encode())
    folder = cache_directory() / "emulate" / key[:32]
    plugin = folder / "plugin.so"
    if not plugin.exists():
        write_atomic(folder / "plugin.c", source)
        with tempfile.TemporaryDirectory(prefix="automc-compile-") as temporary:
            work = Path(temporary) / "plugin.so"
            tools.with_flags("-Wl,-z,undefs").compile([folder / "plugin.c"], work)
            write_atomic(plugin, work.read_bytes())
    return plugin
