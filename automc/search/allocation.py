"""Exact allocation: the choices of least loss that keep the limits, by dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from automc.environment.measures import Floats
from automc.environment.problem import Problem
from automc.environment.space import Choices, SearchSpace, replaced

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
    costs, lost = _Costs(problem, share), _Losses(losses, problem.space)
    choices = problem.space.largest() if start is None else start
    weights = np.ones(len(costs.loads(choices)))
    found = [choices]
    for _ in range(_ROUNDS):
        choices = _solve(lost, costs, choices, weights)
        if choices in found:
            break
        found.append(choices)
        weights *= costs.loads(choices)
    lowered = [_lowered(lost, costs, candidate) for candidate in found]
    fitting = [candidate for candidate in lowered if costs.fit(candidate)]
    if not fitting:
        return problem.cheapest
    return _improved(lost, costs, min(fitting, key=lost.total))


class _Costs:
    """Every limited cost of a policy as a share of what is allowed."""

    def __init__(self, problem: Problem, share: float) -> None:
        self._problem, self.space = problem, problem.space
        self._allowed = {metric: limit * share for metric, limit in problem.limits.costs.items()}

    def loads(self, choices: Choices) -> Floats:
        """One number for each limit; at most 1 where it is kept."""
        cost = self._problem.cost_of(choices)
        return np.array([getattr(cost, metric) / allowed for metric, allowed in self._allowed.items()])

    def fit(self, choices: Choices) -> bool:
        """Whether every limit is kept."""
        return bool((self.loads(choices) <= 1).all())

    def changes(self, choices: Choices) -> Floats:
        """`moves x limits`: by how much each load grows where one decision changes (see `SearchSpace.moves`)."""
        rows = self.space.moved(choices)
        changes: Floats = self._problem.costs_of(rows) / [*self._allowed.values()] - self.loads(choices)
        return changes


class _Losses:
    """What choices lose in all the moves of a search space."""

    def __init__(self, losses: Sequence[Floats], space: SearchSpace) -> None:
        self.of_each = losses
        self.owners, self.indices = space.moves
        self._flat = np.concatenate(losses)
        self._begins = np.searchsorted(self.owners, np.arange(len(losses)))

    def total(self, choices: Choices) -> float:
        return float(self._flat[self._begins + choices].sum())

    def changes(self, choices: Choices) -> Floats:
        """`moves`: how much more each loses."""
        changes: Floats = self._flat - self._flat[self._begins + choices][self.owners]
        return changes

    def moved(self, choices: Choices, move: int) -> Choices:
        return replaced(choices, int(self.owners[move]), int(self.indices[move]))


def _solve(losses: _Losses, costs: _Costs, around: Choices, weights: Floats) -> Choices:
    """The knapsack of one choice for each decision, with the weighted costs linearised at `around`.

    Loads are rounded to the nearest unit, so the solution may exceed the limits by a little.
    """
    changes = costs.space.by_decision(costs.changes(around) @ weights)
    least = sum(change.min() for change in changes)
    left = float(weights @ (1 - costs.loads(around))) - least
    if left <= 0:
        return tuple(int(change.argmin()) for change in changes)
    best = np.zeros(_UNITS + 1)  # the least loss of the decisions so far within so many units
    taken = []
    for loss, change in zip(losses.of_each, changes, strict=True):
        units = np.minimum(np.rint((change - change.min()) / left * _UNITS), _UNITS + 1).astype(int)
        least, chosen = np.full(_UNITS + 1, np.inf), np.zeros(_UNITS + 1, np.int64)
        for index, (lost, need) in enumerate(zip(loss, units, strict=True)):
            option = best[: _UNITS + 1 - need] + lost
            better = option < least[need:]
            least[need:][better] = option[better]
            chosen[need:][better] = index
        best = least
        taken.append((chosen, units))
    choices, room = [], _UNITS
    for chosen, units in reversed(taken):
        choices.append(int(chosen[room]))
        room -= units[choices[-1]]
    return tuple(reversed(choices))


def _lowered(losses: _Losses, costs: _Costs, choices: Choices) -> Choices:
    """Step down, each time where least is lost for the load that is saved, until the exact costs fit."""
    while not costs.fit(choices):
        here = costs.loads(choices)
        saved = here.max() - (here + costs.changes(choices)).max(1)
        down = (losses.indices < np.array(choices)[losses.owners]) & (saved > 0)
        if not down.any():
            break
        price = np.full(len(down), np.inf)
        price[down] = losses.changes(choices)[down] / saved[down]
        choices = losses.moved(choices, int(price.argmin()))
    return choices


def _improved(losses: _Losses, costs: _Costs, choices: Choices) -> Choices:
    """Exchange one or two choices for better ones within the exact costs, the best exchange first, until none helps."""
    while (better := _exchange(losses, costs, choices)) is not None:
        choices = better
    return choices


def _exchange(losses: _Losses, costs: _Costs, choices: Choices) -> Choices | None:
    gains, changes, owners = -losses.changes(choices), costs.changes(choices), losses.owners
    # The costs of a pair are not quite the sum of both, so some that seem not to fit are tried, too.
    fits = (changes[:, None, :] + changes[None, :, :] <= 1 - costs.loads(choices) + 1e-3).all(2)
    gain = np.where(fits & (owners[:, None] < owners[None, :]), gains[:, None] + gains[None, :], 0.0)
    for flat in largest(gain, _EXCHANGES):
        first, second = np.unravel_index(flat, gain.shape)
        if gain[first, second] <= 1e-12:
            return None
        candidate = losses.moved(losses.moved(choices, int(first)), int(second))
        if costs.fit(candidate):
            return candidate
    return None


def largest(values: Floats, count: int) -> NDArray[np.int64]:
    """Where the `count` largest of all values lie, the largest first, as indices into them laid out flat."""
    flat = values.ravel()
    found = np.argpartition(-flat, min(count, flat.size) - 1)[:count]
    order: NDArray[np.int64] = found[np.lexsort((found, -flat[found]))]
    return order
