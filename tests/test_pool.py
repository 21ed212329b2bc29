"""Evaluations in several processes: the log of one process, and a clear word where one cannot work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from automc.environment.problem import Problem
from automc.errors import DataError, RunnerError
from automc.schema import ExperimentSpec, SearcherSpec
from automc.search.experiment import run_experiment
from automc.search.pool import EvaluationPool
from automc.search.trials import LOG_NAME
from tests.test_evaluator import small_problem

SEARCHERS = [
    SearcherSpec(name="nsga2", settings={"population": 4}),
    SearcherSpec(name="ppo", settings={"prior": "none", "episodes": 4}),
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Logs are bound to the number of threads."""
    torch.set_num_threads(1)


def load(name: str) -> Problem:
    return small_problem()


def load_nothing(name: str) -> Problem:
    raise DataError("its images are gone")


def end_the_process(name: str) -> Problem:
    os._exit(9)


@pytest.mark.parametrize("searcher", SEARCHERS, ids=lambda searcher: searcher.name)
def test_two_processes_write_the_log_of_one(searcher: SearcherSpec, tmp_path: Path) -> None:
    spec = ExperimentSpec(description="", envs=["small"], searchers=[searcher], trials=10)
    for workers in (1, 2):
        run_experiment(spec, tmp_path / str(workers), load, workers=workers)
    one, two = ((tmp_path / folder / "small" / f"{searcher.name}-0" / LOG_NAME).read_bytes() for folder in ("1", "2"))
    assert one == two


def test_a_process_says_why_it_cannot_load_its_environment_or_that_it_died() -> None:
    policy = small_problem().space.policy(small_problem().space.smallest())
    with EvaluationPool(load_nothing, "small", 1) as pool, pytest.raises(DataError, match="its images are gone"):
        pool.begin(policy)()
    with EvaluationPool(end_the_process, "small", 1) as pool:
        with pytest.raises(RunnerError, match="was killed"):
            pool.begin(policy)()
        with pytest.raises(RunnerError, match="was killed"):
            pool.begin(policy)
