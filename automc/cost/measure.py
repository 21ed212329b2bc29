"""`measure`: fills a latency table by timing the project's own kernels on this machine."""

from __future__ import annotations

import math
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from automc.choices import Choice
from automc.compiler.artifact import compile_batch
from automc.compiler.targets import find_target
from automc.compiler.toolchain import tool_chain
from automc.compression.policy import Policy, unfit
from automc.cost.kernels import Kernel, KernelPlan
from automc.cost.lookup import Lookup
from automc.cost.probes import Probe, probes_of, random_program
from automc.cost.sampling import kernels_to_measure
from automc.cost.table import LatencyTable, Row, empty_table, read_table, write_table
from automc.cost.timing import Reference, Timing
from automc.errors import TableError
from automc.network.graph import Network
from automc.schema import SearchSpaceSpec

Need = tuple[Network, SearchSpaceSpec]
Report = Callable[[str], None]
Value = TypeVar("Value")

_COMPILER = "zig"
_KERNELS_A_PROBE = 6  # so that the reference is never more than a millisecond away
_PROBES_A_BATCH = 8  # a compiler call costs seconds, and a batch is what a kill loses
_WHOLE_NETWORKS = 3  # random policies of each network that are timed whole


def measure(
    needs: Iterable[Need], target: str, path: Path, report: Report, seconds: float = 600.0, notes: str = ""
) -> LatencyTable:
    """Time what `path` does not know yet of the kernels that these networks and search spaces need.

    The table is written after every batch, so that a kill loses one batch at most, and running again continues. No new
    batch begins after `seconds`. Raises `TableError` if `path` holds a table of another machine or target,
    `CompileError` or `RunnerError` where kernels cannot be compiled or run here.
    """
    needs = list(needs)
    table = _table_at(path, target, notes)
    missing = [kernel for kernel in kernels_to_measure(needs) if kernel not in table.by_kernel]
    if not missing:
        return table
    deadline = time.monotonic() + seconds
    probes = _new_operations_first(probes_of(missing, _KERNELS_A_PROBE))
    report(f"{path.stem}: {len(missing)} kernels to time for {target}, {len(table.rows)} are known")
    with tempfile.TemporaryDirectory(prefix="automc-measure-") as temporary:
        folder = Path(temporary)
        reference = Reference(target, folder / "reference", table.header.reference_ms or math.inf)
        for start in range(0, len(probes), _PROBES_A_BATCH):
            if start > 0 and time.monotonic() > deadline:
                report(f"{path.stem}: {seconds:.0f} s are over; {len(probes) - start} of {len(probes)} probes are left")
                break
            batch = list(_timed(probes[start : start + _PROBES_A_BATCH], reference, target, folder / f"batch{start}"))
            table = table.at_reference(reference.floor_ms).extended(_row(*timed, reference.floor_ms) for timed in batch)
            done = start + _PROBES_A_BATCH
            report(f"{path.stem}: {min(done, len(probes))}/{len(probes)} probes timed")
            if done < len(probes):  # the last batch comes with the overhead, so that a table with all rows has it
                write_table(table, path)
        overhead = _overhead_ms(needs, table, reference, folder / "whole")
        table = replace(table, header=replace(table.header, overhead_ms=overhead))
        write_table(table, path)
    report(f"{path.stem}: {len(table.rows)} kernels, {overhead * 1e3:.2f} us a call beside them")
    return table


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


def _table_at(path: Path, target: str, notes: str) -> LatencyTable:
    tools = tool_chain(_COMPILER, find_target(target))
    empty = empty_table(path.stem, processor(), target, f"{tools.compiler} {tools.version}", tools.flags, notes)
    if not path.exists():
        return empty
    known = read_table(path)
    for name in ("cpu", "target", "compiler", "flags"):
        theirs, ours = getattr(known.header, name), getattr(empty.header, name)
        if theirs != ours:
            raise TableError(
                f"{path} was measured with another {name} ({theirs}) than this run would use ({ours}); "
                "choose another file, or move this one away"
            )
    return known


def _timed(probes: Sequence[Probe], reference: Reference, target: str, folder: Path) -> Iterator[tuple[Kernel, Timing]]:
    libraries = compile_batch([probe.program for probe in probes], target, folder)
    for probe, library in zip(probes, libraries, strict=True):
        timings = reference.time_operations(library)
        for operation, timing in zip(probe.program.operations, timings, strict=True):
            if operation.target in probe.kernels:
                yield probe.kernels[operation.target], timing


def _row(kernel: Kernel, timing: Timing, reference_ms: float) -> Row:
    return Row(kernel, timing.ratio * reference_ms, timing.spread * reference_ms, timing.count, "measured")


def _overhead_ms(needs: Sequence[Need], table: LatencyTable, reference: Reference, folder: Path) -> float:
    """What whole networks take beyond the sum of their kernels: the median over a few random policies, at least 0."""
    random = np.random.default_rng(0)
    lookup = Lookup(table)
    plans, policies = [], []
    for network, space in needs:
        plans += [KernelPlan(network)] * _WHOLE_NETWORKS
        policies += [random_policy(network, space, random) for _ in range(_WHOLE_NETWORKS)]
    programs = [random_program(plan.network, policy, 0) for plan, policy in zip(plans, policies, strict=True)]
    excess = []
    for plan, policy, library in zip(
        plans, policies, compile_batch(programs, table.header.target, folder), strict=True
    ):
        measured = reference.time_whole(library).ratio * reference.floor_ms
        excess.append(measured - sum(lookup(step.kernel).latency_ms * step.times for step in plan.steps(policy)))
    return max(0.0, float(np.median(excess)))


def random_policy(network: Network, space: SearchSpaceSpec, random: np.random.Generator) -> Policy:
    """Every choice drawn evenly from what the space offers a layer; pins are not looked at."""

    def drawn(values: Sequence[Value]) -> Value:
        return values[int(random.integers(len(values)))]

    def fitting(layer: str) -> list[Choice]:
        return [choice for choice in space.weights if unfit(choice, layer, network) is None]

    return Policy(
        keep_ratio={group.name: drawn(space.keep_ratio) for group in network.groups if group.prunable},
        weights={layer.name: drawn(fitting(layer.name)) for layer in network.convs},
        activation_bits={name: drawn(space.activation_bits) for name in network.quantised_tensors},
    )
