"""Energy of a program: by the processor's own counters (RAPL), by the trace of an external meter, or by a table."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automc.compiler.sizes import program_bytes
from automc.compression.program import Program
from automc.cost.energy import Energy, energy_of
from automc.cost.kernels import Step
from automc.cost.lookup import Lookup
from automc.cost.recognise import calls_of, kernel_of
from automc.cost.table import LatencyTable
from automc.errors import RunnerError, TableError

POWERCAP = Path("/sys/class/powercap")
_PACKAGE = re.compile(r"^intel-rapl:\d+$")  # AMD's processors have the same name
_IDLE_SECONDS = 1.0
_COLUMNS = "time_s,watts"


@dataclass(frozen=True)
class Metered:
    """What a meter said of `inferences` in a row, which took `seconds`, and of the time without them."""

    joules: float
    idle_watts: float
    inferences: int
    seconds: float
    by: str

    @property
    def inference_mj(self) -> float:
        """One inference with its share of all that the meter sees, in millijoule."""
        return 1e3 * self.joules / self.inferences

    @property
    def above_idle_mj(self) -> float:
        """One inference without what flows anyway."""
        return self.inference_mj - 1e3 * self.idle_watts * self.seconds / self.inferences


class Rapl:
    """The counters of all processor packages (Linux, `powercap`). Raises `RunnerError` where there are none to read."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._zones = sorted(zone for zone in folder.glob("intel-rapl:*") if _PACKAGE.match(zone.name))
        if not self._zones:
            raise RunnerError(
                f"this machine has no energy counters ({folder}/intel-rapl:*); record the power with an external meter "
                "(--trace), or rely on the model in a latency table's header"
            )
        self._ranges = [self._read(zone / "max_energy_range_uj") for zone in self._zones]
        self._last = self._now()

    def joules(self) -> float:
        """What all packages took since the last call, or since the counters were opened; at most one wrap of each."""
        now = self._now()
        spent = [
            after - before if after >= before else after - before + wrap
            for before, after, wrap in zip(self._last, now, self._ranges, strict=True)
        ]
        self._last = now
        return sum(spent) * 1e-6

    def _now(self) -> list[int]:
        return [self._read(zone / "energy_uj") for zone in self._zones]

    @staticmethod
    def _read(path: Path) -> int:
        try:
            return int(path.read_text())
        except PermissionError as error:
            raise RunnerError(f"{path} may only be read by root: sudo chmod a+r {path}") from error
        except (OSError, ValueError) as error:
            raise RunnerError(f"{path} cannot be read: {error}") from error


def meter_here(run: Callable[[], None], seconds: float, folder: Path = POWERCAP) -> Metered:
    """Call `run` for about `seconds`, between two readings of the processor's counters. Raises as `Rapl`."""
    counters = Rapl(folder)
    begun = time.perf_counter()
    time.sleep(_IDLE_SECONDS)
    idle = counters.joules() / (time.perf_counter() - begun)
    begun, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - begun < seconds:
        run()
        count += 1
    taken = time.perf_counter() - begun
    return Metered(counters.joules(), idle, count, taken, "by the processor's RAPL counters")


def meter_trace(path: Path, inferences: int, seconds: float) -> Metered:
    """Find in a power trace the `seconds` in which `inferences` were computed: those of the most energy.

    The clocks of meter and device need not agree. Power is linear between samples. Raises `TableError` where the trace
    cannot be read, or is not longer than the run, so that nothing shows where it began.
    """
    times, watts = read_trace(path)
    length = times[-1] - times[0]
    if length < 1.05 * seconds:
        raise TableError(
            f"{path}: the trace of {length:g} s must be longer than the {seconds:g} s of the run, so that its ends show"
        )
    energy = np.concatenate([[0.0], np.cumsum(np.diff(times) * (watts[1:] + watts[:-1]) / 2)])
    # The best window begins or ends at a sample, or between two whose powers are as good.
    starts = np.concatenate([times, times - seconds])
    starts = starts[(starts >= times[0]) & (starts + seconds <= times[-1])]
    windows = np.interp(starts + seconds, times, energy) - np.interp(starts, times, energy)
    joules = float(windows.max())
    idle = (float(energy[-1]) - joules) / (length - seconds)
    return Metered(joules, idle, inferences, seconds, f"by the power trace {path.name}")


def read_trace(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times in seconds, ascending, and watts: the columns `time_s,watts` of a CSV file.

    Raises `TableError` with line and column for anything else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"cannot read {path}: {error}") from error
    if not lines or lines[0].replace(" ", "") != _COLUMNS:
        raise TableError(f"{path}:1: the first line must be '{_COLUMNS}'. Got {lines[0] if lines else ''!r} instead.")
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split(",")
        if len(cells) != 2:
            raise TableError(f"{path}:{number}: has {len(cells)} values for 2 columns")
        moment, power = (
            _finite(cell, f"{path}:{number}: column {name}")
            for name, cell in zip(_COLUMNS.split(","), cells, strict=True)
        )
        if power < 0:
            raise TableError(f"{path}:{number}: column watts: must not be negative. Got {cells[1]!r} instead.")
        if rows and moment <= rows[-1][0]:
            raise TableError(f"{path}:{number}: column time_s: must be later than before. Got {cells[0]!r} instead.")
        rows.append((moment, power))
    if len(rows) < 2:
        raise TableError(f"{path}: holds {len(rows)} samples; a trace has two at least")
    times, watts = np.array(rows).T
    return times, watts


def modelled_energy(program: Program, table: LatencyTable) -> tuple[Energy, float]:
    """What a table's model says of one inference of a program, and its latency in milliseconds.

    Raises `TableError` where the table states no energies, or knows nothing of one of the program's operations.
    """
    if table.energy is None:
        raise TableError(
            f"the latency table of {table.header.device} states no energies; add '# energy.<name>: <value>' lines"
        )
    lookup, stored = Lookup(table), program_bytes(program)
    steps, latency_ms = [], table.header.overhead_ms
    for operation in program.operations:
        kernel = kernel_of(operation, program)
        times = calls_of(operation)
        steps.append(Step(operation.target, kernel, times))
        latency_ms += lookup(kernel).latency_ms * times
    weights = [stored.get(step.layer, 0) for step in steps]
    return energy_of(steps, weights, latency_ms, table.energy), latency_ms


def _finite(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TableError(f"{where}: must be a number. Got {text!r} instead.")
    return value
