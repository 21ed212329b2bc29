"""How fast each operation of a program is: as a table of its target estimates it, and as this machine measures it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from automc.catalog import entries
from automc.compiler.library import Library
from automc.compression.operations import Convolve
from automc.compression.program import Program
from automc.cost.lookup import Lookup
from automc.cost.recognise import calls_of, kernel_of
from automc.cost.table import LatencyTable, read_table
from automc.errors import TableError

_REPEATS = 20


@dataclass(frozen=True)
class Rate:
    """One operation: its multiply-accumulates, and milliseconds where they are known; prints for people."""

    macs: int
    estimated_ms: float | None = None
    interpolated: bool = False  # the estimate lies between rows of the table
    measured_ms: float | None = None

    def __str__(self) -> str:
        said = []
        if self.estimated_ms is not None:
            said.append(f"{'estimated' if self.interpolated else 'in the table'} {self._speed(self.estimated_ms)}")
        if self.measured_ms is not None:
            said.append(f"measured {self._speed(self.measured_ms)}")
        return ", ".join(said)

    def _speed(self, latency_ms: float) -> str:
        text = f"{1e3 * latency_ms:.1f} us"
        return f"{text} ({self.macs / latency_ms / 1e6:.1f} GMAC/s)" if self.macs and latency_ms > 0 else text


def rates(program: Program, table: LatencyTable | None, library: Library | None) -> list[Rate]:
    """Of every operation in the program's order: by `table` what it knows of, by `library` the timings' lower quartile.

    Several operations that run right after each other take about the sum of theirs.
    """
    lookup = None if table is None else Lookup(table)
    measured = [None] * len(program.operations) if library is None else _measured(library)
    found = []
    for operation, measured_ms in zip(program.operations, measured, strict=True):
        macs = program.macs_of(operation) if isinstance(operation, Convolve) else 0
        try:
            latency = None if lookup is None else lookup(kernel_of(operation, program))
        except TableError:  # no row of this operation at all: nothing is known
            latency = None
        if latency is None:
            found.append(Rate(macs, measured_ms=measured_ms))
        else:
            estimated_ms = latency.latency_ms * calls_of(operation)
            found.append(Rate(macs, estimated_ms, latency.interpolated, measured_ms))
    return found


def table_for(target: str) -> LatencyTable | None:
    """The first table in `latency_tables/` of a target's kernels, or nothing. Raises `TableError`."""
    tables = (read_table(path) for path in entries("latency_tables").values())
    return next((table for table in tables if table.header.target == target), None)


def _measured(library: Library) -> list[float]:
    pixels = np.random.default_rng(0).integers(0, 256, (1, *library.program.image_shape), np.uint8)
    library.run(pixels)  # so that every operation finds in the arena what it reads
    quartiles: list[float] = (1e3 * np.quantile(library.layer_times(pixels, _REPEATS), 0.25, axis=0)).tolist()
    return quartiles
