"""What each part of the agent adds: PPO with one part taken out, as searchers for `searchers.py`.

    python tests/benchmarks/searchers.py ppo ppo_without_agent ppo_without_neighbours ... [--seeds 3]

The parts are taken out from here, so that the product has no switches that nobody but this study would turn.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from automc.environment.problem import Problem
from automc.environment.space import Choices
from automc.search.imagination import Imagination
from automc.search.predictor import Predictor
from automc.search.searchers import ppo, register_searcher
from automc.search.searchers.base import Evaluate
from automc.search.searchers.ppo import PPOAgent, PPOSettings
from automc.search.searchers.random import random_policy


class WithoutAgent(PPOAgent):
    """Episodes decide at random; the predictor judges them, and the neighbours of the best, as before."""

    def update(self, learner: BaseAlgorithm) -> None:
        random = np.random.default_rng([self.seed, learner.num_timesteps])
        episodes: Any = learner.get_env()
        episodes.reset()
        for _ in range(self.steps):
            chances = random.random((self.at_once, episodes.action_masks().shape[1]))
            episodes.step(np.where(episodes.action_masks(), chances, -1).argmax(1))
        learner.num_timesteps += self.steps * self.at_once


class WithoutNeighbours(PPOAgent):
    """Only what the agent has decided is tried: neither neighbours of the best nor allocations of what is predicted."""

    def run(self, evaluate: Evaluate) -> None:
        with patch.object(Imagination, "improve", lambda *_: None):
            super().run(evaluate)


class WithoutPredictor(PPOAgent):
    """Policies are judged by the sum of what their choices lose alone, whatever the trials say."""

    def run(self, evaluate: Evaluate) -> None:
        with patch.object(Predictor, "observe", lambda *_: None):
            super().run(evaluate)


class WithoutPrior(PPOAgent):
    """No predictor and no allocation: what the agent decides is tried. It only sees what choices lose alone."""

    def __init__(self, problem: Problem, settings: PPOSettings, seed: int) -> None:
        super().__init__(problem, settings.model_copy(update={"prior": "none"}), seed)


class WithoutStart(PPOAgent):
    """The first trial is a random policy instead of the allocation by sensitivities."""

    def run(self, evaluate: Evaluate) -> None:
        random = np.random.default_rng(self.seed)

        def anything(problem: Problem, *_: Any) -> Choices:
            return problem.space.choices_of(random_policy(problem, random))

        with patch.object(ppo, "allocate", anything):
            super().run(evaluate)


def register() -> None:
    """Make the variants known by the names `ppo_without_agent`, `ppo_without_neighbours` and so on."""
    register_searcher("ppo_without_agent", WithoutAgent)
    register_searcher("ppo_without_neighbours", WithoutNeighbours)
    register_searcher("ppo_without_predictor", WithoutPredictor)
    register_searcher("ppo_without_prior", WithoutPrior)
    register_searcher("ppo_without_start", WithoutStart)
