"""A recurrent controller in MnasNet's manner: it remembers what it decided for the layers before."""

from __future__ import annotations

from sb3_contrib import RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm

from automc.search.episodes import Episodes
from automc.search.searchers.agent import Agent
from automc.search.searchers.settings import RecurrentPPOSettings


class RecurrentPPOAgent(Agent):
    """Proximal policy optimisation of a recurrent network, as MnasNet's controller (Tan et al. 2019, section 4.2).

    sb3-contrib masks no recurrent policy, so its actions are spread over what is allowed.
    """

    name = "recurrent_ppo"
    settings_model = RecurrentPPOSettings

    @property
    def at_once(self) -> int:
        return int(self.settings.episodes)

    def build(self, episodes: Episodes) -> BaseAlgorithm:
        settings: RecurrentPPOSettings = self.settings
        return RecurrentPPO(
            "MlpLstmPolicy",
            episodes,
            learning_rate=settings.learning_rate,
            n_steps=self.steps,
            batch_size=self.steps * settings.episodes,
            n_epochs=4,
            gamma=1.0,
            gae_lambda=1.0,
            ent_coef=settings.entropy,
            policy_kwargs={"lstm_hidden_size": 64, "net_arch": [64]},
            seed=self.seed,
            device="cpu",
        )
