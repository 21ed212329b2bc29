"""Devices by name: tables in `latency_tables/`, and `host`, the machine at hand, measured when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from automc import catalog
from automc.compiler.emit import emit_source
from automc.compiler.lowering import lower
from automc.compiler.targets import find_target, host_target
from automc.cost.measure import Need, Report, measure, processor
from automc.cost.probes import probes_of
from automc.cost.sampling import kernels_to_measure
from automc.cost.table import LatencyTable, read_table
from automc.cost.timing import REFERENCE
from automc.files import cache_directory, sha256_of

HOST = "host"


def open_device(device: str, needs: Sequence[Need], report: Report) -> LatencyTable:
    """The table of a device by name: `host`, or a file in `latency_tables/`.

    For the host, what `needs` misses is measured first, and the answer holds only the kernels that they need, so that
    measuring for one network changes nothing for another. Raises `NameNotFound`, `TableError`, `CompileError`.
    """
    if device != HOST:
        return read_table(catalog.find("latency_tables", device))
    target = host_target()
    table = measure(needs, target, host_table(target), report)
    wanted = set(kernels_to_measure(needs))
    return replace(table, rows=tuple(row for row in table.rows if row.kernel in wanted))


def host_table(target: str) -> Path:
    """Where the host's table for `target` lies: a file for each processor and version of the compiler's kernels."""
    (probe,) = probes_of([REFERENCE], 1)
    code = emit_source({"reference": lower(probe.program, find_target(target))})
    key = sha256_of(f"{processor()}\n{code}".encode())[:12]
    return cache_directory() / "tables" / f"{HOST}_{target}_{key}.csv"
