"""Tuning ends bad trials early, finds better recipes, and can be killed at any moment."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from automc.compression.policy import Policy, uniform_policy
from automc.compression.program import Program
from automc.environment.evaluator import Evaluator
from automc.environment.metrics import Metrics
from automc.environment.problem import Problem
from automc.errors import ConfigError, RunMismatch, WeightsError
from automc.schema import FinetuningSpec
from automc.search import tuning
from automc.search.log import Record, read_records
from automc.search.tuning import LOG_NAME, PROGRAM_NAME, read_tuning, tune
from tests.problems import digits_problem
from tests.stops import Killed


@pytest.fixture(scope="module")
def problem() -> Problem:
    return digits_problem(epochs=9.0)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[FinetuningSpec]:
    """Fine-tuning that takes no time: quality falls with the distance of the learning rate from 0.01; all that ran."""
    ran: list[FinetuningSpec] = []

    def finetune(program: Program, *rest: object) -> Program:
        (recipe,) = (each for each in rest if isinstance(each, FinetuningSpec))
        ran.append(recipe)
        if recipe.learning_rate > 0.02:
            raise WeightsError("the loss of step 1 is not finite")
        return program

    def judge(self: Evaluator, program: Program, policy: Policy, split: str) -> Metrics:
        assert split == "selection"
        quality = 0.9 - 0.1 * abs(math.log10(ran[-1].learning_rate / 0.01)) + 0.001 * ran[-1].epochs
        return Metrics(quality, 0.0, 0.0, 1.0, None, 1, 1, 1)

    monkeypatch.setattr(tuning, "finetune", finetune)
    monkeypatch.setattr(Evaluator, "judge", judge)
    return ran


def quiet(line: str) -> None:
    pass


def records_of(folder: Path) -> list[Record]:
    return read_records(folder / LOG_NAME)[1]


def test_bad_trials_are_stopped_and_the_best_recipe_is_found(
    problem: Problem, pretended: list[FinetuningSpec], tmp_path: Path
) -> None:
    found = tune(problem, Policy(), tmp_path, 80, seed=1, report=quiet)
    assert abs(math.log10(found.recipe.learning_rate / 0.01)) < 0.2  # the environment's own is half a decade away
    assert found.recipe.epochs == 9.0
    records = records_of(tmp_path)
    assert sum(record["epochs"] for record in records) <= 80
    lengths = {length: [record for record in records if record["epochs"] == length] for length in (1, 3, 9)}
    assert len(lengths[1]) > len(lengths[3]) > len(lengths[9]) > 0
    for short, long in ((1, 3), (3, 9)):
        went_on = {record["trial"] for record in lengths[long]}
        judged = [record for record in lengths[short] if record["quality"] is not None]
        for position, record in enumerate(judged):
            so_far = sorted((each["quality"] for each in judged[: position + 1]), reverse=True)
            in_best_third = record["quality"] >= so_far[max(1, len(so_far) // 3) - 1]
            assert (record["trial"] in went_on) == in_best_third or record is records[-1]
    assert found.quality == max(record["quality"] for record in lengths[9])


def test_the_first_trial_is_the_environments_own_recipe_also_outside_of_the_usual(
    problem: Problem, pretended: list[FinetuningSpec], tmp_path: Path
) -> None:
    own = problem.spec.finetuning.model_copy(update={"learning_rate": 0.0001, "weight_decay": 0.7, "distillation": 0.0})
    other = dataclasses.replace(problem, spec=problem.spec.model_copy(update={"finetuning": own}))
    tune(other, Policy(), tmp_path, 20, report=quiet)
    assert pretended[2] == own
    assert [recipe.epochs for recipe in pretended[:3]] == [1, 3, 9]


def test_a_trial_whose_loss_is_not_finite_has_failed_and_the_others_go_on(
    problem: Problem, pretended: list[FinetuningSpec], tmp_path: Path
) -> None:
    tune(problem, Policy(), tmp_path, 80, seed=0, report=quiet)
    failed = [record for record in records_of(tmp_path) if record["quality"] is None]
    assert failed
    assert all("not finite" in record["reason"] for record in failed)
    assert failed[0] is not records_of(tmp_path)[-1]
    assert any(line.endswith("is not finite") for line in read_tuning(tmp_path))


def test_a_killed_tuning_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """With real fine-tuning, killed while a trial is trained and after trials have ended."""
    problem = digits_problem(epochs=0.9)
    short = problem.splits.train.take(slice(0, 200))
    problem = dataclasses.replace(problem, splits=dataclasses.replace(problem.splits, train=short))
    policy = uniform_policy(problem.network, 0.75, 4, 8)

    def run(folder: Path, deaths: list[int]) -> None:
        lines = 0

        def report(line: str) -> None:
            nonlocal lines
            lines += 1
            if deaths and lines == deaths[0]:
                deaths.pop(0)
                raise Killed

        done = False
        while not done:
            lines = 0
            with contextlib.suppress(Killed):
                tune(problem, policy, folder, 2.0, seed=2, report=report)
                done = True

    states = torch.random.get_rng_state(), np.random.get_state()[1]
    run(tmp_path / "whole", [])
    run(tmp_path / "killed", [1, 2, 3])
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    for name in (LOG_NAME, PROGRAM_NAME, "tuning.txt"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    log = (tmp_path / "whole" / LOG_NAME).read_bytes()
    tune(problem, policy, tmp_path / "whole", 2.5, seed=2, report=quiet)  # a larger budget goes on
    assert (tmp_path / "whole" / LOG_NAME).read_bytes().startswith(log)
    with pytest.raises(RunMismatch, match="seed: 2 when the log was begun, 3 now"):
        tune(problem, policy, tmp_path / "whole", 4.0, seed=3, report=quiet)


def test_weights_that_are_not_finite_end_with_their_reason(problem: Problem, tmp_path: Path) -> None:
    teacher = copy.deepcopy(problem.module)
    with torch.no_grad():
        next(teacher.parameters()).fill_(torch.nan)
    with pytest.raises(WeightsError, match=r"no trial came to its end: .*loss of step 1 is not finite"):
        tune(dataclasses.replace(problem, module=teacher), Policy(), tmp_path, 13.5, report=quiet)


def test_a_budget_for_less_than_one_trial_is_refused(problem: Problem, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a budget of 12 epochs .* needs, which is 13"):
        tune(problem, Policy(), tmp_path, 12, report=quiet)
    with pytest.raises(ConfigError, match=r"must be a number of epochs\. Got nan"):
        tune(problem, Policy(), tmp_path, math.nan, report=quiet)
    with pytest.raises(ConfigError, match=r"finetuning\.epochs must be greater than 0"):
        tune(digits_problem(), Policy(), tmp_path, 12, report=quiet)
    assert not list(tmp_path.iterdir())
