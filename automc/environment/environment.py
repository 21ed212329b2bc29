"""`CompressionEnv`: the search for a policy as a Gymnasium environment, one decision a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from automc.catalog import find
from automc.compression.policy import Policy
from automc.environment.evaluator import Evaluator
from automc.environment.loading import load_problem
from automc.environment.observation import FEATURES, Observer
from automc.environment.problem import Problem
from automc.environment.walk import Walk
from automc.errors import InvalidAction
from automc.reading import read_spec
from automc.schema import EnvironmentSpec


class Answer(Protocol):
    """What `evaluate` answers: an `Outcome`, or a study's trial."""

    @property
    def metrics(self) -> Mapping[str, Any]: ...
    @property
    def reward(self) -> float: ...
    @property
    def reason(self) -> str: ...


class CompressionEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Walks the decisions of a problem's search space; an action is the index of a choice, in ascending order.

    The observation is `len(FEATURES)` float32 in [-1, 1] (see `observation.FEATURES`). The reward is 0 until the last
    decision, then the goal's reward for the finished policy. Under a hard goal every episode ends within the
    budget: `action_masks` says which choices keep it; an action that does not, or that this decision does not have, is
    replaced by the nearest allowed one, and `info["clipped"]` says so.

    `evaluate` answers with the finished policy's metrics and reward; without it, the policy is evaluated here.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(self, problem: Problem, evaluate: Callable[[Policy], Answer] | None = None) -> None:
        self.problem = problem
        self._evaluate: Callable[[Policy], Answer] = evaluate or Evaluator(problem).outcome
        self._observer = Observer(problem)
        self._walk: Walk | None = None
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (len(FEATURES),), np.float32)
        self._actions = gymnasium.spaces.Discrete(problem.space.most_choices)
        self.action_space = self._actions

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin with the first decision. Nothing is random, so every seed gives the same."""
        super().reset(seed=seed, options=options)
        self._walk = Walk(self.problem)
        return self._observer.observe(self._walk.walks)[0], {}

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Decide what is asked now.

        At the end, `info` holds `policy` (plain data), `metrics`, and `failure` where the evaluation failed.
        Raises `ResetNeeded` before `reset` and after the end, `InvalidAction` for what is not in `action_space`.
        """
        walk = self._begun()
        if not self._actions.contains(action):
            raise InvalidAction(
                f"an action must be a whole number in 0..{self._actions.n - 1}. Got {action!r} instead."
            )
        index = walk.nearest(int(action))
        walk.choose(index)
        info: dict[str, Any] = {"clipped": index != int(action)}
        reward = 0.0
        if walk.done:
            answer = self._evaluate(walk.policy)
            reward = float(answer.reward)
            info |= {"policy": walk.policy.model_dump(mode="json"), "metrics": dict(answer.metrics)}
            if answer.reason:
                info["failure"] = answer.reason
        return self._observer.observe(walk.walks)[0], reward, walk.done, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """`action_space.n` booleans: which actions are taken as they are. Never none of them."""
        allowed = self._begun().allowed()
        return np.pad(allowed, (0, int(self._actions.n) - len(allowed)))

    def _begun(self) -> Walk:
        if self._walk is None or self._walk.done:
            raise ResetNeeded("call reset() before the first decision and after the last")
        return self._walk


def make_environment(name: str, weights: str | Path | None = None, overrides: tuple[str, ...] = ()) -> CompressionEnv:
    """The environment of a file in `envs/`: what `gymnasium.make("automc:automc/<name>-v0")` calls.

    `weights` replaces the file's weights; `overrides` are laid over it, as in `("data.search=100",)`.
    """
    path = find("envs", name)
    return CompressionEnv(load_problem(read_spec(EnvironmentSpec, path, tuple(overrides)), path, weights))
