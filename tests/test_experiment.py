"""Experiments: which studies they have, what identifies them, and that resuming is running again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from automc import catalog
from automc.compression.policy import Policy
from automc.environment.evaluator import Evaluator
from automc.environment.metrics import Metrics, Outcome
from automc.environment.problem import Problem
from automc.errors import ConfigError, InfeasibleBudget, NameNotFound, RunMismatch
from automc.reading import read_spec
from automc.schema import EnvironmentSpec, ExperimentSpec, GoalSpec, SearcherSpec
from automc.search.experiment import Member, members, run_experiment, study_header
from automc.search.scale import Scale, read_scale
from automc.search.study import Progress
from automc.search.trials import LOG_NAME, read_log
from tests.problems import formula_metrics, tiny_problem
from tests.stops import stop_after

SEARCHERS = [SearcherSpec(name="random"), SearcherSpec(name="nsga2")]
SPEC = ExperimentSpec(description="", envs=["tiny"], searchers=SEARCHERS, seeds=[0, 1], trials=6)


def load(name: str) -> Problem:
    assert name == "tiny"
    return tiny_problem()


@pytest.fixture(autouse=True)
def formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations are a formula, and cannot be a Program's: the tiny problem computes nothing."""

    def outcome(evaluator: Evaluator, policy: Policy) -> Outcome:
        metrics: Metrics = formula_metrics(evaluator.problem, policy)
        return Outcome(metrics.to_record(), evaluator.problem.reward(metrics))

    monkeypatch.setattr(Evaluator, "outcome", outcome)


def logs(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob(f"*/*/{LOG_NAME}"))}


def test_an_experiment_is_one_study_for_each_environment_searcher_and_seed(tmp_path: Path) -> None:
    seen: list[tuple[Member, Progress]] = []
    run_experiment(SPEC, tmp_path, load, report=lambda member, progress: seen.append((member, progress)))
    assert list(logs(tmp_path)) == [
        f"tiny/{study}/{LOG_NAME}" for study in ("nsga2-0", "nsga2-1", "random-0", "random-1")
    ]
    assert len(seen) == 4 * 6
    assert [str(member) for member, _ in seen[::6]] == [
        "tiny random-0", "tiny random-1", "tiny nsga2-0", "tiny nsga2-1",
    ]  # fmt: skip
    assert {(member.position, member.of) for member, _ in seen} == {(1, 4), (2, 4), (3, 4), (4, 4)}
    assert all(len(read_log(tmp_path / member.folder)[1]) == 6 for member, _ in seen)


def test_an_experiment_writes_down_what_costs_are_compared_with(tmp_path: Path) -> None:
    run_experiment(SPEC, tmp_path, load, only="1/4")
    problem = tiny_problem()
    scale, dense = read_scale(tmp_path / "tiny"), problem.dense_cost
    assert scale.limits == problem.limits.costs
    assert scale.dense == {
        "latency_ms": dense.latency_ms, "energy_mj": dense.energy_mj, "size_bytes": dense.size_bytes, "macs": dense.macs
    }  # fmt: skip
    assert read_scale(tmp_path / "nowhere") == Scale()
    tighter = GoalSpec(limits={"latency_ms": "40%"})
    with pytest.raises(RunMismatch, match=r"scale.json was written for limits of latency_ms .* now there are limits"):
        run_experiment(SPEC, tmp_path, lambda name: tiny_problem(tighter), only="2/4")
    assert read_scale(tmp_path / "tiny") == scale


def test_parts_of_an_experiment_make_the_whole(tmp_path: Path) -> None:
    run_experiment(SPEC, tmp_path / "whole", load)
    for part in ("2/3", "1/3", "3/3"):
        run_experiment(SPEC, tmp_path / "parts", load, only=part)
    assert logs(tmp_path / "parts") == logs(tmp_path / "whole")
    run_experiment(SPEC, tmp_path / "none", lambda name: pytest.fail("loaded"), only="5/5")  # of four studies
    assert logs(tmp_path / "none") == {}


def test_the_same_call_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    run_experiment(SPEC, tmp_path / "whole", load)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(SPEC, tmp_path / "stopped", load, report=stop_after(15))
    assert logs(tmp_path / "stopped") != logs(tmp_path / "whole")
    run_experiment(SPEC, tmp_path / "stopped", load)
    assert logs(tmp_path / "stopped") == logs(tmp_path / "whole")


