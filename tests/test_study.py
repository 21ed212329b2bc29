"""A study: its budget, its resumption by replay, and what becomes of failing evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automc.compression.policy import Policy
from automc.environment.metrics import Outcome
from automc.errors import BudgetSpent, EvaluationFailed, RunMismatch, StorageError
from automc.search.searchers.base import Evaluate
from automc.search.study import Progress, Study
from automc.search.trials import LOG_NAME, Trial, read_log

HEADER = {"searcher": "climber", "seed": 0}


class Climber:
    """Proposes a random change of the best so far: a function of its seed and of the answers."""

    def __init__(self, seed: int = 0, proposals: int = 1000) -> None:
        self.seed = seed
        self.proposals = proposals
        self.told: list[float] = []

    def run(self, evaluate: Callable[[Policy], Trial]) -> None:
        random = np.random.default_rng(self.seed)
        best, record = 0.5, -math.inf
        for _ in range(self.proposals):
            ratio = float(np.clip(best + random.normal(0, 0.1), 0.01, 1))
            reward = evaluate(Policy(keep_ratio={"conv1": ratio})).reward
            self.told.append(reward)
            if reward > record:
                best, record = ratio, reward

    def save(self, folder: Path, trials: Sequence[Trial]) -> None:
        (folder / "learned").write_text(str(len(self.told)))


def accuracy_of(policy: Policy) -> Outcome:
    accuracy = 1 - abs(policy.keep_ratio["conv1"] - 0.8)
    return Outcome({"accuracy": accuracy, "notes": []}, accuracy)


def study(folder: Path, trials: int = 20, searcher: Any = None, evaluate: Any = accuracy_of, **more: Any) -> Study:
    return Study(folder, HEADER, searcher or Climber(), evaluate, trials, **more)


def log_of(folder: Path) -> bytes:
    return (folder / LOG_NAME).read_bytes()


def test_a_study_spends_exactly_its_trials(tmp_path: Path) -> None:
    searcher = Climber()
    trials = study(tmp_path, 20, searcher).run()
    assert len(trials) == len(searcher.told) == 20
    assert read_log(tmp_path) == (HEADER, trials)
    assert (tmp_path / "learned").read_text() == "20"


def test_a_searcher_may_be_done_before_its_trials_are_spent(tmp_path: Path) -> None:
    assert len(study(tmp_path, 20, Climber(proposals=5)).run()) == 5


def test_a_searcher_that_asks_on_is_stopped_from_inside(tmp_path: Path) -> None:
    class Stubborn(Climber):
        def run(self, evaluate: Callable[[Policy], Trial]) -> None:
            with pytest.raises(BudgetSpent, match="all 3 trials"):
                super().run(evaluate)

    assert len(study(tmp_path, 3, Stubborn()).run()) == 3


def test_a_rerun_answers_from_the_log_and_computes_nothing(tmp_path: Path) -> None:
    first = study(tmp_path).run()
    before = log_of(tmp_path)
    assert study(tmp_path, evaluate=lambda policy: pytest.fail("evaluated again")).run() == first
    assert log_of(tmp_path) == before


def test_interruptions_at_every_trial_do_not_change_the_log(tmp_path: Path) -> None:
    study(tmp_path / "whole", 12).run()

    class Interrupted:
        def __init__(self, after: int) -> None:
            self.left = after

        def __call__(self, policy: Policy) -> Outcome:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            return accuracy_of(policy)

    for after in range(4):
        folder = tmp_path / str(after)
        for _ in range(12 // (after + 1)):
            with pytest.raises(KeyboardInterrupt):
                study(folder, 13, evaluate=Interrupted(after)).run()
        study(folder, 12).run()
        assert log_of(folder) == log_of(tmp_path / "whole")


def test_more_trials_go_on_with_the_same_log_and_fewer_read_its_beginning(tmp_path: Path) -> None:
    study(tmp_path / "whole", 20).run()
    study(tmp_path / "grown", 7).run()
    study(tmp_path / "grown", 20).run()
    assert log_of(tmp_path / "grown") == log_of(tmp_path / "whole")
    assert len(study(tmp_path / "whole", 7).run()) == 7


def test_a_replay_that_diverges_is_refused(tmp_path: Path) -> None:
    study(tmp_path).run()
    before = log_of(tmp_path)
    with pytest.raises(RunMismatch, match="replay diverged at trial 0"):
        study(tmp_path, searcher=Climber(seed=1)).run()
    assert log_of(tmp_path) == before


class Generations(Climber):
    """Asks for five policies at once, which are drawn around the best of those before."""

    def run(self, evaluate: Evaluate) -> None:
        random = np.random.default_rng(self.seed)
        best = 0.5
        while True:
            drawn = np.round(np.clip(best + random.normal(0, 0.1, 5), 0.01, 1), 2)
            trials = list(evaluate.many(Policy(keep_ratio={"conv1": float(ratio)}) for ratio in drawn))
            best = max(trials, key=lambda trial: trial.reward).policy.keep_ratio["conv1"]


class Waiting:
    """A pool whose evaluations are made when somebody waits for them."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.begun: list[str] = []

    def begin(self, policy: Policy) -> Callable[[], Outcome]:
        self.begun.append(policy.fingerprint)
        return lambda: accuracy_of(policy)


