"""Random search: every decision drawn from the choices that the budget allows."""

from __future__ import annotations

from itertools import count

import numpy as np

from automc.compression.policy import Policy
from automc.environment.problem import Problem
from automc.environment.walk import Walk
from automc.search.searchers.base import Evaluate, Searcher


class Random(Searcher):
    """Draws each decision with equal chances from what is allowed then.

    That is the policy of an agent that has learned nothing, and the first baseline of any search (Li and Talwalkar
    2019, "Random Search and Reproducibility for Neural Architecture Search").
    """

    def run(self, evaluate: Evaluate) -> None:
        random = np.random.default_rng(self.seed)
        for _ in evaluate.many(random_policy(self.problem, random) for _ in count()):
            pass  # nothing is learned


def random_policy(problem: Problem, random: np.random.Generator) -> Policy:
    """A policy whose decisions are drawn, one after the other, evenly from what the budget allows then."""
    walk = Walk(problem)
    while not walk.done:
        walk.choose(int(random.choice(np.flatnonzero(walk.allowed()))))
    return walk.policy
