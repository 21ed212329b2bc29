"""`measure`: fills a latency table by timing the project's own kernels on this machine."""

from __future__ import annotations

import math
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from automc.choices import Choice
from automc.compiler.artifact import compile_batch
from automc.compiler.targets import find_target
from automc.compiler.toolchain import tool_chain
from automc.compression.policy import Policy, unfit
from automc.compression.program import Program
from automc.cost.kernels import Kernel, KernelPlan
from automc.cost.lookup import Lookup
from automc.cost.probes import Probe, probes_of, random_program
from automc.cost.sampling import kernels_to_measure
from automc.cost.table import LatencyTable, Row, empty_table, read_table, write_table
from automc.cost.timing import Reference, Timing
from automc.errors import TableError
from automc.network.graph import Network
from automc.reporting import Report
from automc.schema import SearchSpaceSpec

Need = tuple[Network, SearchSpaceSpec]
Value = TypeVar("Value")

_COMPILER = "zig"
_KERNELS_A_PROBE = 6  # so that what they read stays near the processor, as in a network
_PROBES_A_BATCH = 8  # a compiler call costs seconds
_WHOLE_NETWORKS = 3  # random policies of each network that are timed whole


class Timer(Protocol):
    """Where kernels are timed."""

    def rows(self, probes: Sequence[Probe], folder: Path) -> Iterator[list[Row]]:
        """The rows of the probes' kernels, as soon as they are known; `folder` is empty."""

    def added(self, table: LatencyTable, rows: Sequence[Row]) -> LatencyTable:
        """`table` with these rows."""

    def doubtful(self) -> list[Kernel]:
        """Kernels that turned out to have been timed in a bad moment; each is named once."""

    def overhead_ms(self, needs: Sequence[Need], table: LatencyTable, folder: Path) -> float:
        """What a call of a whole network takes beyond the sum of its kernels, in the middle, at least 0."""


def measure(needs: Iterable[Need], target: str, path: Path, report: Report, seconds: float = 600.0) -> LatencyTable:
    """Time on this machine what `path` does not know yet of the kernels that these networks and search spaces need.

    Raises `TableError` if `path` holds a table of another machine or target, otherwise as `fill`.
    """
    table = begun(path, empty_for(path.stem, processor(), target))
    with tempfile.TemporaryDirectory(prefix="automc-reference-") as folder:
        return fill(table, list(needs), path, lambda: HostTimer(table, Path(folder)), report, seconds)


def fill(
    table: LatencyTable,
    needs: Sequence[Need],
    path: Path,
    open_timer: Callable[[], Timer],
    report: Report,
    seconds: float,
) -> LatencyTable:
    """Time what `table` does not know of the kernels that `needs` have, or knows by simulation alone, into `path`.

    The table is written whenever rows are known, so that a kill loses only what is being timed, and running again
    continues. No new batch begins after `seconds`. Raises `CompileError` or `RunnerError` where kernels cannot be
    compiled or run; what was timed before is in the table.
    """
    known = {row.kernel for row in table.rows if row.source != "simulated"}
    missing = [kernel for kernel in kernels_to_measure(needs) if kernel not in known]
    if not missing:
        return table
    deadline = time.monotonic() + seconds
    report(f"{path.stem}: {len(missing)} kernels to time for {table.header.target}, {len(known)} are known")
    probes = _new_operations_first(probes_of(missing, _KERNELS_A_PROBE))
    batches = [probes[start : start + _PROBES_A_BATCH] for start in range(0, len(probes), _PROBES_A_BATCH)]
    timer = open_timer()
    table = _timed(batches, table, needs, path, timer, report, deadline)
    doubtful = set(timer.doubtful())
    again = [batch for batch in batches if any(doubtful & set(probe.kernels.values()) for probe in batch)]
    if again and time.monotonic() < deadline:
        report(f"{path.stem}: {len(doubtful)} kernels were timed while the machine was busy; they are timed again")
        table = _timed(again, table, needs, path, timer, report, deadline)
    return table


def _timed(
    batches: Sequence[Sequence[Probe]],
    table: LatencyTable,
    needs: Sequence[Need],
    path: Path,
    timer: Timer,
    report: Report,
    deadline: float,
) -> LatencyTable:
    """`table` with the overhead, and rows of the probes' kernels as far as the time goes; it is in `path`, too."""
    left = {kernel for batch in batches for probe in batch for kernel in probe.kernels.values()}
    with tempfile.TemporaryDirectory(prefix="automc-measure-") as temporary:
        folder = Path(temporary)
        for number, batch in enumerate(batches):
            if number > 0 and time.monotonic() > deadline:
                report(f"{path.stem}: the time is over; {number} of {len(batches)} batches of kernels were timed")
                break
            for rows in timer.rows(batch, folder / f"batch{number}"):
                table = timer.added(table, rows)
                left.difference_update(row.kernel for row in rows)
                if left:  # the last rows come with the overhead, so that a table with all rows has it
                    write_table(table, path)
            report(f"{path.stem}: {number + 1}/{len(batches)} batches of kernels timed")
        overhead = timer.overhead_ms(needs, table, folder / "whole")
        table = replace(table, header=replace(table.header, overhead_ms=overhead))
        write_table(table, path)
    report(f"{path.stem}: {len(table.rows)} kernels, {overhead * 1e3:.2f} us a call beside them")
    return table


