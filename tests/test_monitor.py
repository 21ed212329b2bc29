"""The monitor says whether the reward tells the truth: with a real network, a planted fault, and after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from automc.compression.policy import uniform_policy
from automc.environment import reward
from automc.environment.problem import Problem
from automc.errors import WeightsError
from automc.schema import ExperimentSpec, MonitorSpec, SearcherSpec
from automc.search import monitor
from automc.search.experiment import run_experiment
from automc.search.monitor import Check, correlation, warnings
from automc.search.trials import LOG_NAME, Trial
from tests.problems import digits_problem, tiny_network

SPEC = ExperimentSpec(
    description="",
    envs=["small"],
    searchers=[SearcherSpec(name="random")],
    trials=16,
    monitor=MonitorSpec(every=2, epochs=0.1),
)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return digits_problem(epochs=1.0)


def watched(problem: Problem, folder: Path, spec: ExperimentSpec = SPEC) -> list[str]:
    remarks: list[str] = []
    run_experiment(spec, folder, lambda name: problem, report=lambda member, progress: remarks.append(progress.remark))
    return [line for remark in remarks for line in remark.splitlines()]


def test_an_honest_reward_is_confirmed(problem: Problem, tmp_path: Path) -> None:
    lines = watched(problem, tmp_path)
    checks = [line for line in lines if line.startswith("monitor:")]
    assert len(checks) == 8
    assert float(checks[-1].rsplit(maxsplit=1)[1]) > 0.3
    assert not any("fault of the reward" in line for line in lines)


def test_a_planted_fault_of_the_reward_is_flagged(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(reward.REWARDS, "amc", lambda metrics, limits, score: -score(metrics.quality))
    lines = watched(problem, tmp_path)
    assert sum("fault of the reward" in line for line in lines) == 1  # once, however long it goes on


# The second draws from torch's global generator, and learns from its first four trials before the others.
@pytest.mark.parametrize("searcher", [{"name": "random"}, {"name": "recurrent_ppo", "settings": {"episodes": 4}}])
def test_neither_the_search_nor_its_log_knows_of_it(
    searcher: dict[str, object], problem: Problem, tmp_path: Path
) -> None:
    spec = SPEC.model_copy(update={"searchers": [SearcherSpec.model_validate(searcher)]})
    watched(problem, tmp_path / "with", spec)
    watched(problem, tmp_path / "without", spec.model_copy(update={"monitor": None}))
    one, other = (tmp_path / each / "small" / f"{searcher['name']}-0" / LOG_NAME for each in ("with", "without"))
    assert one.read_bytes() == other.read_bytes()


def test_a_stopped_run_goes_on_with_its_checks(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = watched(problem, tmp_path / "whole")
    real, left = monitor.finetune, 3

    def dying(*arguments: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(monitor, "finetune", dying)
    with pytest.raises(KeyboardInterrupt):
        watched(problem, tmp_path / "stopped")
    left = 5  # the three that are known are not trained again
    assert watched(problem, tmp_path / "stopped") == whole


def test_a_resumed_run_may_check_more_often(problem: Problem, tmp_path: Path) -> None:
    rarely = SPEC.model_copy(update={"monitor": MonitorSpec(every=4, epochs=0.1), "trials": 8})
    watched(problem, tmp_path / "resumed", rarely)
    assert watched(problem, tmp_path / "resumed") == watched(problem, tmp_path / "whole")


def test_a_training_that_fails_is_told_and_counts_for_nothing(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: object) -> object:
        raise WeightsError("the loss of step 1 is not finite")

    monkeypatch.setattr(monitor, "finetune", failing)
    lines = watched(problem, tmp_path)
    assert sum("fine-tuning failed" in line for line in lines) == 8
    assert all("no rank correlation yet" in line for line in lines)


def test_few_checks_and_equal_ones_have_no_correlation() -> None:
    rising = [Check(number, float(number), float(number)) for number in range(6)]
    assert correlation(rising) == pytest.approx(1.0)
    assert correlation(rising[:5]) is None
    assert correlation([Check(number, 1.0, float(number)) for number in range(6)]) is None
    assert correlation([*rising[:5], Check(5, 5.0, None)]) is None


def trials(ratios: list[float], rewards: list[float]) -> list[Trial]:
    network = tiny_network(4)
    return [
        Trial(number, uniform_policy(network, ratio), {}, value)
        for number, (ratio, value) in enumerate(zip(ratios, rewards, strict=True))
    ]


def test_collapse_and_saturation_are_told_with_advice() -> None:
    many = [1 - number / 32 for number in range(24)]
    rising = [number / 100 for number in range(24)]
    assert warnings(trials(many, rising), []) == {}
    assert list(warnings(trials([0.5, 0.75] * 12, rising), [])) == ["collapse"]
    assert list(warnings(trials(many, [min(value, 0.15) for value in rising]), [])) == ["saturation"]
