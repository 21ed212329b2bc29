"""`Agent`: what all agents of Stable-Baselines3 share: how they meet a problem, and how they are saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from torch import Tensor

from automc.environment.measures import Floats
from automc.environment.observation import require_shown
from automc.environment.problem import Problem, Rows
from automc.environment.sensitivity import single_losses
from automc.errors import ConfigError, CorruptFile
from automc.files import canonical_json, sha256_of, write_atomic
from automc.search.episodes import AGENT_FEATURES, Actions, Episodes
from automc.search.identity import library_versions
from automc.search.searchers.base import Evaluate, Searcher
from automc.search.searchers.saved import CARD, NETWORK, read_saved
from automc.search.trials import Trial


class Agent(Searcher):
    """A network that decides, of one shape for every problem, and learns by an algorithm of Stable-Baselines3.

    An episode is a policy and a trial; its reward comes at the end and is not discounted. What each choice loses alone
    is measured before the first, and seen with every decision.

    Stable-Baselines3 seeds the global generators of Python, NumPy and torch with this searcher's seed, and draws from
    torch's.
    """

    name: ClassVar[str]
    learns = True
    actions: ClassVar[Actions] = "spread"
    learner: BaseAlgorithm | None = None

    def __init__(self, problem: Problem, settings: Any, seed: int) -> None:
        super().__init__(problem, settings, seed)
        require_shown(problem.space)
        self.steps = len(problem.space.decisions)
        self._loaded = load_network(Path(settings.agent), self.name) if settings.agent else None

    def build(self, episodes: Episodes) -> BaseAlgorithm:
        """The algorithm with a fresh network."""
        raise NotImplementedError

    @property
    def at_once(self) -> int:
        """How many episodes there are before the agent learns from them."""
        return 1

    @property
    def asks_side_by_side(self) -> bool:
        return self.at_once > 1

    def begin(self, episodes: Episodes) -> BaseAlgorithm:
        """The algorithm, its network fresh or loaded."""
        learner = self.learner = self.build(episodes)
        learner.set_logger(Logger(folder=None, output_formats=[]))  # its own would make a folder for temporary files
        if self._loaded is not None:
            learner.policy.load_state_dict(self._loaded)
        return learner

    def update(self, learner: BaseAlgorithm) -> None:
        """Walk all episodes to their end, and learn from them."""
        learner.learn(self.steps * self.at_once, reset_num_timesteps=False)

    def run(self, evaluate: Evaluate) -> None:
        policy = self.problem.space.policy

        def judge(rows: Rows, shares: Floats) -> list[float]:
            return [trial.reward for trial in evaluate.many(map(policy, rows.tolist()))]

        losses = single_losses(self.problem)
        learner = self.begin(Episodes(self.problem, self.at_once, judge, losses, actions=self.actions))
        while True:
            self.update(learner)

    def save(self, folder: Path, trials: Sequence[Trial]) -> None:
        """Write the agent's network as `agent.safetensors`, and what it is as `agent.json` with its SHA-256."""
        from safetensors.torch import save

        if self.learner is None:
            return
        content = save({name: value.contiguous() for name, value in self.learner.policy.state_dict().items()})
        problem, spec = self.problem, self.problem.spec
        card = {
            "searcher": self.name,
            "settings": self.settings.model_dump(),
            "seed": self.seed,
            "environment": problem.name,
            "network": problem.network.name,
            "device": spec.device,
            "target": problem.target,
            "metric": spec.metric,
            "goal": spec.goal.model_dump(mode="json"),
            "limits": dict(problem.limits.costs),
            "hashes": dict(problem.identity),
            "trials": len(trials),
            "best_reward": max((trial.reward for trial in trials if trial.complete), default=None),
            "versions": library_versions(),
            "features": list(AGENT_FEATURES),
            "sha256": sha256_of(content),
        }
        write_atomic(folder / NETWORK, content)
        write_atomic(folder / CARD, canonical_json(card) + "\n")


def load_network(folder: Path, name: str) -> dict[str, Tensor]:
    """The network of an agent called `name` that was saved in `folder`.

    Raises `ConfigError` where there is none, or it is another kind of agent or sees other features; `CorruptFile` where
    it is not the one that the card speaks of.
    """
    from safetensors.torch import load

    text, content = read_saved(folder)
    try:
        card = json.loads(text)
        kind, features, digest = card["searcher"], card["features"], card["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{folder / CARD}: not the card of an agent: {error}") from error
    if kind != name:
        raise ConfigError(f"agent: {folder} holds an agent of '{kind}', which '{name}' cannot take over")
    if features != list(AGENT_FEATURES):
        raise ConfigError(f"agent: the agent in {folder} was trained to see other features than those of this version")
    if sha256_of(content) != digest:
        raise CorruptFile(f"{folder / NETWORK}: its SHA-256 is not the one of {CARD}")
    network: dict[str, Tensor] = load(content)
    if not all(bool(torch.isfinite(value).all()) for value in network.values()):
        raise CorruptFile(f"{folder / NETWORK}: holds numbers that are not finite")
    return network
