"""`Predictor`: what a policy will lose, learned from the trials as they come; it proposes, and is never reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from automc.environment.problem import Floats, Rows

# How large is what is not known, relative to each other: chosen by how well it ranks logged policies of ResNet-20.
_FACTOR = 1.0  # of the factor of all losses together
_OWN = 0.6  # of the factor of each decision's losses
_CHOICE = 0.15  # of the factor of each choice's loss
_PAIR = 0.3  # of the correlation of two decisions' perturbations
_REST = 0.05  # of what depends on all choices together, as a share of the error
_REACH = 0.3  # the share of decisions over which the rest changes
_NOISE = 0.01  # of what no model explains, as a share of the error
_TRIALS = 400  # those of least error that are learned from
_LEAST = 0.02  # of the sum of losses: no error is predicted to be less


class _Solved(NamedTuple):
    """The trials that are learned from, `n x decisions`; the inverse of their covariance's root; their weights; and how
    large what is not known turned out to be."""

    rows: Rows
    inverse: Floats
    weights: Floats
    scale: float


class Predictor:
    """A Gaussian process over the logit errors of policies.

    A choice perturbs the logits; the error is the squared length of the sum of all perturbations. So it is the sum of
    what the choices lose alone, which is known, and of twice the inner products of the perturbations, which are not:
    they are learned from the trials, with how far each loss is off in the company of the others. In terms of
    covariance: for losses `l` and their roots `q`, all inner products together give `(q . q')^2`.

    `losses[i][k]` is what choice `k` of decision `i` loses alone.
    """

    def __init__(self, losses: Sequence[Floats]) -> None:
        self._table = np.zeros((len(losses), max(map(len, losses))))
        for row, loss in zip(self._table, losses, strict=True):
            row[: len(loss)] = loss
        self._rows: list[NDArray[np.uint8]] = []
        self._errors: list[float] = []
        self._solved: _Solved | None = None

    def observe(self, choices: Sequence[int], error: float) -> None:
        """A trial of `choices` was seen to have `error`."""
        self._rows.append(np.array(choices, np.uint8))
        self._errors.append(max(error, 1e-12))
        self._solved = None

    def predict(self, rows: Rows) -> tuple[Floats, Floats]:
        """What error is expected of each of `n` choices, and its standard deviation, each `n`."""
        prior, variance = self._alone(rows).sum(1), self._variance(rows)
        if not self._errors:
            return prior, np.sqrt(variance)
        known, inverse, weights, scale = self._learned()
        covariance = self._covariance(rows, known)
        explained = np.square(covariance @ inverse.T).sum(1)
        mean = np.maximum(prior + covariance @ weights, _LEAST * prior)
        return mean, scale * np.sqrt(np.maximum(variance - explained, 0.0))

    def _learned(self) -> _Solved:
        if self._solved is None:
            near = np.argsort(self._errors, kind="stable")[:_TRIALS]
            rows, errors = np.array(self._rows)[near], np.array(self._errors)[near]
            covariance = self._covariance(rows, rows) + np.diag(np.square(_NOISE * errors))
            inverse = np.linalg.inv(np.linalg.cholesky(covariance))
            surprises = inverse @ (errors - self._alone(rows).sum(1))
            # The first, how far all losses are off together, says little of how far the others are.
            scale = np.sqrt((1 + np.square(surprises[1:]).sum()) / (1 + len(surprises)))
            self._solved = _Solved(rows, inverse, inverse.T @ surprises, float(scale))
        return self._solved

    def _alone(self, rows: Rows) -> Floats:
        """`n x decisions`: what each choice loses alone."""
        return self._table[np.arange(len(self._table)), rows]

    def _covariance(self, rows: Rows, others: Rows) -> Floats:
        alone, other = self._alone(rows), self._alone(others)
        own = alone @ other.T
        roots, other_roots = np.sqrt(alone), np.sqrt(other)
        pairs = np.square(roots @ other_roots.T) - own
        same = np.zeros_like(own)
        alike = np.zeros_like(own)
        for choice in range(self._table.shape[1]):
            mine, theirs = rows == choice, others == choice
            same += (alone * mine) @ (other * theirs).T
            alike += mine.astype(np.float64) @ theirs.T
        sums = np.outer(alone.sum(1), other.sum(1))
        rest = np.exp((alike / len(self._table) - 1) / _REACH)
        covariance: Floats = sums * (_FACTOR**2 + _REST**2 * rest) + _PAIR**2 * pairs
        covariance += _OWN**2 * own + _CHOICE**2 * same
        return covariance

    def _variance(self, rows: Rows) -> Floats:
        alone = self._alone(rows)
        sums, squares = np.square(alone.sum(1)), np.square(alone).sum(1)
        variance: Floats = sums * (_FACTOR**2 + _REST**2) + _PAIR**2 * (sums - squares)
        variance += (_OWN**2 + _CHOICE**2) * squares
        return variance
