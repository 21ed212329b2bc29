"""PPO: the agent that learns where to compress, one small network for every decision."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import MlpExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from automc.environment.measures import Floats
from automc.environment.problem import Problem, Rows
from automc.environment.sensitivity import single_losses
from automc.environment.space import MAX_CHOICES, Choices
from automc.errors import ConfigError, InfeasibleBudget
from automc.search.allocation import allocate
from automc.search.episodes import Episodes
from automc.search.imagination import Imagination
from automc.search.searchers.agent import Agent
from automc.search.searchers.base import Evaluate
from automc.search.searchers.random import random_policy
from automc.search.searchers.settings import PPOSettings

_HIDDEN = 64


class PPOAgent(Agent):
    """Proximal policy optimisation (Schulman et al. 2017) with masked actions (Huang and Ontañón 2022).

    All episodes of an update walk the network side by side, so that the agent is asked once for all of them.

    With a prior, they are imagined (Sutton 1991, Dyna; Janner et al. 2019, MBPO): a predictor that learns from the
    trials judges them, and only the most promising policies, of the agent's and of the exact allocation of what is
    predicted, become trials. The agent is a residual around the best policy so far: the logit of a choice begins at
    `-confidence` for every choice that it is away from the one of that policy.
    """

    name = "ppo"
    actions = "masked"
    settings_model = PPOSettings

    def __init__(self, problem: Problem, settings: PPOSettings, seed: int) -> None:
        super().__init__(problem, settings, seed)
        if settings.least_budget < 1:
            if not problem.limits.hard or settings.prior == "none":
                raise ConfigError(
                    "ppo: least_budget needs prior: sensitivity, and a goal whose limits are hard (amc, fastest)"
                )
            try:
                problem.cheapest_within(settings.least_budget)
            except InfeasibleBudget as error:
                raise InfeasibleBudget(f"{error}, or a larger least_budget of ppo") from error

    @property
    def at_once(self) -> int:
        return int(self.settings.episodes if self.settings.prior == "none" else self.settings.imagined)

    @property
    def asks_side_by_side(self) -> bool:
        return bool(self.settings.prior == "none")

    def run(self, evaluate: Evaluate) -> None:
        if self.settings.prior == "none":
            super().run(evaluate)
        problem, settings = self.problem, self.settings
        random = np.random.default_rng(self.seed)
        losses = single_losses(problem)
        imagination = Imagination(problem, losses, settings.optimism)

        def draw(count: int) -> Floats:
            return random.uniform(settings.least_budget, 1.0, count) if settings.least_budget < 1 else np.ones(count)

        def judge(rows: Rows, shares: Floats) -> list[float]:
            imagination.remember(rows)
            return [*imagination.rewards(rows).tolist()]

        def attempt(choices: Choices) -> None:
            imagination.observe(choices, evaluate(problem.space.policy(choices)))

        attempt(allocate(problem, losses))
        learner = self.begin(Episodes(problem, self.at_once, judge, losses, draw, imagination.best))
        while True:
            self.update(learner)
            for optimism in np.linspace(0.0, settings.optimism, settings.trials).tolist():
                imagination.optimism, share = optimism, float(draw(1)[0])
                imagination.improve(share)
                attempt(imagination.proposal(share) or problem.space.choices_of(random_policy(problem, random)))

    def build(self, episodes: Episodes) -> BaseAlgorithm:
        settings: PPOSettings = self.settings
        return MaskablePPO(
            _ResidualPolicy,
            episodes,
            learning_rate=settings.learning_rate,
            n_steps=self.steps,
            batch_size=max(2, self.steps * self.at_once // 4),  # of a single one no advantage can be normalised
            n_epochs=settings.epochs,
            gamma=1.0,
            gae_lambda=1.0,
            clip_range=settings.clip_range,
            ent_coef=settings.entropy,
            policy_kwargs={"confidence": settings.confidence},
            seed=self.seed,
            device="cpu",
        )


class _ResidualPolicy(MaskableActorCriticPolicy):
    """Actor and critic of one hidden network each; the actor's logits see the distances to the guide directly."""

    def __init__(self, *arguments: Any, confidence: float, **named: Any) -> None:
        self._confidence = confidence
        super().__init__(*arguments, **named)

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = _Extractor(self.features_dim)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        logits: nn.Linear = self.action_net  # type: ignore[assignment]
        with torch.no_grad():
            logits.weight[:, -MAX_CHOICES:] = self._confidence * torch.eye(MAX_CHOICES)


class _Extractor(MlpExtractor):
    """features: `n x AGENT_FEATURES`; to the actor `n x (hidden + MAX_CHOICES)`, to the critic `n x hidden`."""

    def __init__(self, features: int) -> None:
        super().__init__(features, [_HIDDEN, _HIDDEN], nn.Tanh)
        self.latent_dim_pi += MAX_CHOICES

    def forward_actor(self, features: Tensor) -> Tensor:
        return torch.cat([super().forward_actor(features), features[:, -MAX_CHOICES:]], 1)
