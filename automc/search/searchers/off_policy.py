"""DDPG and TD3: the agents of AMC and HAQ, whose action is one number for each decision."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3 import DDPG, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise

from automc.search.episodes import Episodes
from automc.search.searchers.agent import Agent
from automc.search.searchers.settings import OffPolicySettings

_REMEMBERED = 2000  # episodes


class _OffPolicy(Agent):
    """An actor and its critics, which learn after each episode from the steps of all episodes before.

    What a critic learns of a step is the reward that its episode ended with: a guess of the next step's would have to
    come back through all decisions, one update of the target network after the other, before the first saw any reward.
    """

    settings_model = OffPolicySettings
    actions = "continuous"
    algorithm: type[TD3]

    def build(self, episodes: Episodes) -> BaseAlgorithm:
        settings: OffPolicySettings = self.settings
        options: dict[str, Any] = {"net_arch": [64, 64]}
        return self.algorithm(
            "MlpPolicy",
            episodes,
            learning_rate=settings.learning_rate,
            buffer_size=_REMEMBERED * self.steps,
            learning_starts=settings.warm_up * self.steps,
            batch_size=64,
            gamma=1.0,
            n_steps=self.steps,
            train_freq=(1, "episode"),
            gradient_steps=self.steps,
            action_noise=NormalActionNoise(np.zeros(1), np.full(1, settings.noise)),
            policy_kwargs=options,
            seed=self.seed,
            device="cpu",
        )


class DDPGAgent(_OffPolicy):
    """Deep deterministic policy gradient (Lillicrap et al. 2016), as in AMC (He et al. 2018, section 3.1)."""

    name = "ddpg"
    algorithm = DDPG


class TD3Agent(_OffPolicy):
    """Twin delayed deterministic policy gradient (Fujimoto et al. 2018), where HAQ has DDPG (Wang et al. 2019)."""

    name = "td3"
    algorithm = TD3
