"""Searches for tests: every searcher by its name on the tiny problem, and studies of a few trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from automc.compression.policy import Policy
from automc.environment.evaluator import Evaluator
from automc.environment.metrics import Outcome
from automc.environment.problem import Problem
from automc.errors import BudgetSpent
from automc.schema import ExperimentSpec, GoalSpec, SearcherSpec
from automc.search.searchers import build_searcher
from automc.search.searchers.base import Evaluate
from automc.search.trials import Trial, TrialLog
from tests.problems import formula_outcome, tiny_problem

AGENTS = ["ddpg", "ppo", "recurrent_ppo", "td3"]
NAMES = sorted([
    *AGENTS, "annealing", "cmaes", "deep", "dynamic", "evolution", "gp", "greedy",
    "nsga2", "nsga3", "random", "shallow", "tpe", "uniform",
])  # fmt: skip
QUICK = {"ppo": {"imagined": 8, "epochs": 1}, "ddpg": {"warm_up": 2}, "td3": {"warm_up": 2}}
LISTS = ["deep", "shallow", "uniform"]  # searchers that are done with a list, whatever the seed
TIGHT = GoalSpec(limits={"latency_ms": "40%", "size_bytes": "60%"})


def tiny(goal: GoalSpec = TIGHT) -> Problem:
    return tiny_problem(goal)


def search(
    name: str,
    trials: int,
    problem: Problem | None = None,
    seed: int = 0,
    evaluate: Callable[..., Outcome] = formula_outcome,
    **settings: object,
) -> list[Trial]:
    """The trials of a searcher, without a log."""
    problem = problem or tiny()
    done: list[Trial] = []

    class Answers(Evaluate):
        def __call__(self, policy):
            if len(done) == trials:
                raise BudgetSpent("spent")
            outcome = evaluate(problem, policy)
            state = "failed" if outcome.reason else "complete"
            done.append(Trial(len(done), policy, outcome.metrics, outcome.reward, state, outcome.reason))
            return done[-1]

    try:
        build_searcher(name, QUICK.get(name, {}) | settings, problem, seed).run(Answers())
    except BudgetSpent:
        pass
    else:
        assert name in LISTS, f"{name} stopped by itself after {len(done)} trials"
    return done


def experiment(*names: str) -> ExperimentSpec:
    searchers = [SearcherSpec(name=name) for name in names]
    return ExperimentSpec(description="", envs=["small"], searchers=searchers, trials=8)


def write_study(problem: Problem, folder: Path, *policies: Policy) -> None:
    """The log of a search that tried these policies."""
    with TrialLog(folder / "random-0", {"searcher": "random", "seed": 0}, pytest.fail) as log:
        for number, policy in enumerate(policies):
            outcome = Evaluator(problem).outcome(policy)
            log.append(Trial(number, policy, outcome.metrics, outcome.reward))
