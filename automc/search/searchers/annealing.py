"""Simulated annealing: a walk from policy to policy that accepts losses, large ones at first and small ones later."""

from __future__ import annotations

import numpy as np

from automc.search.searchers.base import Evaluate, Searcher
from automc.search.searchers.moves import mutated
from automc.search.searchers.random import random_policy
from automc.search.searchers.settings import AnnealingSettings


class Annealing(Searcher):
    """Simulated annealing (Kirkpatrick et al. 1983) with a geometric schedule that begins anew at the best so far.

    How many trials there will be is not known, so one cycle follows another.
    """

    settings_model = AnnealingSettings

    def run(self, evaluate: Evaluate) -> None:
        problem, settings = self.problem, self.settings
        random = np.random.default_rng(self.seed)
        startup = [random_policy(problem, random) for _ in range(settings.startup_trials)]
        trials = list(evaluate.many(startup))
        hot = max(settings.heat * float(np.std([trial.reward for trial in trials])), 1e-9)
        first = max(trials, key=lambda trial: (trial.complete, trial.reward))
        best = problem.space.choices_of(first.policy), first.reward
        while True:
            here = best
            for step in range(settings.cycle):
                temperature = hot * settings.cooling ** (step / settings.cycle)
                there = mutated(problem, here[0], settings.changes, random)
                reward = evaluate(problem.space.policy(there)).reward
                if np.log(random.uniform(1e-300, 1)) < (reward - here[1]) / temperature:
                    here = there, reward
                if reward > best[1]:
                    best = there, reward
