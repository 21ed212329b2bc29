"""What the report says in words: what was achieved, whether it is verified, how it was measured, what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from automc.analysis.figures import LearningFigure, ParetoFigure
from automc.analysis.runs import Run, Task
from automc.analysis.units import QUANTITIES, digits
from automc.search.result import Result, Row


def summary(run: Run) -> str:
    """What the run was, in a line."""
    trials = sum(len(study.trials) for task in run.tasks for study in task.studies)
    studies = sum(len(task.studies) for task in run.tasks)
    return f"A run of automc: {_plural(trials, 'trial')} in {_plural(studies, 'study', 'studies')}"


def _plural(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def headline(result: Result) -> str:
    """What was achieved, in one sentence that a person understands."""
    row = result.delivered
    gains = " and ".join(_gains(result, row))
    reading = result.metric
    answer = f"its {reading.title} on the test images is {reading.show(row.quality)}"
    dense = result.row("dense_float32") or result.row("dense_int8")
    if dense is not None:
        lost = dense.quality - row.quality
        change = f"{reading.points(lost)} {'less' if lost > 0 else 'more'} than that"
        equal = reading.number(row.quality) == reading.number(dense.quality)
        answer += f", {'the same as that' if equal else change} of the {dense.label} network"
    return f"{result.network} on {result.dataset} now needs {gains}; {answer}."


def _gains(result: Result, row: Row) -> Iterator[str]:
    """As in "0.211 ms instead of 0.420 ms (2.0 times less than dense int8, measured)"."""
    before = result.row("dense_int8")
    if before is not None and row.measured is not None and before.measured is not None:
        yield _gain(row.measured.median_ms, before.measured.median_ms, "latency_ms", f"{before.label}, measured")
    elif before is not None and row.latency_ms is not None and before.latency_ms is not None:
        yield _gain(row.latency_ms, before.latency_ms, "latency_ms", f"{before.label}, predicted")
    whole = result.row("dense_float32") or before
    if whole is not None:
        yield _gain(row.size_bytes, whole.size_bytes, "size_bytes", whole.label)
    else:
        yield QUANTITIES["size_bytes"].show(row.size_bytes)


def _gain(after: float, before: float, metric: str, what: str) -> str:
    quantity = QUANTITIES[metric]
    times = f"{before / after:.1f} times less than {what}" if before > after else f"no less than {what}"
    return f"{quantity.show(after)} instead of {quantity.show(before)} ({times})"


def verification(result: Result) -> str:
    """Whether the library computes what was searched."""
    check = result.verification
    counts = f"{check.images:,} images, {check.different_logits:,} of {check.logits:,} output values differ"
    if check.different_logits:
        return f"Verification failed: {counts} from the reference interpreter's. Do not use this library."
    return f"Verified: {counts} from the reference interpreter's."


def method(task: Task) -> list[tuple[str, str]]:
    """How the numbers were obtained, as pairs of a topic and what is to be said about it."""
    trials = [("Trials", _trials(task)), *_timed(task)] if task.studies else []
    if (result := task.result) is None:
        return trials
    epochs = f"epochs: {result.finetuning_epochs:g}; in the program's own integer arithmetic"
    return [
        ("Goal", result.goal),
        ("Images", _splits(result)),
        ("Winner", _selection(result)),
        *trials,
        *_candidates(result),
        *([("Fine-tuning", epochs)] if result.finetuning_epochs else []),
        ("Latency", _latency(result)),
        ("Energy", result.energy_source or "no energy model for this device"),
        *([("Intervals", _intervals(result))] if result.delivered.interval else []),
        ("Device", f"{result.device}, instruction set {result.target}, compiled by {result.compiler}"),
        ("Versions", _pairs(result.versions.items())),
        ("SHA-256", _pairs((name, value[:16]) for name, value in result.hashes.items())),
        *(("Note", note) for note in result.notes),
    ]


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(pairs))


def _intervals(result: Result) -> str:
    return (
        f"95 % intervals of each {result.metric.title} by itself ({result.delivered.interval}); all networks saw the "
        "same test images"
    )


def _splits(result: Result) -> str:
    sizes = result.splits
    text = (
        f"{sizes.search:,} for the search, {sizes.selection:,} to select the winner, {sizes.test:,} for this report's "
        f"{result.metric.title}; the three are disjoint. "
    )
    if sizes.carved_from == "train":
        return text + "The first two come from the official training images and were not trained on."
    return text + (
        "Training images say little of a network that may know them by heart, so the first two were carved out of the "
        f"official test images: the test {result.metric.title} here is on the rest of them."
    )


def _selection(result: Result) -> str:
    chosen, reading = result.selection, result.metric
    corrected = "" if chosen.expected_quality is None else (
        f" (corrected for having been picked, by cross-validation: {reading.show(chosen.expected_quality)})"
    )  # fmt: skip
    return (
        f"trial {chosen.trial} of {chosen.searcher} with seed {chosen.seed}: {reading.show(chosen.search_quality)} on "
        f"the search images; on the selection images, the best of {chosen.candidates} candidates with "
        f"{reading.show(chosen.selection_quality)}, which flatters it{corrected}; the test images were used once, here"
    )


def _trials(task: Task) -> str:
    total = sum(len(study.trials) for study in task.studies)
    failed = sum(study.failed for study in task.studies)
    seeds: dict[str, list[str]] = {}
    for study in task.studies:
        seeds.setdefault(study.searcher, []).append(str(study.seed))
    studies = ", ".join(f"{name} (seed {' '.join(numbers)})" for name, numbers in seeds.items())
    return f"{total:,} evaluated policies, {failed:,} of them failed; by {studies}"


def _timed(task: Task) -> Iterator[tuple[str, str]]:
    """How far the table was from the trials that were compiled and timed, where any were."""
    found = [study.column("latency_ms") / study.column("measured_latency_ms") - 1 for study in task.studies]
    errors = np.abs(np.concatenate(found))
    errors = errors[np.isfinite(errors)]
    if len(errors):
        yield (
            "Table",
            f"{_plural(len(errors), 'trial was', 'trials were')} compiled and timed: predicted latency is off by "
            f"{errors.mean():.1%} on average, {errors.max():.1%} at most",
        )


def _candidates(result: Result) -> Iterator[tuple[str, str]]:
    """What the table predicted of the candidates for the winner, and what they took, where they were timed."""
    if found := result.selection.latencies:
        pairs = (f"{digits(measured)} ({digits(predicted)})" for predicted, measured in sorted(found))
        yield "Candidates", f"measured (predicted) latency before fine-tuning, ms: {', '.join(pairs)}"


def _latency(result: Result) -> str:
    text = f"predicted: {result.latency_source}"
    if result.interpolated:
        names = ", ".join(result.interpolated)
        text += f"; not in the table and therefore interpolated: {names}"
    timing = result.delivered.measured
    if timing is None:
        return text + "; not measured"
    return text + (
        f"; measured: the compiled library on one image at a time, median of {timing.repeats} runs, the middle half "
        f"of which took {digits(timing.lower_ms)} to {digits(timing.upper_ms)} ms"
    )


def pareto_caption(data: ParetoFigure) -> str:
    """What the reader of the front sees, and what is left out of it."""
    text = (
        "Every trial is a small mark, and each line joins the trials of one searcher that none of its others beats. "
        f"Every {data.reading.title} here is on the search images, so that trials and networks can be compared; the "
        "best of many trials is flattered by luck. The table above has those on the test images."
    )
    return text + _below(data.hidden)


def front_caption(task: Task) -> str:
    """What the networks of a delivered front are, and what was not done for them."""
    return (
        f"Beside the winner, {_plural(len(task.front), 'network')} that no other trial beats, each compiled and "
        f"verified. They were chosen by their {task.reading.title} on the search images; those here are on images that "
        "chose none of them. They are as they were searched, without fine-tuning, and were asked no test image."
    )


def _below(hidden: int) -> str:
    match hidden:
        case 0:
            return ""
        case 1:
            return " One trial lies below the axis and is not shown."
        case _:
            return f" {hidden} trials lie below the axis and are not shown."


def learning_caption(data: LearningFigure) -> str:
    """How the curves are to be read."""
    seeds = max(curve.seeds for curve in data.curves)
    text = "The best reward found so far"
    text += ", interquartile mean over seeds, in a band of its 95 % bootstrap interval." if seeds > 1 else "."
    text += _below(data.hidden)
    return text + (f" {data.failed} failed trials are left out." if data.failed else "")


def next_steps(task: Task, run_folder: Path) -> list[tuple[str, str]]:
    """Commands and code that go on from here, as pairs of what for and how."""
    if (result := task.result) is None:
        return []
    winner = str(task.winner_folder.relative_to(run_folder))
    artifact = str(task.winner_folder.relative_to(run_folder) / result.artifact)
    check = shlex.join(["automc", "verify", artifact, "--env", task.environment])
    build = shlex.join(["automc", "compile", winner, "--target", "portable", "--out", "portable"])
    return [
        ("Verify the library again on this machine (from the run's folder)", check),
        ("Build it for another target", build),
        ("Use it from Python", _PYTHON.replace("ARTIFACT", repr(artifact))),
        ("Use it from C, with model.h and libmodel.a of that folder", _C.replace("PREFIX", result.prefix)),
    ]


_PYTHON = """\
from pathlib import Path
from automc.compiler.artifact import open_artifact

library = open_artifact(Path(ARTIFACT)).load()
outputs = library.run(pixels)  # uint8, images x height x width x channels"""

_C = """\
#include "model.h"

static _Alignas(PREFIX_ARENA_ALIGNMENT) uint8_t arena[PREFIX_ARENA_BYTES];

int infer(const uint8_t pixels[PREFIX_INPUT_BYTES], float outputs[PREFIX_OUTPUTS]) {
    int refusal = PREFIX_init(arena);  /* 0, or why it cannot run on this processor */
    if (refusal) return refusal;
    PREFIX_input(arena, pixels);
    PREFIX_invoke(arena);
    PREFIX_output(arena, outputs);
    return 0;
}"""
