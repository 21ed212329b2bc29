"""Measuring on a device that is not this machine: bench programs are taken there and run by commands of the user's."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

from automc.catalog import entries
from automc.compiler.processes import Limits, run_limited
from automc.compression.program import Program
from automc.cost.bench import build_batch_bench, kernels_of_program
from automc.cost.kernels import Kernel
from automc.cost.measure import Need, begun, empty_for, fill, whole_networks
from automc.cost.probes import Probe
from automc.cost.simulate import SIMULATED
from automc.cost.table import LatencyTable, Row, parse_table, read_table
from automc.errors import ConfigError, RunnerError, TableError
from automc.reporting import Report

Value = TypeVar("Value")

_PROGRAM = "{program}"
_THEN = "&&"
_OF_A_SHELL = ("|", "||", ";", "&", ">", ">>", "<")
_MEMORY_BYTES, _FILE_BYTES = 16 << 30, 64 << 20
_SAID = 2000  # characters of what a command wrote that are repeated


@dataclass(frozen=True)
class Runner:
    """Commands, one after the other, that take a program to a device and run it there; the last prints its output."""

    commands: tuple[tuple[str, ...], ...]
    seconds: float = 300.0  # for each command
    tries: int = 3
    pause_seconds: float = 2.0  # before another try

    @classmethod
    def parse(cls, text: str, seconds: float = 300.0, tries: int = 3) -> Self:
        """The commands of a line like `scp {program} pi4:bench && ssh pi4 ./bench`, which no shell ever sees.

        Raises `ConfigError` where it is not such a line.
        """
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise ConfigError(f"the runner {text!r} cannot be read: {error}") from error
        commands: list[list[str]] = [[]]
        for word in words:
            if word in _OF_A_SHELL:
                raise ConfigError(f"the runner {text!r}: no shell reads it, so {word!r} has no meaning; only && has")
            if word == _THEN:
                commands.append([])
            else:
                commands[-1].append(word)
        if not all(commands):
            raise ConfigError(f"the runner {text!r}: a command is missing")
        if _PROGRAM not in text:
            raise ConfigError(f"the runner {text!r} does not say where the program goes: write {_PROGRAM} for its file")
        return cls(tuple(tuple(command) for command in commands), seconds, tries)

    def run(self, program: Path, understood: Callable[[str], Value], report: Report) -> Value:
        """What the last command prints, as `understood` reads it, which raises `RunnerError` for anything else.

        What fails, takes too long, or is not understood is tried again. Raises `RunnerError` with what was written.
        """
        reason = RunnerError("never tried")
        for number in range(1, self.tries + 1):
            try:
                return understood(self._output(program))
            except RunnerError as error:
                reason = error
                report(f"try {number} of {self.tries}: {error}")
            if number < self.tries:
                time.sleep(self.pause_seconds)
        raise RunnerError(f"the device was tried {self.tries} times; the last time, {reason}") from reason

    def _output(self, program: Path) -> str:
        output = b""
        for words in self.commands:
            command = [word.replace(_PROGRAM, str(program)) for word in words]
            name = shlex.join(command)
            try:
                ended = run_limited(command, Limits(self.seconds, _MEMORY_BYTES, _FILE_BYTES))
            except OSError as error:
                raise RunnerError(f"{name} cannot be started: {error}") from error
            except subprocess.TimeoutExpired as error:
                said = _said(error.output or b"", error.stderr or b"")
                raise RunnerError(f"{name} ran longer than {self.seconds:g} s{said}") from error
            if ended.status != 0:
                raise RunnerError(f"{name} ended with status {ended.status}{_said(ended.output, ended.errors)}")
            output = ended.output
        return output.decode(errors="replace").replace("\r\n", "\n")  # adb writes lines as terminals do


def _said(output: bytes, errors: bytes) -> str:
    text = (output + errors).decode(errors="replace").strip()
    return f"; it wrote:\n{text[-_SAID:]}" if text else "; it wrote nothing"


class DeviceTimer:
    """Times the kernels of a batch in one program on the device."""

    def __init__(self, runner: Runner, table: LatencyTable, report: Report) -> None:
        self._runner = runner
        self._empty = replace(table, header=replace(table.header, overhead_ms=0.0), rows=())
        self._report = report

    def rows(self, probes: Sequence[Probe], folder: Path) -> Iterator[list[Row]]:
        """All rows of a batch at once."""
        programs, kernels = [probe.program for probe in probes], [probe.by_position for probe in probes]
        yield list(self._printed(programs, kernels, folder, whole=False).rows)

    def added(self, table: LatencyTable, rows: Sequence[Row]) -> LatencyTable:
        """The table with these rows, and what was simulated in proportion to them."""
        return table.calibrated(rows)

    def doubtful(self) -> list[Kernel]:
        """None: a device is not compared with a reference."""
        return []

    def overhead_ms(self, needs: Sequence[Need], table: LatencyTable, folder: Path) -> float:
        """The median over a few random policies of each network."""
        _, programs = whole_networks(needs)
        kernels = [kernels_of_program(program) for program in programs]
        return self._printed(programs, kernels, folder, whole=True).header.overhead_ms

    def _printed(
        self, programs: Sequence[Program], kernels: Sequence[Mapping[int, Kernel]], folder: Path, whole: bool
    ) -> LatencyTable:
        program = build_batch_bench(programs, kernels, self._empty, folder, whole)
        wanted = {kernel for each in kernels for kernel in each.values()}

        def understood(text: str) -> LatencyTable:
            try:
                table = parse_table(text, "the device's output")
            except TableError as error:
                raise RunnerError(f"the device printed no table: {error}{_said(text.encode(), b'')}") from error
            if table.by_kernel.keys() != wanted or not text.endswith("\n"):
                raise RunnerError(f"the device printed another table than was asked for{_said(text.encode(), b'')}")
            return table

        return self._runner.run(program, understood, self._report)


def measure_device(
    needs: Sequence[Need],
    device: str,
    target: str,
    runner: Runner,
    path: Path,
    report: Report,
    seconds: float = 600.0,
    cpu: str | None = None,
) -> LatencyTable:
    """Time on a device what its table in `path` does not know yet, or knows by simulation alone.

    A table of the device's name that is found elsewhere is where `path` begins. `cpu` names the processor of a new one.
    Raises `TableError` where the table is of another processor or target, otherwise as `fill`.
    """
    known = path if path.exists() else entries("latency_tables").get(device, path)
    found = read_table(known) if known.exists() else None
    was = found.header.cpu if found else "unknown"
    simulated = found is not None and all(row.source == "simulated" for row in found.rows)
    notes = "kernels and networks timed on the device by bench programs; thread CPU time"
    table = begun(known, empty_for(device, was if simulated else cpu or was, target, notes))
    if simulated:  # from now on the table is of a processor that is there
        named = cpu or was.removesuffix(SIMULATED)
        table = replace(table, header=replace(table.header, device=device, cpu=named, notes=notes))
    return fill(table, needs, path, lambda: DeviceTimer(runner, table, report), report, seconds)
