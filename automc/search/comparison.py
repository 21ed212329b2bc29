"""The rows of a result: what each network answers on the test images, what it was said to cost, and what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from automc.compiler.artifact import Artifact
from automc.compiler.targets import find_target, runs_here
from automc.compression.operations import Convolve
from automc.compression.policy import Policy
from automc.compression.program import Program
from automc.cost.model import CostModel
from automc.cost.timing import Reference
from automc.environment.evaluator import Evaluator
from automc.environment.measures import Estimate
from automc.environment.problem import Problem
from automc.environment.stopwatch import known_reference_ms
from automc.files import cache_directory
from automc.search.result import LayerRow, Row, RowKind, Timing


@dataclass(frozen=True, eq=False)
class Contestant:
    """One network of the comparison, as the Program that its library computes."""

    kind: RowKind
    label: str
    policy: Policy
    program: Program


def dense_row(evaluator: Evaluator) -> Row:
    """The network as it was given, in float32; it has no integer library."""
    network, splits = evaluator.problem.given, evaluator.problem.splits
    measure = evaluator.problem.metric.measure
    test, search = (measure(evaluator.dense_answers(images)) for images in (splits.test, splits.search))
    return Row(
        kind="dense_float32",
        label="dense float32",
        **_found(test),
        images=len(splits.test),
        search_quality=search.value,
        size_bytes=4 * network.parameters,
        macs=network.macs,
    )


def measured_rows(
    evaluator: Evaluator, contestants: Sequence[Contestant], artifacts: Sequence[Artifact]
) -> tuple[Row, ...]:
    """A row for each contestant, from its compiled library in `artifacts`."""
    problem = evaluator.problem
    timings, rows = _timings(problem, artifacts), []
    for contestant, timing in zip(contestants, timings, strict=True):
        metrics = evaluator.judge(contestant.program, contestant.policy, "search")
        found = problem.metric.measure(evaluator.answers(contestant.program, "test"))
        rows.append(
            Row(
                kind=contestant.kind,
                label=contestant.label,
                **_found(found),
                images=len(problem.splits.test),
                search_quality=metrics.quality,
                latency_ms=metrics.latency_ms,
                measured=timing,
                energy_mj=metrics.energy_mj,
                size_bytes=metrics.size_bytes,
                peak_memory_bytes=metrics.peak_memory_bytes,
                macs=metrics.macs,
            )
        )
    return tuple(rows)


def _found(estimate: Estimate) -> dict[str, Any]:
    """What a row says of its quality."""
    return {
        "quality": estimate.value,
        "lower": estimate.lower,
        "upper": estimate.upper,
        "interval": estimate.method,
    }


def _timings(problem: Problem, artifacts: Sequence[Artifact]) -> Sequence[Timing | None]:
    """The libraries' latencies on this machine left alone, by the method that fills latency tables.

    None of libraries for another processor than this machine's.
    """
    if not runs_here(find_target(problem.target)):
        return [None] * len(artifacts)
    folder = cache_directory() / "reference" / problem.target
    reference = Reference(problem.target, folder, known_reference_ms(problem.pricing))
    ratios = [reference.time_whole(artifact.load()) for artifact in artifacts]
    quiet_ms = reference.quiet_ms
    return [
        Timing(
            median_ms=timing.ratio * quiet_ms,
            lower_ms=max(timing.ratio - timing.spread / 2, timing.ratio / 2) * quiet_ms,
            upper_ms=(timing.ratio + timing.spread / 2) * quiet_ms,
            repeats=timing.count,
        )
        for timing in ratios
    ]


def layer_rows(problem: Problem, final: Contestant, artifact: Artifact) -> tuple[LayerRow, ...]:
    """The delivered network's layers with weights, beside what they were.

    A layer that became several convolutions is named by the last of them, and counts what all of them take.
    """
    choices = {choice["tensor"]: choice for choice in artifact.manifest["operations"]}
    latencies, dense_latencies = (_layer_latencies(problem, policy) for policy in (final.policy, problem.dense))
    owner = problem.network.fused_sums
    layers = {layer.name: layer for layer in problem.given.convs}
    rows = []
    macs = size_bytes = 0
    for operation in final.program.operations:
        if not isinstance(operation, Convolve):
            continue
        chosen = choices[operation.target]
        macs += final.program.macs_of(operation)
        size_bytes += chosen["weight_bytes"]
        layer = layers.get(owner.get(operation.target, operation.target))
        if layer is None:
            continue  # a step on the way to the layer's own tensor
        tensor = final.program.tensors.get(operation.target)
        rows.append(
            LayerRow(
                name=layer.name,
                kind=layer.kind,
                channels=layer.shape[0],
                kept_channels=operation.outputs,
                method=final.policy.choice(layer.name).method,
                weight_bits=operation.weight_bits,
                activation_bits=None if tensor is None else tensor.bits,
                macs=macs,
                size_bytes=size_bytes,
                latency_ms=latencies.get(layer.name),
                dense_latency_ms=dense_latencies.get(layer.name),
                kernel=chosen["kernel"],
            )
        )
        macs = size_bytes = 0
    return tuple(rows)


def _layer_latencies(problem: Problem, policy: Policy) -> dict[str, float]:
    """What the cost model says of each layer; nothing where prices are made up otherwise."""
    if not isinstance(problem.pricing, CostModel):
        return {}
    return {layer: price.latency_ms for layer, price in problem.pricing.layer_prices(policy).items()}