def test_the_time_is_for_all_studies_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

    def late(member: Member, progress: Progress) -> None:
        Clock.now += 200.0

    monkeypatch.setattr("automc.search.experiment.time", Clock)
    counts: list[tuple[str, int]] = []
    run_experiment(
        SPEC, tmp_path, load, seconds=2000.0, report=late,
        ended=lambda member, trials: counts.append((str(member), trials)),
    )  # fmt: skip
    assert counts == [("tiny random-0", 6), ("tiny random-1", 6), ("tiny nsga2-0", 0), ("tiny nsga2-1", 0)]
    assert len(logs(tmp_path)) == 2


def test_who_ends_early_says_so(tmp_path: Path) -> None:
    spec = ExperimentSpec(description="", envs=["tiny"], searchers=[SearcherSpec(name="uniform")], trials=5000)
    counts: list[int] = []
    run_experiment(spec, tmp_path, load, ended=lambda member, trials: counts.append(trials))
    assert counts == [len(read_log(tmp_path / "tiny" / "uniform-0")[1])]
    assert 0 < counts[0] < 5000


@pytest.mark.parametrize("only", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2"])
def test_a_part_must_be_one_of_them(only: str) -> None:
    with pytest.raises(ConfigError, match="only must be K/N"):
        members(SPEC, only)


def test_faults_are_found_before_anything_runs(tmp_path: Path) -> None:
    def experiment(*searchers: SearcherSpec) -> None:
        spec = ExperimentSpec(description="", envs=["tiny"], searchers=list(searchers))
        run_experiment(spec, tmp_path, lambda name: pytest.fail("loaded"))

    random = SearcherSpec(name="random")
    with pytest.raises(NameNotFound, match="Did you mean 'random'"):
        experiment(SearcherSpec(name="randon"))
    with pytest.raises(ConfigError, match="unknown field 'sped'"):
        experiment(random, SearcherSpec(name="greedy", settings={"sped": 1}))
    with pytest.raises(ConfigError, match="'random' appears twice"):
        experiment(random, random)
    with pytest.raises(ConfigError, match="agent: nowhere holds no saved agent"):
        experiment(random, SearcherSpec(name="ppo", settings={"agent": "nowhere"}))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_later_environment_or_searcher_refuses_is_told_before_the_first_study(
    tmp_path: Path, workers: int
) -> None:
    goals = {"hard": GoalSpec(), "soft": GoalSpec(reward="mnasnet"), "tight": GoalSpec(limits={"latency_ms": "1%"})}

    def load(name: str) -> Problem:
        problem = tiny_problem(goals[name])
        _ = problem.limits.hard and problem.cheapest  # as `load_problem`, which refuses a budget that nothing meets
        return problem

    def experiment(environment: str) -> None:
        searchers = [SearcherSpec(name="random"), SearcherSpec(name="ppo", settings={"least_budget": 0.5})]
        spec = ExperimentSpec(description="", envs=["hard", environment], searchers=searchers, trials=2)
        run_experiment(spec, tmp_path, load, workers=workers)

    with pytest.raises(ConfigError, match="least_budget needs"):
        experiment("soft")
    with pytest.raises(InfeasibleBudget):
        experiment("tight")
    assert not list(tmp_path.iterdir())


def test_a_header_names_all_that_decides_the_log() -> None:
    problem = tiny_problem()
    header = study_header(problem, SearcherSpec(name="tpe"), 3)
    assert header["hashes"] == problem.identity
    assert header["settings"] == {"startup_trials": 20, "candidates": 24}
    assert (header["searcher"], header["seed"], header["threads"]) == ("tpe", 3, torch.get_num_threads())
    assert set(header["versions"]) == {
        "automc",
        "cmaes",
        "numpy",
        "optuna",
        "sb3-contrib",
        "stable-baselines3",
        "torch",
    }
    assert header["versions"]["torch"] == torch.__version__
    assert "trials" not in header


def test_a_changed_setting_is_refused_and_more_trials_are_not(tmp_path: Path) -> None:
    def run(trials: int, population: int) -> None:
        searcher = SearcherSpec(name="nsga2", settings={"population": population})
        spec = ExperimentSpec(description="", envs=["tiny"], searchers=[searcher], trials=trials)
        run_experiment(spec, tmp_path, load)

    run(5, 10)
    run(7, 10)
    assert len(read_log(tmp_path / "tiny" / "nsga2-0")[1]) == 7
    with pytest.raises(RunMismatch, match=r"settings\.population: 10 when the log was begun, 12 now"):
        run(7, 12)


def test_the_shipped_experiments_name_what_exists() -> None:
    for path in catalog.entries("experiments").values():
        spec = read_spec(ExperimentSpec, path)
        assert members(spec)
        for name in spec.envs:
            read_spec(EnvironmentSpec, catalog.find("envs", name), tuple(spec.overrides))
