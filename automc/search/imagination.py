"""`Imagination`: what an agent's policies would earn, by what the trials have taught, and which of them to try next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from automc.environment.factors import COSTS
from automc.environment.measures import Floats
from automc.environment.metrics import loss_column
from automc.environment.problem import Problem, Rows
from automc.environment.space import Choices
from automc.search.allocation import allocate, largest
from automc.search.predictor import Predictor
from automc.search.trials import Trial

_KEPT = 64  # imagined policies that are remembered
_ROUNDS = 2  # of exchanging
_EXCHANGES = 100  # in a round
_SLACK = 1e-3  # of the limits: the costs of two changes are not quite the sum of both


class _Expected(NamedTuple):
    """What a reward depends on, of a policy that was not evaluated; a cost that has no limit is 0."""

    quality: float
    quality_loss: float
    latency_ms: float
    energy_mj: float
    size_bytes: int
    macs: int


class Imagination:
    """Predicts rewards of policies, remembers the most promising that were not tried, and the best of all.

    A policy's reward is that of the quality which is expected of it, with `optimism` standard deviations in its favour,
    so that what is not known is worth a trial.
    """

    def __init__(self, problem: Problem, losses: Sequence[Floats], optimism: float) -> None:
        self._problem = problem
        self._predictor = Predictor(losses)
        self.optimism = optimism
        self._tried: dict[Choices, float] = {}  # with their rewards
        self._imagined: dict[Choices, None] = {}
        self._whole_quality = 0.0

    def observe(self, choices: Choices, trial: Trial) -> None:
        """Learn from a trial; of one that failed, only not to try it again."""
        self._tried[choices] = trial.reward if trial.complete else -np.inf
        self._imagined.pop(choices, None)
        if trial.complete:
            column = self._problem.metric.reading.column
            loss = trial.metrics[loss_column(column)]
            self._predictor.observe(choices, trial.metrics["logit_error"], loss)
            self._whole_quality = trial.metrics[column] + loss

    def rewards(self, rows: Rows) -> Floats:
        """What each of `n` choices would earn."""
        losses = self._predictor.lost(rows, self.optimism)
        qualities, costs = self._whole_quality - losses, self._problem.costs_of(rows)
        known = dict(zip(self._problem.limits.costs, costs.T.tolist(), strict=True))
        columns = [known.get(metric, [0.0] * len(rows)) for metric in COSTS]
        expected_of = map(_Expected, qualities.tolist(), losses.tolist(), *columns)
        return np.array([*map(self._problem.reward, expected_of)])

    def remember(self, rows: Rows) -> None:
        """Keep the most promising of these and of those that are remembered, for a trial."""
        rows = rows[self._within(rows, 1.0)]
        self._imagined |= dict.fromkeys(choices for choices in map(tuple, rows.tolist()) if choices not in self._tried)
        if len(self._imagined) > _KEPT:
            known = [*self._imagined]
            order = np.argsort(-self.rewards(_rows(known)), kind="stable")[:_KEPT]
            self._imagined = {known[index]: None for index in order}

    def _within(self, rows: Rows, share: float) -> NDArray[np.bool_]:
        """Which of `n` choices keep a share of the limits, as exactly as `Limits.fits`; all, where limits are soft."""
        if not self._problem.limits.hard:
            return np.ones(len(rows), np.bool_)
        limits = np.array([*self._problem.limits.costs.values()]) * share
        within: NDArray[np.bool_] = np.all(self._problem.costs_of(rows) <= limits, axis=1)
        return within

    def proposal(self, share: float) -> Choices | None:
        """The most promising choices within a share of the limits that were not tried; None where none are known."""
        if not self._imagined:
            return None
        known = [*self._imagined]
        rewards = np.where(self._within(_rows(known), share), self.rewards(_rows(known)), -np.inf)
        return known[int(rewards.argmax())] if np.isfinite(rewards).any() else None

    def best(self, shares: Floats) -> Rows:
        """For each share of the limits the most promising choices that keep it, tried or not; or else the cheapest."""
        known = _rows([*self._tried, *self._imagined])
        imagined = self.rewards(_rows([*self._imagined])) if self._imagined else np.empty(0)
        rewards = np.append([*self._tried.values()], imagined)
        found = {}
        for share in dict.fromkeys(shares.tolist()):
            fitting = np.where(self._within(known, share), rewards, -np.inf)
            within = np.isfinite(fitting).any()
            found[share] = known[fitting.argmax()] if within else _rows([self._problem.cheapest_within(share)])[0]
        return np.array([found[share] for share in shares.tolist()])

    def improve(self, share: float) -> None:
        """Remember the exact allocation of what is predicted around the best, and then what exchanging its choices
        leads to, until nothing better is found."""
        best = self._best(share)
        _, gains = self._changes(best)
        lost = self._problem.space.by_decision(-gains)
        self.remember(_rows([allocate(self._problem, lost, share, best)]))
        best = self._best(share)
        for _ in range(_ROUNDS):
            self.remember(self._exchanges(best, *self._changes(best), share))
            before, best = best, self._best(share)
            if best == before:
                break

    def _best(self, share: float) -> Choices:
        return tuple(self.best(np.array([share]))[0].tolist())

    def _changes(self, best: Choices) -> tuple[Rows, Floats]:
        """The best with each choice of each decision, and what that gains."""
        rows = self._problem.space.moved(best)
        return rows, self.rewards(rows) - self.rewards(_rows([best]))

    def _exchanges(self, best: Choices, rows: Rows, gains: Floats, share: float) -> Rows:
        """The best with one or two choices changed: those that promise most, where gains and costs add up."""
        here, moving = _rows([best]), (rows != np.array(best)).any(1)
        # A first change of nothing, so that single ones are pairs, too.
        changed = np.append(-1, self._problem.space.moves[0][moving])
        rows, gains = np.append(here, rows[moving], 0), np.append(0.0, gains[moving])
        limits = np.array([*self._problem.limits.costs.values()]) * share
        used = self._problem.costs_of(rows) / limits
        saved, left = used[0] - used, 1 - used[0]
        gain = np.where(changed[:, None] < changed[None, :], gains[:, None] + gains[None, :], -np.inf)
        if self._problem.limits.hard:
            gain[((left + saved[:, None] + saved[None, :]) < -_SLACK).any(2)] = -np.inf
        chosen = largest(gain, min(_EXCHANGES, np.isfinite(gain).sum()))
        first, second = np.unravel_index(chosen, gain.shape)
        found = rows[first]
        found[np.arange(len(second)), changed[second]] = rows[second, changed[second]]
        return found


def _rows(choices: Sequence[Choices]) -> Rows:
    return np.array(choices, np.uint8)