@pytest.mark.parametrize("workers", [2, 3, 50])
def test_evaluations_side_by_side_write_the_same_log(tmp_path: Path, workers: int) -> None:
    alone = study(tmp_path / "alone", 33, Generations()).run()
    pool = Waiting(workers)

    def evaluate(policy: Policy) -> Outcome:
        pytest.fail("evaluated beside the pool")

    study(tmp_path / "pool", 12, Generations(), evaluate, pool=pool).run()
    assert len(pool.begun) <= 12  # nothing is begun that is no trial
    assert study(tmp_path / "pool", 33, Generations(), evaluate, pool=pool).run() == alone
    assert log_of(tmp_path / "pool") == log_of(tmp_path / "alone")
    assert len(pool.begun) == len(set(pool.begun)) == len({trial.policy.fingerprint for trial in alone})
    assert study(tmp_path / "pool", 40, Generations(), evaluate, pool=pool, seconds=-1.0).run() == alone


def test_evaluations_are_begun_no_further_ahead_than_there_are_workers(tmp_path: Path) -> None:
    pool = Waiting(3)
    ahead = []

    class Endless(Climber):
        def run(self, evaluate: Evaluate) -> None:
            policies = (Policy(keep_ratio={"conv1": 1 / number}) for number in count(1))
            for answered, _ in enumerate(evaluate.many(policies), start=1):
                ahead.append(len(pool.begun) - answered)

    assert len(study(tmp_path, 10, Endless(), pool=pool).run()) == 10
    assert max(ahead) == 2


def test_a_policy_that_was_tried_before_is_a_trial_but_not_evaluated_again(tmp_path: Path) -> None:
    evaluated = []

    def evaluate(policy: Policy) -> Outcome:
        evaluated.append(policy.keep_ratio["conv1"])
        if policy.keep_ratio["conv1"] == 0.5:
            raise EvaluationFailed("cannot be judged")
        return accuracy_of(policy)

    class Stubborn(Climber):
        def run(self, ask: Callable[[Policy], Trial]) -> None:
            for ratio in (0.7, 0.5, 0.7, 0.25, 0.5, 0.7):
                ask(Policy(keep_ratio={"conv1": ratio}))

    study(tmp_path, 3, Stubborn(), evaluate).run()
    trials = study(tmp_path, 10, Stubborn(), evaluate).run()
    assert evaluated == [0.7, 0.5, 0.25]
    assert [trial.number for trial in trials] == list(range(6))
    assert trials[0].metrics == trials[2].metrics == trials[5].metrics
    assert [trial.complete for trial in trials] == [True, False, True, True, False, True]
    assert trials[4].reason == trials[1].reason
    assert trials[4].reward == trials[3].reward  # the worst so far


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["reward", "accuracy"])
def test_a_number_that_is_not_finite_fails_its_trial_only(tmp_path: Path, value: float, place: str) -> None:
    def evaluate(policy: Policy) -> Outcome:
        outcome = accuracy_of(policy)
        if outcome.reward >= 0.75:
            return outcome
        return Outcome(outcome.metrics, value) if place == "reward" else Outcome({"accuracy": value}, outcome.reward)

    searcher = Climber()
    trials = study(tmp_path, searcher=searcher, evaluate=evaluate).run()
    failed = [trial for trial in trials if not trial.complete]
    assert 0 < len(failed) < len(trials)
    assert failed[0].reason == f"{place} is {value}"
    assert all(math.isfinite(reward) for reward in searcher.told)
    study(tmp_path, evaluate=lambda policy: pytest.fail("evaluated again")).run()


