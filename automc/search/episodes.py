"""`Episodes`: what every agent of Stable-Baselines3 learns in, many policies side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from automc.environment.measures import Floats
from automc.environment.observation import FEATURES, Observer
from automc.environment.problem import Problem, Rows
from automc.environment.space import MAX_CHOICES, replaced
from automc.environment.walk import Walks

_FINE = 6  # powers of ten over which a loss is told from the largest
_LATEST = 1000  # rewards that a new one is compared with

CURVES = (
    *(f"loss_{index}" for index in range(MAX_CHOICES)),  # of each choice alone, in powers of ten; 0 where not measured
    *(f"saving_{index}" for index in range(MAX_CHOICES)),  # ... of the dense cost
    "device_ms",  # the whole network's latency, in powers of ten
    "device_bits",  # what share of its latency remains when all weights and activations have their fewest bits
)
GUIDE = tuple(f"away_{index}" for index in range(MAX_CHOICES))  # minus how far each choice is from the guide's
AGENT_FEATURES = FEATURES + CURVES + GUIDE

Judge = Callable[[Rows, Floats], Sequence[float]]
Actions = Literal["masked", "spread", "continuous"]  # see `Episodes`


class Episodes(VecEnv):
    """`count` walks through the decisions of a problem, side by side.

    At the start `draw` says which share of the limits each may use, and `guide`, if there is one, which policy it may
    hold on to (`walks x decisions`). The reward comes at the end and is what `judge` says of the choices and shares,
    in standard deviations above the mean of the `n` latest before, and at most `sqrt(n)` of them, which is as far as
    one of `n + 1` numbers can lie from their mean. The observation is `AGENT_FEATURES`, of one length for every network
    and search space.

    An action that is `masked` is the index of a choice, which must be one of `action_masks`; one that is `spread` or
    `continuous` needs no mask: it is one of `MAX_CHOICES` numbers, or a number from -1 to 1, and says how far along the
    choices that are allowed the chosen one lies.
    """

    def __init__(
        self,
        problem: Problem,
        count: int,
        judge: Judge,
        losses: Sequence[Floats] | None = None,
        draw: Callable[[int], Floats] = np.ones,
        guide: Callable[[Floats], Rows] | None = None,
        actions: Actions = "masked",
    ) -> None:
        self.render_mode = None
        space: gymnasium.Space[Any] = gymnasium.spaces.Discrete(MAX_CHOICES)
        if actions == "continuous":
            space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        observations = gymnasium.spaces.Box(-np.inf, np.inf, (len(AGENT_FEATURES),), np.float32)
        super().__init__(count, observations, space)
        self._problem, self._judge, self._draw, self._guide = problem, judge, draw, guide
        self._kind = actions
        self._observer = Observer(problem)
        self._curves = _curves(problem, losses)
        self._rewards: list[float] = []
        self._choices = np.zeros(count, np.int64)
        self._begin()

    def reset(self) -> NDArray[np.float32]:
        """Begin with the first decision of all."""
        self._begin()
        return self._observe()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep what is decided."""
        match self._kind:
            case "masked":
                self._choices = actions.astype(np.int64)
            case "spread":
                self._choices = self._along(actions / MAX_CHOICES)
            case "continuous":
                self._choices = self._along((np.clip(actions[:, 0], -1, 1) + 1) / 2)

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Decide; after the last decision, judge and begin anew. Raises `InvalidAction` for what is masked."""
        walks = self._walks
        walks.choose(self._choices)
        rewards = np.zeros(self.num_envs, np.float32)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        done = walks.done
        if done:
            infos = [{"terminal_observation": row} for row in self._observe()]
            rewards[:] = self._standardised(self._judge(walks.chosen.copy(), walks.shares))
            self._begin()
        return self._observe(), rewards, np.full(self.num_envs, done), infos

    def action_masks(self) -> NDArray[np.bool_]:
        """`walks x MAX_CHOICES`: which indices may be chosen."""
        allowed = self._walks.allowed()
        return np.pad(allowed, ((0, 0), (0, MAX_CHOICES - allowed.shape[1])))

    def _begin(self) -> None:
        self._walks = Walks(self._problem, self._draw(self.num_envs).tolist())
        self._guides = None if self._guide is None else self._guide(self._walks.shares)

    def _observe(self) -> NDArray[np.float32]:
        position = min(self._walks.position, len(self._problem.space.decisions) - 1)
        away = np.zeros((self.num_envs, MAX_CHOICES), np.float32)
        if self._guides is not None:
            away = -np.abs(np.arange(MAX_CHOICES, dtype=np.float32) - self._guides[:, position, None])
        curves = np.tile(self._curves[position], (self.num_envs, 1))
        return np.concatenate([self._observer.observe(self._walks), curves, away], 1, dtype=np.float32)

    def _along(self, places: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """The allowed choices at these places from 0 to 1, of which each has as large a share."""
        allowed = self._walks.allowed()
        counts = allowed.sum(1)
        ranks = np.minimum(places * counts, counts - 1).astype(np.int64)
        return np.array([np.flatnonzero(row)[rank] for row, rank in zip(allowed, ranks, strict=True)])

    def _standardised(self, rewards: Sequence[float]) -> Floats:
        past = self._rewards[-_LATEST:] or [*rewards]
        self._rewards.extend(rewards)
        # Few rewards, or equal ones, say little of how far the next may lie: it counts as far as it could among them.
        most = math.sqrt(len(past))
        above: Floats = np.clip((np.array(rewards) - np.mean(past)) / (np.std(past) + 1e-3), -most, most)
        return above

    def env_method(self, method_name: str, *arguments: Any, indices: Any = None, **named: Any) -> list[Any]:
        return [*getattr(self, method_name)(*arguments, **named)]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self, attr_name, value)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs

    def close(self) -> None:
        """Nothing is open."""


def _curves(problem: Problem, losses: Sequence[Floats] | None) -> NDArray[np.float32]:
    """`decisions x CURVES`."""
    space, limits = problem.space, problem.limits
    largest = space.largest()
    dense = limits.ratio(problem.dense_cost)
    most = max(float(loss.max()) for loss in losses) if losses is not None else 0.0
    narrow = tuple(
        index if decision.kind == "keep_ratio" else 0 for decision, index in zip(space.decisions, largest, strict=True)
    )
    device = [
        math.log10(problem.dense_cost.latency_ms) / 3,
        problem.cost_of(narrow).latency_ms / problem.cost_of(largest).latency_ms,
    ]
    rows = []
    for position, decision in enumerate(space.decisions):
        changed = [replaced(largest, position, index) for index in range(len(decision.choices))]
        used = problem.costs_of(np.array([largest, *changed], np.uint8)) @ limits.weights / dense
        heights = np.zeros(len(changed))
        if losses is not None and most > 0:
            heights = 1 + np.log10(np.maximum(losses[position] / most, 10.0**-_FINE)) / _FINE
        rows.append([*_padded(heights), *_padded(used[0] - used[1:]), *device])
    return np.array(rows, np.float32)


def _padded(values: Floats) -> Floats:
    return np.pad(values, (0, MAX_CHOICES - len(values)))
