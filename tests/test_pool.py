"""Evaluations in several processes: the log of one process, and a clear word where one cannot work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

import pytest

from automc.compression.policy import Policy
from automc.environment.problem import Problem
from automc.errors import BudgetSpent, DataError, RunnerError
from automc.reporting import silent
from automc.schema import ExperimentSpec, SearcherSpec
from automc.search.experiment import Member, _run_in_processes, members, run_experiment
from automc.search.pool import EvaluationPool
from automc.search.searchers import build_searcher
from automc.search.searchers.base import Evaluate
from automc.search.study import Progress
from automc.search.trials import LOG_NAME, Trial
from tests.problems import formula_outcome, small_problem
from tests.searches import NAMES, QUICK, tiny

pytestmark = pytest.mark.usefixtures("one_thread")
SEARCHERS = [
    SearcherSpec(name="nsga2", settings={"population": 4}),
    SearcherSpec(name="ppo", settings={"prior": "none", "episodes": 4}),
]


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


@pytest.mark.parametrize(("name", "settings"), [*((name, {}) for name in NAMES), ("ppo", {"prior": "none"})])
def test_a_searcher_says_whether_it_asks_side_by_side(name: str, settings: dict[str, str]) -> None:
    problem, counts = tiny(), [1]

    class Watched(Evaluate):
        def __call__(self, policy: Policy) -> Trial:
            if len(counts) > 24:
                raise BudgetSpent("spent")
            outcome = formula_outcome(problem, policy)
            counts.append(1)
            return Trial(len(counts), policy, outcome.metrics, outcome.reward)

        def many(self, policies: Iterable[Policy]) -> Iterator[Trial]:
            asked = iter(policies)
            first = list(islice(asked, 2))
            counts.append(len(first))
            return map(self, chain(first, asked))

    searcher = build_searcher(name, QUICK.get(name, {}) | settings, problem, 0)
    with suppress(BudgetSpent):
        searcher.run(Watched())
    assert searcher.asks_side_by_side == (max(counts) > 1)


@pytest.mark.parametrize("name", ["dynamic", "ppo"])
def test_no_pool_is_started_for_who_asks_one_by_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("automc.search.experiment.EvaluationPool", lambda *arguments: pytest.fail("started"))
    spec = ExperimentSpec(description="", envs=["small"], searchers=[SearcherSpec(name=name)], trials=1)
    run_experiment(spec, tmp_path, load, workers=2)
    assert caplog.messages == [
        f"small {name}-0 asks for one policy after the other, so that one process evaluates them"
    ]


def test_a_process_says_why_it_cannot_load_its_environment_or_that_it_died() -> None:
    policy = small_problem().space.policy(small_problem().space.smallest())
    with EvaluationPool(load_nothing, "small", 1) as pool, pytest.raises(DataError, match="its images are gone"):
        pool.begin(policy)()
    with EvaluationPool(end_the_process, "small", 1) as pool:
        with pytest.raises(RunnerError, match="was killed"):
            pool.begin(policy)()
        with pytest.raises(RunnerError, match="was killed"):
            pool.begin(policy)


PARENT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from automc.search.pool import end_with_the_parent

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, context, initializer=end_with_the_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""


def test_a_process_ends_with_the_one_that_began_it(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    child = Path("/proc", parent.stdout.readline().strip())
    assert child.is_dir()
    parent.kill()
    parent.wait()
    while is_alive(child):  # or this test hangs
        time.sleep(0.05)


def is_alive(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def search_for_ever(member: Member, evaluator_of: object, report: Callable[[Member, None], None]) -> None:
    while True:
        report(member, None)
        time.sleep(0.01)


def test_studies_in_processes_end_when_the_experiment_is_stopped() -> None:
    """As by the signal of a job scheduler, which reaches no other process; or this test hangs."""
    studies = members(ExperimentSpec(description="", envs=["tiny"], searchers=SEARCHERS))

    def stop(member: Member, progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run_in_processes(studies, search_for_ever, 2, stop, silent)
