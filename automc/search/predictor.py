"""`Predictor`: what a policy will lose, learned from the trials as they come; it proposes, and is never reported."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from automc.environment.measures import Floats
from automc.environment.problem import Rows

# How large is what is not known, relative to each other: chosen by how well it ranks logged policies of ResNet-20.
_FACTOR = 1.0  # of the factor of all losses together
_OWN = 0.6  # of the factor of each decision's losses
_CHOICE = 0.15  # of the factor of each choice's loss
_PAIR = 0.3  # of the correlation of two decisions' perturbations
_REST = 0.05  # of what depends on all choices together, as a share of the error
_REACH = 0.3  # the share of decisions over which the rest changes
_NOISE = 0.01  # of what no model explains, as a share of the error
_ALIGNED = 0.5  # of the correlation of the perturbations by two choices of one decision
_TRIALS = 400  # those of least error that are learned from
_LEAST = 0.02  # of the sum of losses: no error is predicted to be less
_LEAST_SHARE = 0.1  # of the error that is expected: no optimism goes below it
_NEAR = 2.5  # times the least error: trials that tell what the errors leave unexplained
_CHANCES = (0.1, 0.3, 1.0, 3.0, 10.0)  # variances of chance, of which the likeliest counts, relative to what is learned


class Predictor:
    """Gaussian processes over the logit errors of policies and over what they lose of quality.

    A choice perturbs the logits; the error is the squared length of the sum of all perturbations. So it is the sum of
    what the choices lose alone, which is known, and of twice the inner products of the perturbations, which are not:
    they are learned from the trials, with how far each loss is off in the company of the others. In terms of
    covariance: for losses `l` and their roots `q`, all inner products together give `(q . q')^2`.

    A quality such as the accuracy follows the error, but not quite: some perturbations cross no margin between classes.
    It loses a price for each unit of error, a line through zero that is fitted to the trials, the better ones counting
    more; and a remainder, which changes to first order with the sum of the perturbations (covariance `q . q'`). How
    much of the remainder is chance, as of few images, is what makes the trials likeliest.

    `losses[i][k]` is the logit error of choice `k` of decision `i` alone.
    """

    def __init__(self, losses: Sequence[Floats]) -> None:
        self._table = np.concatenate([np.asarray(loss, np.float64) for loss in losses])
        self._begins = np.cumsum([0, *map(len, losses)])[:-1]  # of each decision's choices in the table
        self._rows: list[tuple[int, ...]] = []
        self._errors: list[float] = []
        self._lost: list[float] = []

    def observe(self, choices: Sequence[int], error: float, lost: float) -> None:
        """A trial of `choices` was seen to have a logit error, and to lose so much of quality."""
        self._rows.append(tuple(choices))
        self._errors.append(max(error, 1e-12))
        self._lost.append(lost)
        for fitted in ("_known", "_error", "_remainder", "_price"):
            self.__dict__.pop(fitted, None)

    def error(self, rows: Rows) -> tuple[Floats, Floats]:
        """What error is expected of each of `n` choices, and its standard deviation, each `n`."""
        return self._expected_error(self._perturbed(rows))

    def lost(self, rows: Rows, optimism: float = 0.0) -> Floats:
        """What each of `n` choices is expected to lose of quality, with `optimism` standard deviations of what is not
        known, of the error as of the remainder, in its favour."""
        asked = self._perturbed(rows)
        error, deviation = self._expected_error(asked)
        if not self._errors:
            return np.maximum(error - optimism * deviation, _LEAST_SHARE * error)
        near = self._remainder
        covariance = _remaining(asked, near.known)
        variance = asked.losses.sum(1) / near.known.mean + 1
        unknown = np.maximum(variance - np.square(covariance @ near.inverse.T).sum(1), 0.0)
        lost: Floats = self._price * error + covariance @ near.weights
        doubt = np.minimum(deviation, (1 - _LEAST_SHARE) * error / max(optimism, 1e-9))  # no error is below nothing
        hopeful: Floats = lost - optimism * np.hypot(self._price * doubt, near.scale * np.sqrt(unknown))
        return hopeful

    def _expected_error(self, asked: _Perturbed) -> tuple[Floats, Floats]:
        prior, variance = asked.losses.sum(1), _variance(asked)
        if not self._errors:
            return prior, np.sqrt(variance)
        solved = self._error
        covariance = _covariance(asked, solved.known)
        explained = np.square(covariance @ solved.inverse.T).sum(1)
        mean = np.maximum(prior + covariance @ solved.weights, _LEAST * prior)
        return mean, solved.scale * np.sqrt(np.maximum(variance - explained, 0.0))

    def _perturbed(self, rows: Rows) -> _Perturbed:
        places = rows.astype(np.int64) + self._begins
        chosen = np.zeros((len(rows), len(self._table)))
        np.put_along_axis(chosen, places, 1.0, 1)
        losses = self._table[places]
        return _Perturbed(losses, np.sqrt(losses), chosen, self._table)

    @cached_property
    def _known(self) -> tuple[_Perturbed, Floats, Floats]:
        """The trials of least error: their choices, errors, and what they lose."""
        near = np.argsort(self._errors, kind="stable")[:_TRIALS]
        rows = np.array(self._rows, np.uint8)[near]
        return self._perturbed(rows), np.array(self._errors)[near], np.array(self._lost)[near]

    @cached_property
    def _error(self) -> _Solved:
        known, errors, _ = self._known
        covariance = _covariance(known, known) + np.diag(np.square(_NOISE * errors))
        inverse = np.linalg.inv(np.linalg.cholesky(covariance))
        surprises = inverse @ (errors - known.losses.sum(1))
        # The first, how far all losses are off together, says little of how far the others are.
        scale = np.sqrt((1 + np.square(surprises[1:]).sum()) / (1 + len(surprises)))
        return _Solved(known, inverse, inverse.T @ surprises, float(scale))

    @cached_property
    def _price(self) -> float:
        """What a unit of error costs in quality; so much at least that twice the least error costs what chance does.

        On few images the first trials may be better than the dense network, and errors then seem to cost nothing.
        """
        _, errors, lost = self._known
        weights = np.square(errors[0] / errors)
        through_zero = (weights * lost * errors).sum() / (weights * errors * errors).sum()
        return max(float(through_zero), float(lost[errors <= _NEAR * errors[0]].std() / errors[0]), 1e-9)

    @cached_property
    def _remainder(self) -> _Solved:
        known, errors, lost = self._known
        count = int((errors <= _NEAR * errors[0]).sum())
        known = _Perturbed(known.losses[:count], known.roots[:count], known.chosen[:count], known.table)
        values = (lost - self._price * errors)[:count]
        covariance = _remaining(known, known)
        best, solved = -np.inf, None
        for chance in _CHANCES:
            root = np.linalg.cholesky(covariance + chance * np.eye(count))
            inverse = np.linalg.inv(root)
            surprises = inverse @ values
            variance = float(np.square(surprises).sum() / count)  # the likeliest scale of both
            likelihood = -count / 2 * np.log(max(variance, 1e-30)) - np.log(np.diag(root)).sum()
            if likelihood > best:
                best, solved = likelihood, _Solved(known, inverse, inverse.T @ surprises, float(np.sqrt(variance)))
        assert solved is not None  # one of them is the likeliest
        return solved


class _Perturbed(NamedTuple):
    """What `n` policies perturb: `n x decisions` losses alone and their roots; `n x all choices`, 1 where chosen; and
    the losses of all choices."""

    losses: Floats
    roots: Floats
    chosen: Floats
    table: Floats

    @property
    def mean(self) -> float:
        """The mean of what all choices together lose."""
        return max(float(self.losses.sum(1).mean()), 1e-12)


class _Solved(NamedTuple):
    """The trials that are learned from; the inverse of their covariance's root; their weights; and how large what is
    not known turned out to be."""

    known: _Perturbed
    inverse: Floats
    weights: Floats
    scale: float


def _alike(asked: _Perturbed, known: _Perturbed) -> Floats:
    """`n x m`: 1 where all choices are equal, and less the more differ."""
    alike: Floats = np.exp((asked.chosen @ known.chosen.T / asked.losses.shape[1] - 1) / _REACH)
    return alike


def _covariance(asked: _Perturbed, known: _Perturbed) -> Floats:
    """`n x m`, of errors."""
    own = asked.losses @ known.losses.T
    pairs = np.square(asked.roots @ known.roots.T) - own
    same = (asked.chosen * np.square(asked.table)) @ known.chosen.T
    sums = np.outer(asked.losses.sum(1), known.losses.sum(1))
    covariance: Floats = sums * (_FACTOR**2 + _REST**2 * _alike(asked, known)) + _PAIR**2 * pairs
    covariance += _OWN**2 * own + _CHOICE**2 * same
    return covariance


def _variance(asked: _Perturbed) -> Floats:
    """`n`, of errors."""
    sums, squares = np.square(asked.losses.sum(1)), np.square(asked.losses).sum(1)
    variance: Floats = sums * (_FACTOR**2 + _REST**2) + _PAIR**2 * (sums - squares)
    variance += (_OWN**2 + _CHOICE**2) * squares
    return variance


def _remaining(asked: _Perturbed, known: _Perturbed) -> Floats:
    """`n x m`, of remainders; about 2 where all choices are equal."""
    same = (asked.chosen * asked.table) @ known.chosen.T
    together = _ALIGNED * asked.roots @ known.roots.T + (1 - _ALIGNED) * same
    covariance: Floats = together / known.mean + _alike(asked, known)
    return covariance