def test_a_failing_evaluation_is_told_as_the_worst_reward_so_far(tmp_path: Path) -> None:
    rewards = iter([0.7, 0.4, None, 0.6, None])

    def evaluate(policy: Policy) -> Outcome:
        reward = next(rewards)
        if reward is None:
            raise EvaluationFailed("the network cannot be judged")
        return Outcome({}, reward)

    searcher = Climber()
    trials = study(tmp_path, 5, searcher, evaluate).run()
    assert searcher.told == [0.7, 0.4, 0.4, 0.6, 0.4]
    assert [trial.state for trial in trials] == ["complete", "complete", "failed", "complete", "failed"]
    assert trials[2].reason == "EvaluationFailed: the network cannot be judged"
    assert trials[2].metrics == {}


def test_a_failure_before_any_success_is_below_every_success(tmp_path: Path) -> None:
    answers = iter([False, True])

    def evaluate(policy: Policy) -> Outcome:
        if next(answers):
            return Outcome({}, 0.0)
        raise EvaluationFailed("no")

    trials = study(tmp_path, 2, evaluate=evaluate).run()
    assert trials[0].reward < trials[1].reward


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), StorageError("disk full")])
def test_other_exceptions_end_the_run_and_leave_the_log_whole(tmp_path: Path, error: Exception) -> None:
    calls = iter(range(100))

    def evaluate(policy: Policy) -> Outcome:
        if next(calls) == 3:
            raise error
        return accuracy_of(policy)

    with pytest.raises(type(error)):
        study(tmp_path, evaluate=evaluate).run()
    assert len(read_log(tmp_path)[1]) == 3
    assert len(study(tmp_path).run()) == 20


def test_time_stops_between_trials_and_decides_nothing(tmp_path: Path) -> None:
    study(tmp_path / "whole").run()
    assert study(tmp_path / "timed", seconds=-1.0).run() == []
    study(tmp_path / "timed", 5).run()
    assert len(study(tmp_path / "timed", seconds=-1.0).run()) == 5  # what is logged is replayed all the same
    study(tmp_path / "timed").run()
    assert log_of(tmp_path / "timed") == log_of(tmp_path / "whole")


def test_every_trial_is_reported_with_the_best_so_far(tmp_path: Path) -> None:
    study(tmp_path, 4).run()
    seen: list[Progress] = []
    trials = study(tmp_path, 8, report=seen.append).run()
    assert [progress.trial for progress in seen] == trials
    assert [progress.replayed for progress in seen] == [True] * 4 + [False] * 4
    assert [progress.best for progress in seen] == [
        max(trials[: number + 1], key=lambda trial: trial.reward) for number in range(8)
    ]
    assert {progress.trials for progress in seen} == {8}


def test_times_stand_beside_the_log(tmp_path: Path) -> None:
    study(tmp_path, 3).run()
    study(tmp_path, 5).run()
    lines = (tmp_path / "times.csv").read_text().splitlines()
    assert lines[0] == "trial,evaluation_s,search_s"
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "1", "2", "3", "4"]
