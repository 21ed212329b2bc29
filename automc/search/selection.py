"""Which of all trials is the winner: the best of the search, judged again on images that no search has seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from automc.compression.policy import Policy
from automc.environment.evaluator import Evaluator
from automc.environment.metrics import Metrics
from automc.environment.problem import Problem
from automc.errors import EvaluationFailed
from automc.files import canonical_json, sha256_of, write_atomic
from automc.reporting import Report
from automc.search.pareto import pareto_front, thinned
from automc.search.trials import Trial, begun_logs, read_log

_FOLDS = 5  # of the selection images
_LEAST_IMAGES = 50  # of which folds are made


@dataclass(frozen=True)
class Candidate:
    """A trial that may be the winner, and the study that it is of."""

    searcher: str
    seed: int
    trial: Trial


@dataclass(frozen=True)
class Winner:
    """The chosen candidate, its metrics on the selection split, and of how many it is the best.

    `expected_quality` is what it may be worth on other images, without the luck of having been the best on these; None
    where these are too few to tell. `latencies` are the predicted and the measured milliseconds of the candidates that
    were timed, the winner's among them.
    """

    candidate: Candidate
    metrics: Metrics
    expected_quality: float | None
    candidates: int
    latencies: tuple[tuple[float, float], ...] = ()


def best_candidates(problem: Problem, folder: Path, count: int) -> list[Candidate]:
    """The `count` best-rewarded trials of all studies in `folder`, each policy once, the best first.

    Under a hard goal only trials that keep every limit. Raises `EvaluationFailed` where there is none.
    """
    candidates = sorted(_candidates(problem, folder), key=lambda candidate: -candidate.trial.reward)
    unique: dict[str, Candidate] = {}
    for candidate in candidates:
        unique.setdefault(candidate.trial.policy.fingerprint, candidate)
    return list(unique.values())[:count]


def front_candidates(problem: Problem, folder: Path, count: int) -> list[Candidate]:
    """Of the trials of all studies in `folder`, those that no other beats, at most `count`, the cheapest first.

    They are compared by their quality on the search split and the first cost that the goal limits; where there are more
    of them, those are left out without which the front covers almost as much. Raises as `best_candidates`.
    """
    candidates = _candidates(problem, folder)
    metric, column = next(iter(problem.limits.costs)), problem.metric.reading.column
    cost, quality = (
        np.array([candidate.trial.metrics[name] for candidate in candidates], np.float64) for name in (metric, column)
    )
    front = pareto_front(cost, quality)
    return [candidates[front[index]] for index in thinned(cost[front], quality[front], count)]


def _candidates(problem: Problem, folder: Path) -> list[Candidate]:
    """Every trial of the studies in `folder` that may be delivered. Raises `EvaluationFailed` where there is none."""
    found, failure = [], "no trial was made"
    for path in begun_logs(folder, "*-*"):
        header, trials = read_log(path)
        for trial in trials:
            if trial.complete and _is_within(problem, trial):
                found.append(Candidate(header["searcher"], header["seed"], trial))
            failure = trial.reason or failure
    if not found:
        raise EvaluationFailed(f"{folder}: there is no policy to deliver: {failure}")
    return found


def _is_within(problem: Problem, trial: Trial) -> bool:
    """Whether a trial keeps every limit that is hard, also by the size that its Program turned out to have."""
    limits, cost = problem.limits, problem.cost(trial.policy)
    return not limits.broken(cost) and not limits.broken(replace(cost, size_bytes=trial.metrics["size_bytes"]))


def select(evaluator: Evaluator, candidates: list[Candidate], path: Path, report: Report) -> Winner:
    """The candidate with the best reward on the selection split, at the evaluator's fidelity; the first of equals.

    Coded weights may take more at this fidelity than at the search's: what breaks a hard limit is passed over. What
    is known is kept in `path`, so that the same call goes on where it was stopped. Raises `EvaluationFailed` where no
    candidate is left.
    """
    problem, reading = evaluator.problem, evaluator.problem.metric.reading
    asked = {"identity": dict(problem.identity), "fidelity": evaluator.fidelity, "timed": _times(evaluator)}
    key = sha256_of(canonical_json(asked).encode())
    known = _known(path, key)
    judged: list[_Judged] = []
    refusal = ""
    for number, candidate in enumerate(candidates, start=1):
        name = candidate.trial.policy.fingerprint
        try:
            if name not in known:
                known[name] = _judge(evaluator, candidate.trial.policy)
                write_atomic(path, canonical_json({"key": key, "judged": known}) + "\n")
            one = _Judged(problem, candidate, known[name])
            if broken := problem.limits.broken(one.metrics):
                raise EvaluationFailed(broken)
        except EvaluationFailed as failure:
            refusal = str(failure)
            report(f"selection: candidate {number}/{len(candidates)} cannot be delivered: {refusal}")
            continue
        judged.append(one)
        found = f"{reading.title} {reading.show(one.metrics.quality)}"
        if (measured := one.metrics.measured_latency_ms) is not None:
            found += f", measured {measured:.4g} ms (predicted {one.metrics.latency_ms:.4g})"
        report(f"selection: candidate {number}/{len(candidates)}  {found}")
    if not judged:
        raise EvaluationFailed(f"{problem.name}: none of {len(candidates)} candidates can be delivered: {refusal}")
    winner = max(judged, key=lambda one: problem.reward(one.metrics))
    latencies = [(one.metrics.latency_ms, one.metrics.measured_latency_ms) for one in judged]
    return Winner(
        winner.candidate,
        winner.metrics,
        _expected_quality(problem, judged),
        len(candidates),
        tuple((predicted, measured) for predicted, measured in latencies if measured is not None),
    )


class _Judged:
    """A candidate, its metrics on the selection split, and for each fold those on the others and its quality there."""

    def __init__(self, problem: Problem, candidate: Candidate, record: Mapping[str, Any]) -> None:
        self.candidate = candidate
        self.metrics = Metrics.from_record(record["metrics"], problem.metric.reading.column)
        self.folds: list[tuple[Metrics, float]] = [
            (replace(self.metrics, quality=others, quality_loss=dense - others), held_out)
            for others, dense, held_out in record["folds"]
        ]


def _judge(evaluator: Evaluator, policy: Policy) -> dict[str, Any]:
    """The metrics on the selection split, and for each fold the quality on the others, the dense one's, and its own."""
    policy, measure = policy.normalised(evaluator.problem.network), evaluator.problem.metric.measure
    program = evaluator.program(policy)
    answers = evaluator.answers(program, "selection")
    metrics = evaluator.judge(program, policy, "selection", answers)
    if _times(evaluator):
        metrics = evaluator.timed(metrics, program)
    numbers, folds = np.arange(len(answers.images)), []
    for fold in range(_FOLDS if len(numbers) >= _LEAST_IMAGES else 0):
        others, own = (answers.take(numbers[chosen]) for chosen in (numbers % _FOLDS != fold, numbers % _FOLDS == fold))
        dense = replace(others, outputs=others.dense)
        folds.append([measure(part).value for part in (others, dense, own)])
    if not np.isfinite(folds).all():  # too few images of some kind to judge them by parts
        folds = []
    return {"metrics": metrics.to_record(), "folds": folds}


def _times(evaluator: Evaluator) -> bool:
    return evaluator.problem.spec.measure_every > 0


def _expected_quality(problem: Problem, judged: Sequence[_Judged]) -> float | None:
    """What the best of so many is worth on images that did not choose it: cross-validation of the choice.

    The best of many on some images owes a part of that to luck there. So each fold of the images judges the candidate
    that the other folds choose (Cawley and Talbot 2010, "On Over-fitting in Model Selection", section 5).
    """
    if not all(one.folds for one in judged):
        return None
    held_out = []
    for fold in range(_FOLDS):
        rewards = [problem.reward(one.folds[fold][0]) for one in judged]
        held_out.append(judged[int(np.argmax(rewards))].folds[fold][1])
    return float(np.mean(held_out))


def _known(path: Path, key: str) -> dict[str, dict[str, Any]]:
    """The metrics of what was judged before under the same key."""
    try:
        stored = json.loads(path.read_text())
        return dict(stored["judged"]) if stored["key"] == key else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # a memory only: what it does not know is judged again
