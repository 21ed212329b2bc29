"""Random search: every decision drawn from the choices that the budget allows."""

from __future__ import annotations

import numpy as np

from automc.environment.walk import Walk
from automc.search.searchers.base import Evaluate, Searcher


class Random(Searcher):
    """Draws each decision with equal chances from what is allowed then.

    That is the policy of an agent that has learned nothing, and the first baseline of any search (Li and Talwalkar
    2019, "Random Search and Reproducibility for Neural Architecture Search").
    """

    def run(self, evaluate: Evaluate) -> None:
        random = np.random.default_rng(self.seed)
        while True:
            walk = Walk(self.problem)
            while not walk.done:
                walk.choose(int(random.choice(np.flatnonzero(walk.allowed()))))
            evaluate(walk.policy)
