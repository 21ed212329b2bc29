"""Which of all trials is the winner: the best of the search, judged again on images that no search has seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from automc.environment.evaluator import Evaluator
from automc.environment.metrics import Metrics
from automc.environment.problem import Problem
from automc.errors import EvaluationFailed
from automc.files import canonical_json, sha256_of, write_atomic
from automc.search.trials import LOG_NAME, Trial, read_log

Report = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """A trial that may be the winner, and the study that it is of."""

    searcher: str
    seed: int
    trial: Trial


@dataclass(frozen=True)
class Winner:
    """The chosen candidate, its metrics on the selection split, and of how many it is the best."""

    candidate: Candidate
    metrics: Metrics
    candidates: int


def best_candidates(problem: Problem, folder: Path, count: int) -> list[Candidate]:
    """The `count` best-rewarded trials of all studies in `folder`, each policy once, the best first.

    Under a hard goal only trials that keep every limit. Raises `EvaluationFailed` where there is none.
    """
    found, failure = [], "no trial was made"
    for path in sorted(folder.glob(f"*-*/{LOG_NAME}")):
        header, trials = read_log(path)
        for trial in trials:
            if trial.complete and (not problem.limits.hard or problem.limits.fits(problem.cost(trial.policy))):
                found.append(Candidate(header["searcher"], header["seed"], trial))
            failure = trial.reason or failure
    if not found:
        raise EvaluationFailed(f"{folder}: there is no policy to deliver: {failure}")
    found.sort(key=lambda candidate: -candidate.trial.reward)
    unique: dict[str, Candidate] = {}
    for candidate in found:
        unique.setdefault(candidate.trial.policy.fingerprint(), candidate)
    return list(unique.values())[:count]


def select(evaluator: Evaluator, candidates: list[Candidate], path: Path, report: Report) -> Winner:
    """The candidate with the best reward on the selection split, at the evaluator's fidelity; the first of equals.

    What is known is kept in `path`, so that the same call goes on where it was stopped. Raises `EvaluationFailed` where
    no candidate can be judged.
    """
    problem, reading = evaluator.problem, evaluator.problem.metric.reading
    key = sha256_of(canonical_json({"identity": dict(problem.identity), "fidelity": evaluator.fidelity}).encode())
    known = _known(path, key)
    judged: list[tuple[float, Candidate, Metrics]] = []
    for number, candidate in enumerate(candidates, start=1):
        name = candidate.trial.policy.fingerprint()
        if name not in known:
            try:
                known[name] = evaluator.evaluate(candidate.trial.policy, "selection").to_record()
            except EvaluationFailed as failure:
                report(f"selection: candidate {number}/{len(candidates)} cannot be judged: {failure}")
                continue
            write_atomic(path, canonical_json({"key": key, "metrics": known}) + "\n")
        metrics = Metrics.from_record(known[name], reading.column)
        judged.append((problem.reward(metrics), candidate, metrics))
        found = f"{reading.title} {reading.show(metrics.quality)}"
        report(f"selection: candidate {number}/{len(candidates)}  {found}")
    if not judged:
        raise EvaluationFailed(f"{problem.name}: no candidate can be judged on the selection split")
    _, candidate, metrics = max(judged, key=lambda one: one[0])
    return Winner(candidate, metrics, len(candidates))


def _known(path: Path, key: str) -> dict[str, dict[str, object]]:
    """The metrics of what was judged before under the same key."""
    try:
        stored = json.loads(path.read_text())
        return dict(stored["metrics"]) if stored["key"] == key else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # a memory only: what it does not know is judged again
