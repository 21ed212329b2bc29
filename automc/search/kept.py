"""Networks beside a winner as verified libraries: the best so far of a search that was stopped, and a front."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from automc.compiler.artifact import compile_program, open_artifact
from automc.compiler.verify import verify
from automc.compression.program import Program
from automc.environment.evaluator import Evaluator
from automc.environment.problem import Problem
from automc.errors import EvaluationFailed, InputError
from automc.files import canonical_json, locked, write_atomic
from automc.reporting import Report
from automc.search.deliver import is_delivered
from automc.search.selection import Candidate, best_candidates, front_candidates
from automc.search.trials import begun_logs

_LOGGER = logging.getLogger(__name__)
BEST_NAME, FRONT_NAME = "best", "front"
INDEX_NAME = "index.csv"
_SCRATCH = ".building-"  # how the folders begin in which something is built or removed
_IMAGES = 20  # that a library is verified on; a delivered winner sees all test images


def keep_best(problem: Problem, folder: Path, count: int = 3, report: Report = _LOGGER.info) -> list[Path]:
    """Keep the `count` best trials so far of all studies in `folder` as verified libraries in `folder/best`.

    Under a hard goal only policies that keep every limit. They are prepared sequentially, and neither selected on other
    images nor fine-tuned: that is for `deliver`. Raises and answers as `keep`, `EvaluationFailed` without any policy.
    """
    return keep(problem, best_candidates(problem, folder, count), folder / BEST_NAME, report)


def keep_undelivered(problem: Problem, folder: Path, report: Report = _LOGGER.info) -> None:
    """`keep_best` of a run that ends before its delivery; nothing where no trial was made, or the winner stands."""
    try:
        if begun_logs(folder, "*-*") and not is_delivered(problem, folder):
            keep_best(problem, folder, report=report)
    except EvaluationFailed as failure:
        report(str(failure))


def keep_front(problem: Problem, folder: Path, count: int, report: Report = _LOGGER.info) -> list[Path]:
    """Keep the front of all studies in `folder`, at most `count` trials, as verified libraries in `folder/front`.

    The cheapest comes first. They are prepared as those of `keep_best` are, and answers and errors are the same.
    """
    return keep(problem, front_candidates(problem, folder, count), folder / FRONT_NAME, report)


def keep(problem: Problem, candidates: list[Candidate], folder: Path, report: Report) -> list[Path]:
    """Make `folder` hold a verified library of each candidate, and no other; their folders, in the same order.

    Such a folder, `<searcher>-<seed>-<trial>`, has `policy.json`, `program.safetensors`, the `library`, and
    `trial.json`: what the search saw, the size and memory of what stands there, and its quality on the selection
    images, which chose nothing. `index.csv` says the same of all. A folder is built elsewhere and moved here when its
    library is verified, and what was here before goes when all are there: a process that is killed at any moment leaves
    whole libraries. One that is here already is not built again, and of several processes each waits for the one
    before.

    A candidate that cannot be prepared, or whose weights then take more than a hard limit, is passed over. Raises
    `EvaluationFailed` where none is left, `VerificationError` where a library computes something else, and as
    `compile_program`.
    """
    evaluator = Evaluator(problem, "sequential")
    records: dict[str, dict[str, Any]] = {}
    refusal = ""
    with locked(folder / ".lock", lambda: report(f"{folder}: waiting for the process that builds here")):
        for left in folder.glob(f"{_SCRATCH}*"):  # by a process that was killed
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder) as scratch:
            for candidate in candidates:
                name = f"{candidate.searcher}-{candidate.seed}-{candidate.trial.number}"
                try:
                    records[name] = _kept(evaluator, candidate, folder / name, Path(scratch, name))
                except EvaluationFailed as failure:
                    refusal = str(failure)
                    report(f"trial {name} cannot be kept: {refusal}")
                    continue
                report(f"kept trial {name}: reward {candidate.trial.reward:.4f}, {folder / name}")
            if not records:
                raise EvaluationFailed(f"{problem.name}: none of {len(candidates)} policies can be kept: {refusal}")
            write_atomic(folder / INDEX_NAME, _table([{"folder": name, **record} for name, record in records.items()]))
            for other in folder.iterdir():
                if other.is_dir() and not other.name.startswith(_SCRATCH) and other.name not in records:
                    _remove(other, Path(scratch))
    return [folder / name for name in records]


def read_index(folder: Path) -> tuple[dict[str, str], ...]:
    """What the index of a folder that `keep` made says, a row a network; none where there is no such folder."""
    if not (folder / INDEX_NAME).is_file():
        return ()
    with (folder / INDEX_NAME).open(encoding="utf-8", newline="") as stream:
        return tuple(csv.DictReader(stream))


def _kept(evaluator: Evaluator, candidate: Candidate, place: Path, building: Path) -> dict[str, Any]:
    """What is known of a candidate whose verified library stands in `place`, at the latest when this is answered."""
    program = evaluator.program(candidate.trial.policy)
    known = _record(place, program, evaluator.problem.target)
    if known is not None:
        return known
    record = _build(evaluator, candidate, program, building)
    if place.exists():  # damaged, or of other logs
        _remove(place, building.parent)
    os.rename(building, place)
    return record


def _record(place: Path, program: Program, target: str) -> dict[str, Any] | None:
    """What is known of the network in `place`; None where it is not this one, or not whole."""
    try:
        library = open_artifact(place / "library")
        record: dict[str, Any] = json.loads((place / "trial.json").read_text())
    except (InputError, OSError, ValueError):  # nothing was built here, or it is damaged
        return None
    return record if (library.manifest["program"], library.target) == (program.fingerprint, target) else None


def _build(evaluator: Evaluator, candidate: Candidate, program: Program, folder: Path) -> dict[str, Any]:
    problem, trial, column = evaluator.problem, candidate.trial, evaluator.problem.metric.reading.column
    answers = evaluator.answers(program, "selection")
    metrics = evaluator.judge(program, trial.policy, "selection", answers)
    if broken := problem.limits.broken(metrics):
        raise EvaluationFailed(broken)
    library = compile_program(program, problem.target, folder / "library")
    verify(library, program, problem.splits.selection.pixels[:_IMAGES]).require_equal()
    program.save(folder / "program.safetensors")
    write_atomic(folder / "policy.json", trial.policy.to_json())
    found = problem.metric.measure(answers)
    record = {
        "searcher": candidate.searcher,
        "seed": candidate.seed,
        "trial": trial.number,
        "reward": trial.reward,
        **trial.metrics,
        "size_bytes": metrics.size_bytes,
        "peak_memory_bytes": metrics.peak_memory_bytes,
        f"selection_{column}": found.value,
        f"selection_{column}_lower": found.lower,
        f"selection_{column}_upper": found.upper,
    }
    write_atomic(folder / "trial.json", canonical_json(record) + "\n")
    return record


def _remove(folder: Path, scratch: Path) -> None:
    """Nothing half removed is ever seen."""
    os.rename(folder, Path(tempfile.mkdtemp(dir=scratch), folder.name))


def _table(records: list[dict[str, Any]]) -> str:
    """Records as CSV; a column that one of them lacks is empty there."""
    text = io.StringIO()
    columns = dict.fromkeys(name for record in records for name in record)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**record, "notes": "; ".join(record["notes"])} for record in records)
    return text.getvalue()
