"""Regularised evolution: the best of a few parents has a child, and the oldest policy dies."""

from __future__ import annotations

from collections import deque

import numpy as np

from automc.search.searchers.base import Evaluate, Searcher
from automc.search.searchers.moves import mutated
from automc.search.searchers.random import random_policy
from automc.search.searchers.settings import EvolutionSettings


class Evolution(Searcher):
    """Evolution that is regularised by age (Real et al. 2019, "Regularized Evolution", algorithm 1).

    The first generation is random. A policy dies of age and not of a low reward, so luck of one evaluation does not
    last.
    """

    settings_model = EvolutionSettings

    def run(self, evaluate: Evaluate) -> None:
        problem, settings = self.problem, self.settings
        random = np.random.default_rng(self.seed)
        first = [random_policy(problem, random) for _ in range(settings.population)]
        alive = deque(
            (problem.space.choices_of(trial.policy), trial.reward) for trial in evaluate.many(first)
        )  # the oldest first
        while True:
            rivals = random.choice(len(alive), min(settings.sample, len(alive)), replace=False)
            parent, _ = max((alive[rival] for rival in rivals), key=lambda one: one[1])
            child = mutated(problem, parent, settings.changes, random)
            alive.append((child, evaluate(problem.space.policy(child)).reward))
            alive.popleft()
