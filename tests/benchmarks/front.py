"""One training for every budget against five searches of one budget each, on the model of `surrogate.py`.

    python tests/benchmarks/front.py [--trials 200] [--seeds 1]

The agent with `least_budget` spreads its trials over all budgets between LOWEST and HIGHEST of the dense latency.
Beside it five agents search one budget each: with a fifth of the trials each, so that both sides cost the same, and
with as many each. Printed are the points of each front, its hypervolume as a share of the plane of latencies up to
HIGHEST and accuracies above CHANCE, and the same of the latencies from LOWEST to HIGHEST, which are asked for.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from surrogate import Surrogate, open_problem, search, within

from automc.environment.problem import Problem
from automc.search.pareto import hypervolume, pareto_front
from automc.search.trials import Trial

LOWEST, HIGHEST = 0.25, 0.5
TARGETS = 5
CHANCE = 0.1  # the accuracy of a guess


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    whole = open_problem(HIGHEST)
    surrogate = Surrogate.of(whole)
    budgets = np.linspace(LOWEST, HIGHEST, TARGETS).tolist()
    for seed in range(options.seeds):
        every = search("ppo", whole, surrogate, seed, options.trials, {"least_budget": LOWEST / HIGHEST})
        show(f"one agent for all, seed {seed}", whole, every)
        single = [search("ppo", within(whole, budget), surrogate, seed, options.trials) for budget in budgets]
        for each in (options.trials // TARGETS, options.trials):  # a longer search begins as a shorter one does
            show(f"five agents, seed {seed}", whole, [trial for trials in single for trial in trials[:each]])


def show(title: str, problem: Problem, trials: list[Trial]) -> None:
    latency = np.array([trial.metrics["latency_ms"] for trial in trials])
    accuracy = np.array([trial.metrics["accuracy"] for trial in trials])
    limit = problem.limits.costs["latency_ms"]
    lowest = problem.dense_cost.latency_ms * LOWEST
    volume = hypervolume(latency, accuracy, (limit, CHANCE)) / (limit * (1 - CHANCE))
    asked = hypervolume(np.maximum(latency - lowest, 0), accuracy, (limit - lowest, CHANCE))
    front = pareto_front(latency, accuracy)
    print(
        f"{title}: {len(trials)} trials, {len(front)} points on the front, hypervolume {volume:.5f}, "
        f"from {LOWEST:.0%} on {asked / ((limit - lowest) * (1 - CHANCE)):.5f}",
        flush=True,
    )
    for budget in np.linspace(LOWEST, HIGHEST, TARGETS):
        within_budget = latency <= problem.dense_cost.latency_ms * budget
        best = accuracy[within_budget].max() if within_budget.any() else float("nan")
        print(f"  best within {budget:.2%} of the dense latency: {best:.4f}", flush=True)


if __name__ == "__main__":
    main()
