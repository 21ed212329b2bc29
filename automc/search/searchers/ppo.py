"""PPO: the agent that learns where to compress, one small network for every decision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.torch_layers import MlpExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn

from automc.compression.policy import Policy
from automc.environment.environment import CompressionEnv
from automc.environment.observation import FEATURES
from automc.environment.problem import Problem
from automc.environment.sensitivity import single_losses
from automc.files import canonical_json, sha256_of, write_atomic
from automc.search.allocation import allocate
from automc.search.searchers.base import Evaluate, Searcher, Settings
from automc.search.trials import Trial

_HIDDEN = 64


class PPOSettings(Settings):
    """`prior`: `sensitivity` measures what each choice loses alone, which is no trial, and learns to improve on the
    allocation that follows from it; `none` learns from nothing. `episodes`: policies between two updates. `confidence`:
    how strongly the fresh agent prefers the prior, in logits for each choice away from it. `entropy`: its bonus.
    """

    prior: Literal["sensitivity", "none"] = "sensitivity"
    episodes: Annotated[int, Field(ge=2)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    epochs: Annotated[int, Field(ge=1)] = 10
    clip_range: Annotated[float, Field(gt=0)] = 0.2
    entropy: Annotated[float, Field(ge=0)] = 0.0
    confidence: Annotated[float, Field(ge=0)] = 3.0


class PPOAgent(Searcher):
    """Proximal policy optimisation (Schulman et al. 2017) with masked actions (Huang and Ontañón 2022).

    An episode is a policy; its reward comes at the end and is not discounted. All episodes of an update walk the
    network side by side, so that the agent is asked once for all of them. Rewards are standardised by those before.

    With a prior, the agent is a residual around the best policy so far: the logit of a choice begins at `-confidence`
    for every choice that it is away from the one of that policy.

    Stable-Baselines3 seeds the global generators of Python, NumPy and torch with this searcher's seed, and draws from
    torch's.
    """

    settings_model = PPOSettings

    def __init__(self, problem: Problem, settings: PPOSettings, seed: int) -> None:
        super().__init__(problem, settings, seed)
        self._agent: MaskablePPO | None = None

    def run(self, evaluate: Evaluate) -> None:
        settings: PPOSettings = self.settings
        memory = _Memory(self.problem, evaluate, settings.prior != "none")
        if settings.prior == "sensitivity":
            allocated = allocate(self.problem, single_losses(self.problem))
            memory.evaluate(self.problem.space.policy(allocated))
        steps = len(self.problem.space.decisions)
        self._agent = MaskablePPO(
            _ResidualPolicy,
            DummyVecEnv([lambda: _Guided(self.problem, memory)] * settings.episodes),
            learning_rate=settings.learning_rate,
            n_steps=steps,
            batch_size=max(2, steps * settings.episodes // 4),  # of a single one no advantage can be normalised
            n_epochs=settings.epochs,
            gamma=1.0,
            gae_lambda=1.0,
            clip_range=settings.clip_range,
            ent_coef=settings.entropy,
            policy_kwargs={"choices": self.problem.space.most_choices, "confidence": settings.confidence},
            seed=self.seed,
            device="cpu",
        )
        while True:
            self._agent.learn(steps * settings.episodes, reset_num_timesteps=False)

    def save(self, folder: Path) -> None:
        """Write the agent's network as `agent.safetensors`, and what it is as `agent.json` with its SHA-256."""
        from safetensors.torch import save

        if self._agent is None:
            return
        content = save({name: value.contiguous() for name, value in self._agent.policy.state_dict().items()})
        card = {
            "searcher": "ppo",
            "settings": self.settings.model_dump(),
            "seed": self.seed,
            "features": list(FEATURES),
            "choices": self.problem.space.most_choices,
            "updates": int(self._agent._n_updates) // self.settings.epochs,
            "sha256": sha256_of(content),
        }
        write_atomic(folder / "agent.safetensors", content)
        write_atomic(folder / "agent.json", canonical_json(card) + "\n")


class _Memory:
    """What all episodes share: the best policy so far, if it is to guide them, and the scale of rewards."""

    def __init__(self, problem: Problem, evaluate: Evaluate, guiding: bool) -> None:
        self._problem = problem
        self._evaluate = evaluate
        self._guiding = guiding
        self._rewards: list[float] = []
        self._record = -np.inf
        self.prior: tuple[int, ...] | None = None

    def evaluate(self, policy: Policy) -> Trial:
        """The study's answer."""
        trial = self._evaluate(policy)
        if self._guiding and trial.complete and trial.reward > self._record:
            self.prior, self._record = self._problem.space.choices_of(policy), trial.reward
        return trial

    def standardised(self, reward: float) -> float:
        """The reward in standard deviations above the mean of those before it."""
        past = self._rewards or [reward]
        self._rewards.append(reward)
        return (reward - float(np.mean(past))) / (float(np.std(past)) + 1e-3)


class _Guided(gymnasium.Wrapper[NDArray[np.float32], np.int64, NDArray[np.float32], np.int64]):
    """Adds to the observation how far each choice is from the prior, as `most_choices` numbers; 0 without a prior."""

    def __init__(self, problem: Problem, memory: _Memory) -> None:
        super().__init__(CompressionEnv(problem, memory.evaluate))
        self._memory = memory
        self._position = 0
        size = len(FEATURES) + problem.space.most_choices
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def action_masks(self) -> NDArray[np.bool_]:
        env: CompressionEnv = self.env  # type: ignore[assignment]
        return env.action_masks()

    def reset(self, **options: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        observation, info = self.env.reset(**options)
        self._position = 0
        self._prior = self._memory.prior
        return self._guided(observation), info

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        observation, reward, done, truncated, info = self.env.step(action)
        self._position += 1
        reward = self._memory.standardised(float(reward)) if done else 0.0
        return self._guided(observation), reward, done, truncated, info

    def _guided(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        size = self.observation_space.shape[0] - len(observation)  # type: ignore[index]
        if self._prior is None or self._position >= len(self._prior):
            distance = np.zeros(size, np.float32)
        else:
            distance = -np.abs(np.arange(size, dtype=np.float32) - self._prior[self._position])
        return np.concatenate([observation, distance])


class _ResidualPolicy(MaskableActorCriticPolicy):
    """Actor and critic of one hidden network each; the actor's logits see the distances to the prior directly."""

    def __init__(self, *arguments: Any, choices: int, confidence: float, **named: Any) -> None:
        self._choices = choices
        self._confidence = confidence
        super().__init__(*arguments, **named)

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = _Extractor(self.features_dim, self._choices)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        logits: nn.Linear = self.action_net  # type: ignore[assignment]
        with torch.no_grad():
            logits.weight[:, -self._choices :] = self._confidence * torch.eye(self._choices)


class _Extractor(MlpExtractor):
    """features: `n x (features + choices)`; to the actor `n x (hidden + choices)`, to the critic `n x hidden`."""

    def __init__(self, features: int, choices: int) -> None:
        super().__init__(features, [_HIDDEN, _HIDDEN], nn.Tanh)
        self._choices = choices
        self.latent_dim_pi += choices

    def forward_actor(self, features: Tensor) -> Tensor:
        return torch.cat([super().forward_actor(features), features[:, -self._choices :]], 1)
