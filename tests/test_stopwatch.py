"""Policies that are compiled and timed during a search: an observation of their trials, logged once."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from automc.analysis.narrative import method
from automc.analysis.runs import Study as ReadStudy
from automc.analysis.runs import Task
from automc.compression.policy import Policy
from automc.cost.measure import processor
from automc.cost.model import CostModel
from automc.cost.table import LatencyTable
from automc.environment.evaluator import Evaluator
from automc.environment.loading import build_problem
from automc.environment.metrics import Metrics
from automc.environment.problem import Problem
from automc.environment.stopwatch import is_timed, known_reference_ms
from automc.errors import CompileError, ConfigError
from automc.network.datasets import load_dataset
from automc.network.trace import trace
from automc.schema import DataSpec, EnvironmentSpec
from automc.search.study import Study
from automc.search.trials import Trial, read_trials
from tests.problems import JOINT, macs_table, small_module


def timed_problem(measure_every: int, target: str = "portable") -> Problem:
    dataset = load_dataset("digits")
    data = DataSpec(name="digits", search=40, selection=40, calibration=64)
    spec = EnvironmentSpec(description="", network="small", data=data, measure_every=measure_every)
    table = macs_table(trace(small_module(), (1, 8, 8), dataset.mean, dataset.std, "small"))
    table = LatencyTable(replace(table.header, target=target), table.energy, table.rows)
    return build_problem("small", spec, small_module(), dataset, space=JOINT, table=table)


def test_one_in_so_many_is_timed_whatever_came_before() -> None:
    policies = [Policy(keep_ratio={"a": number / 1000}) for number in range(1, 601)]
    assert not any(is_timed(policy, 0) for policy in policies)
    assert all(is_timed(policy, 1) for policy in policies)
    assert 150 < sum(is_timed(policy, 3) for policy in policies) < 250


class Asking:
    """Asks for a few policies, one after the other."""

    def __init__(self, policies: list[Policy]) -> None:
        self.policies = policies

    def run(self, evaluate) -> None:
        for policy in self.policies:
            evaluate(policy)

    def save(self, folder: Path, trials: Sequence[Trial]) -> None:
        pass


def test_a_timed_trial_is_answered_from_the_log(tmp_path: Path) -> None:
    problem = timed_problem(1)
    policies = [problem.space.policy(problem.space.smallest()), Policy()]
    seen = []
    study = Study(tmp_path, {}, Asking(policies), Evaluator(problem).outcome, 2, lambda each: seen.append(each.trial))
    first = study.run()
    assert all(trial.metrics["measured_latency_ms"] > 0 for trial in first)
    assert all(trial.reward == problem.reward(Metrics.from_record(trial.metrics, "accuracy")) for trial in first)

    def never(policy: Policy):
        raise AssertionError("a policy was evaluated again")

    assert replace(study, evaluate=never).run() == first
    frame = read_trials(tmp_path)
    assert frame["measured_latency_ms"].tolist() == [trial.metrics["measured_latency_ms"] for trial in first]
    task = Task("small", (ReadStudy("asking", 0, frame),), None, tmp_path)
    worst = max(abs(trial.metrics["latency_ms"] / trial.metrics["measured_latency_ms"] - 1) for trial in first)
    assert "2 trials were compiled and timed" in dict(method(task))["Table"]
    assert f"{worst:.1%} at most" in dict(method(task))["Table"]


def test_where_nothing_is_timed_records_and_identity_are_as_without_it() -> None:
    plain, timing = timed_problem(0), timed_problem(10**80)
    assert plain.identity == timing.identity
    record = Evaluator(timing).evaluate(Policy()).to_record()
    assert record == Evaluator(plain).evaluate(Policy()).to_record()
    assert "measured_latency_ms" not in json.dumps(record)


def test_a_library_that_cannot_be_timed_is_noted_and_the_trial_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise CompileError("no compiler today")

    monkeypatch.setattr("automc.environment.stopwatch.compile_batch", fail)
    metrics = Evaluator(timed_problem(1)).evaluate(Policy())
    assert metrics.measured_latency_ms is None
    assert "not timed: no compiler today" in metrics.notes


def test_a_processor_that_is_not_here_cannot_be_timed() -> None:
    with pytest.raises(ConfigError, match="measure_every: this machine cannot run cortexm4"):
        timed_problem(5, "cortexm4")


def test_only_a_table_of_this_processor_says_what_the_reference_takes() -> None:
    network = trace(small_module(), (1, 8, 8), (0.5,), (0.5,), "small")
    table = macs_table(network)

    def known_ms(cpu: str) -> float:
        header = replace(table.header, cpu=cpu, reference_ms=0.125)
        return known_reference_ms(CostModel(network, replace(table, header=header)))

    assert known_ms(processor()) == 0.125
    assert known_ms("another processor") == math.inf