class HostTimer:
    """Times on this machine, in turns with a reference; rows are multiples of what that takes in quiet moments."""

    def __init__(self, table: LatencyTable, folder: Path) -> None:
        self._target = table.header.target
        self._reference = Reference(self._target, folder, table.header.reference_ms or math.inf)
        self._timings: dict[Kernel, Timing] = {}

    def rows(self, probes: Sequence[Probe], folder: Path) -> Iterator[list[Row]]:
        """One row after the other, but none of kernels that were timed in a quiet moment before."""
        libraries = compile_batch([probe.program for probe in probes], self._target, folder)
        for probe, library in zip(probes, libraries, strict=True):
            self._reference.warm(library)
            for position, kernel in probe.by_position.items():
                if self._is_certain(kernel):
                    continue
                timing = self._timings[kernel] = self._reference.time_operation(library, position)
                quiet_ms = self._reference.quiet_ms
                yield [Row(kernel, timing.ratio * quiet_ms, timing.spread * quiet_ms, timing.count, "measured")]

    def added(self, table: LatencyTable, rows: Sequence[Row]) -> LatencyTable:
        """The table at what the reference takes in the quiet moments that were seen by now."""
        return table.at_reference(self._reference.quiet_ms).extended(rows)

    def doubtful(self) -> list[Kernel]:
        """Those of moments that are known not to have been quiet, now that the machine was seen at its best."""
        return [kernel for kernel in self._timings if not self._is_certain(kernel)]

    def _is_certain(self, kernel: Kernel) -> bool:
        return kernel in self._timings and self._reference.was_quiet(self._timings[kernel])

    def overhead_ms(self, needs: Sequence[Need], table: LatencyTable, folder: Path) -> float:
        """The median over a few random policies of each network."""
        lookup = Lookup(table)
        plans, programs = whole_networks(needs)
        excess = []
        for (plan, policy), library in zip(plans, compile_batch(programs, self._target, folder), strict=True):
            measured = self._reference.time_whole(library).ratio * self._reference.quiet_ms
            excess.append(measured - sum(lookup(step.kernel).latency_ms * step.times for step in plan.steps(policy)))
        return max(0.0, float(np.median(excess)))


def whole_networks(needs: Sequence[Need]) -> tuple[list[tuple[KernelPlan, Policy]], list[Program]]:
    """A few random policies of each network, and their Programs."""
    random = np.random.default_rng(0)
    plans = [
        (KernelPlan(network), random_policy(network, space, random))
        for network, space in needs
        for _ in range(_WHOLE_NETWORKS)
    ]
    return plans, [random_program(plan.network, policy, 0) for plan, policy in plans]


def _new_operations_first(probes: Sequence[Probe]) -> list[Probe]:
    """Probes of operations that those before them lack come first, since a kind without a row has no price at all."""
    seen: set[str] = set()
    first: list[Probe] = []
    later: list[Probe] = []
    for probe in probes:
        operations = {kernel.operation for kernel in probe.kernels.values()}
        (first if operations - seen else later).append(probe)
        seen |= operations
    return first + later


def processor() -> str:
    """The processor's model, family and number, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    numbers = [f"{name} {told[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in told]
    return " ".join([told.get("model name", platform.machine()), *(f"({', '.join(numbers)})" for _ in numbers[:1])])


def empty_for(device: str, cpu: str, target: str, notes: str = "") -> LatencyTable:
    """An empty table of kernels that this version compiles for `target`. Raises `NameNotFound`, `CompileError`."""
    tools = tool_chain(_COMPILER, find_target(target))
    return empty_table(device, cpu, target, f"{tools.compiler} {tools.version}", tools.flags, notes)


def begun(path: Path, empty: LatencyTable) -> LatencyTable:
    """What `path` knows already, or `empty`. Raises `TableError` where it is not of the same machine and compiler."""
    if not path.exists():
        return empty
    known = read_table(path)
    for name in ("cpu", "target", "compiler", "flags"):
        theirs, ours = getattr(known.header, name), getattr(empty.header, name)
        if theirs != ours:
            raise TableError(
                f"{path} was made with another {name} ({theirs}) than this run would use ({ours}); "
                "choose another file, or move this one away"
            )
    return known


def random_policy(network: Network, space: SearchSpaceSpec, random: np.random.Generator, alike: bool = False) -> Policy:
    """Every choice drawn evenly from what the space offers a layer; pins are not looked at.

    Layers that are drawn one by one make networks that all cost about the same. Where they are to be `alike`, each
    policy has a level of its own for channels, for weights and for activations, and what a layer has lies around it
    (a beta-binomial draw, so that each layer by itself is still drawn evenly): as the budgets of a search spread them.
    """

    def drawing() -> Callable[[int], int]:
        if not alike:
            return lambda count: int(random.integers(count))
        level = random.random()
        return lambda count: int(random.binomial(count - 1, level))

    def one(place: Callable[[int], int], values: Sequence[Value]) -> Value:
        return values[place(len(values))]

    def fitting(layer: str) -> list[Choice]:
        return [choice for choice in space.weights if unfit(choice, layer, network) is None]

    ratio, weights, bits = drawing(), drawing(), drawing()
    return Policy(
        keep_ratio={group.name: one(ratio, space.ratios) for group in network.groups if group.prunable},
        weights={layer.name: one(weights, fitting(layer.name)) for layer in network.convs},
        activation_bits={name: one(bits, space.activation_bits) for name in network.quantised_tensors},
    )
