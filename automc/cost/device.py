"""Devices by name: tables in `latency_tables/`, and `host`, the machine at hand, measured when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from automc.catalog import find
from automc.compiler.emit import emit_source
from automc.compiler.lowering import lower
from automc.compiler.targets import find_target, host_target
from automc.cost.measure import Need, measure, processor
from automc.cost.probes import probes_of
from automc.cost.sampling import kernels_to_measure
from automc.cost.table import LatencyTable, read_table, write_table
from automc.cost.timing import REFERENCE
from automc.errors import TableError
from automc.files import cache_directory, canonical_json, locked, sha256_of
from automc.reporting import Report

HOST = "host"


def open_device(device: str, needs: Sequence[Need], report: Report, may_measure: bool = True) -> LatencyTable:
    """The table of a device by name: `host`, or a file in `latency_tables/`.

    The host is measured first, see `measure_host`; where nothing may be measured, and it was not before, it is refused.
    Raises `NameNotFound`, `TableError`, `CompileError`, `RunnerError`.
    """
    if device != HOST:
        return read_table(find("latency_tables", device))
    if not may_measure and not host_table(host_target(), needs).exists():
        raise TableError(
            f"{host_tables()} holds no table of this machine for these kernels; what was priced by one needs that very "
            "table, and another measurement would not be it"
        )
    return read_table(measure_host(host_target(), needs, report))


def measure_host(target: str, needs: Sequence[Need], report: Report, seconds: float = 600.0) -> Path:
    """The file of the host's table for `needs`, measured in about `seconds` at most if it is not there yet.

    A finished table is never touched again, so that a search that is resumed sees the costs that it began with; an
    unfinished one lies apart, and is gone on with. Raises `TableError`, `CompileError`, `RunnerError`.
    """
    path = host_table(target, needs)
    if path.exists():
        return path
    unfinished = path.parent / "unfinished" / path.name

    def wait() -> None:
        report(f"{path.stem}: another process is measuring this machine; waiting for it")

    with locked(unfinished.with_suffix(".lock"), wait):
        if not path.exists():  # the one that was waited for may have finished it
            write_table(measure(needs, target, unfinished, report, seconds), path)
            unfinished.unlink(missing_ok=True)
    return path


def host_table(target: str, needs: Sequence[Need]) -> Path:
    """Where the host's table for `needs` lies; other kernels, processors and compiler versions have their own."""
    (probe,) = probes_of([REFERENCE], 1)
    code = emit_source({"reference": lower(probe.program, find_target(target))})
    kernels = [list(kernel.key) for kernel in kernels_to_measure(needs)]
    key = sha256_of(canonical_json([processor(), code, kernels]).encode())[:12]
    return host_tables() / f"{HOST}_{target}_{key}.csv"


def host_tables() -> Path:
    """The folder of this machine's tables."""
    return cache_directory() / "tables"
