"""Exact allocation: the choices of least loss that keep the limits, by dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from automc.environment.problem import Problem
from automc.environment.space import replaced

Floats = NDArray[np.float64]
Choices = tuple[int, ...]
_ROUNDS = 3  # programmes, each with the costs around the solution of the one before
_UNITS = 2000  # in which a programme counts what the limits leave
_EXCHANGES = 40  # that are priced exactly before none is thought to help


def allocate(problem: Problem, losses: Sequence[Floats], share: float = 1.0, start: Choices | None = None) -> Choices:
    """The choices of least total loss of which no cost exceeds `share` of its limit.

    `losses[i][k]` is what choice `k` of decision `i` loses. A layer's cost depends on its input's channels and bits,
    too, so costs are no sums: they are linearised at `start`, or else at the largest choices, the sums are allocated
    exactly, and again around that solution; what the exact costs leave over is exchanged away. Several limits count by
    their sum, in which each weighs more the more it was exceeded. The allocation is that of HAWQ-V3 (Yao et al. 2021,
    section 3.4). Where the limits are not reached, the answer is `problem.cheapest`.
    """
    costs = _Costs(problem, share)
    choices = problem.space.largest() if start is None else start
    weights = np.ones(len(costs.loads(choices)))
    found = [choices]
    for _ in range(_ROUNDS):
        choices = _solve(losses, costs, choices, weights)
        if choices in found:
            break
        found.append(choices)
        weights *= costs.loads(choices)
    lowered = [_lowered(losses, costs, candidate) for candidate in found]
    fitting = [candidate for candidate in lowered if costs.fit(candidate)]
    if not fitting:
        return problem.cheapest
    return _improved(losses, costs, min(fitting, key=lambda candidate: _total(losses, candidate)))


class _Costs:
    """Every limited cost of a policy as a share of what is allowed."""

    def __init__(self, problem: Problem, share: float) -> None:
        self._problem = problem
        self._allowed = {metric: limit * share for metric, limit in problem.limits.costs.items()}

    def loads(self, choices: Choices) -> Floats:
        """One number for each limit; at most 1 where it is kept."""
        cost = self._problem.cost_of(choices)
        return np.array([getattr(cost, metric) / allowed for metric, allowed in self._allowed.items()])

    def fit(self, choices: Choices) -> bool:
        """Whether every limit is kept."""
        return bool((self.loads(choices) <= 1).all())

    def changes(self, choices: Choices) -> list[Floats]:
        """For each decision `choices x limits`: by how much each load grows where only this decision changes."""
        here = self.loads(choices)
        decisions = self._problem.space.decisions
        rows = [
            replaced(choices, position, index)
            for position, decision in enumerate(decisions)
            for index in range(len(decision.choices))
        ]
        changes = self._problem.costs_of(np.array(rows, np.uint8)) / [*self._allowed.values()] - here
        return np.split(changes, np.cumsum([len(decision.choices) for decision in decisions])[:-1])


def _total(losses: Sequence[Floats], choices: Choices) -> float:
    return float(sum(loss[index] for loss, index in zip(losses, choices, strict=True)))


def _solve(losses: Sequence[Floats], costs: _Costs, around: Choices, weights: Floats) -> Choices:
    """The knapsack of one choice for each decision, with the weighted costs linearised at `around`.

    Loads are rounded to the nearest unit, so the solution may exceed the limits by a little.
    """
    changes = [change @ weights for change in costs.changes(around)]
    least = sum(change.min() for change in changes)
    left = float(weights @ (1 - costs.loads(around))) - least
    if left <= 0:
        return tuple(int(change.argmin()) for change in changes)
    best = np.zeros(_UNITS + 1)  # the least loss of the decisions so far within so many units
    taken = []
    for loss, change in zip(losses, changes, strict=True):
        units = np.minimum(np.rint((change - change.min()) / left * _UNITS), _UNITS + 1).astype(int)
        options = np.full((len(loss), _UNITS + 1), np.inf)
        for option, lost, need in zip(options, loss, units, strict=True):
            option[need:] = best[: _UNITS + 1 - need] + lost
        chosen = options.argmin(0)
        best = options.min(0)
        taken.append((chosen, units))
    choices, room = [], _UNITS
    for chosen, units in reversed(taken):
        choices.append(int(chosen[room]))
        room -= units[choices[-1]]
    return tuple(reversed(choices))


def _lowered(losses: Sequence[Floats], costs: _Costs, choices: Choices) -> Choices:
    """Step down, each time where least is lost for the load that is saved, until the exact costs fit."""
    while not costs.fit(choices):
        here, changes = costs.loads(choices), costs.changes(choices)
        steps = []
        for position, index in enumerate(choices):
            for lower in range(index):
                saved = here.max() - (here + changes[position][lower]).max()
                if saved > 0:
                    lost = losses[position][lower] - losses[position][index]
                    steps.append((lost / saved, replaced(choices, position, lower)))
        if not steps:
            break
        choices = min(steps)[1]
    return choices


def _improved(losses: Sequence[Floats], costs: _Costs, choices: Choices) -> Choices:
    """Exchange one or two choices for better ones within the exact costs, the best exchange first, until none helps."""
    while (better := _exchange(losses, costs, choices)) is not None:
        choices = better
    return choices


def _exchange(losses: Sequence[Floats], costs: _Costs, choices: Choices) -> Choices | None:
    moves = [(position, index) for position, loss in enumerate(losses) for index in range(len(loss))]
    gains = np.concatenate([loss[index] - loss for loss, index in zip(losses, choices, strict=True)])
    changes = np.concatenate(costs.changes(choices))
    owners = np.array([position for position, _ in moves])
    # The costs of a pair are not quite the sum of both, so some that seem not to fit are tried, too.
    fits = (changes[:, None, :] + changes[None, :, :] <= 1 - costs.loads(choices) + 1e-3).all(2)
    gain = np.where(fits & (owners[:, None] < owners[None, :]), gains[:, None] + gains[None, :], 0.0)
    for flat in np.argsort(-gain, axis=None, kind="stable")[:_EXCHANGES]:
        first, second = np.unravel_index(flat, gain.shape)
        if gain[first, second] <= 1e-12:
            return None
        candidate = replaced(replaced(choices, *moves[first]), *moves[second])
        if costs.fit(candidate):
            return candidate
    return None
