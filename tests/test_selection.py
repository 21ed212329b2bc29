"""Which trial wins: what may be a candidate, what is refused, and what the best of many is worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from automc.compression.policy import Policy
from automc.compression.program import Program
from automc.environment.evaluator import Evaluator
from automc.environment.quality import Answers
from automc.errors import EvaluationFailed
from automc.schema import GoalSpec
from automc.search.selection import Candidate, best_candidates, select
from automc.search.trials import Trial, TrialLog
from tests.problems import digits_problem, formula_metrics, half_sparse, size_of, tiny_problem


def test_the_best_of_many_is_corrected_for_having_been_picked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All candidates are right in half of the images, by a coin for each image: that the best has more is luck."""
    problem, coin = digits_problem(), np.random.default_rng(0)
    evaluator = Evaluator(problem, "sequential")
    images, labels = problem.splits.selection, problem.splits.selection.labels
    chosen = [coin.integers([len(one.choices) for one in problem.space.decisions]) for _ in range(16)]
    candidates = [
        Candidate("random", 0, Trial(number, problem.space.policy(tuple(map(int, choices))), {}, 0.0))
        for number, choices in enumerate(chosen)
    ]

    def answers(program: Program, split: str) -> Answers:
        named = np.where(coin.random(len(images)) < 0.5, labels, (labels + 1) % 10)
        outputs = np.eye(10, dtype=np.float32)[named]
        return Answers(images, outputs, outputs)

    whole = evaluator.program(Policy())
    monkeypatch.setattr(evaluator, "answers", answers)
    monkeypatch.setattr(evaluator, "program", lambda policy: whole)
    winners = [select(evaluator, candidates, tmp_path / str(number), lambda line: None) for number in range(12)]
    assert np.mean([winner.metrics.quality for winner in winners]) > 0.57
    assert abs(np.mean([winner.expected_quality for winner in winners]) - 0.5) < 0.04


def test_a_candidate_that_is_larger_than_a_hard_limit_never_wins(tmp_path: Path) -> None:
    plain = digits_problem()
    policies = half_sparse(plain, 1.0), half_sparse(plain, 0.25)
    size = size_of(plain, policies[0])
    problem = digits_problem(goal=GoalSpec(reward="fastest", limits={"size_bytes": size - 1}))
    evaluator = Evaluator(problem, "sequential")
    large, lossy = (Candidate("random", 0, Trial(*trial, {}, 0.0)) for trial in enumerate(policies))
    rewards = [problem.reward(evaluator.evaluate(policy, "selection")) for policy in policies]
    assert rewards[1] < rewards[0] < 0
    lines: list[str] = []
    assert select(evaluator, [large, lossy], tmp_path / "selection.json", lines.append).candidate is lossy
    assert lines[0].endswith(f"1/2 cannot be delivered: size_bytes is {size}, above the limit of {size - 1}")
    with pytest.raises(EvaluationFailed, match="none of 1 candidates can be delivered: size_bytes is"):
        select(evaluator, [large], tmp_path / "selection.json", lines.append)


def test_a_run_without_a_complete_trial_delivers_nothing(tmp_path: Path) -> None:
    problem = digits_problem()
    with pytest.raises(EvaluationFailed, match="no trial was made"):
        best_candidates(problem, tmp_path, 3)
    with TrialLog(tmp_path / "random-0", {"searcher": "random", "seed": 0}, pytest.fail) as log:
        log.append(Trial(0, Policy(), {}, -1.0, "failed", "accuracy is nan"))
    with pytest.raises(EvaluationFailed, match="accuracy is nan"):
        best_candidates(problem, tmp_path, 3)


def test_a_trial_whose_program_was_too_large_is_not_delivered(tmp_path: Path) -> None:
    problem = tiny_problem(GoalSpec(limits={"size_bytes": "60%"}))
    policy = problem.space.policy(problem.cheapest)
    metrics = formula_metrics(problem, policy)
    with TrialLog(tmp_path / "random-0", {"searcher": "random", "seed": 0}, pytest.fail) as log:
        log.append(Trial(0, policy, metrics.to_record(), 0.5))
        log.append(Trial(1, policy, replace(metrics, size_bytes=problem.dense_cost.size_bytes).to_record(), 0.6))
    assert [candidate.trial.number for candidate in best_candidates(problem, tmp_path, 3)] == [0]
