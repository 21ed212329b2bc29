"""Comparing searchers honestly: robust means with intervals, probability of improvement, corrected tests.

The protocol is that of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from automc.environment.measures import Floats

_BOUNDS = (0.025, 0.975)  # of a 95 % interval
_RESAMPLES = 5000
_RESAMPLED_CURVES = 500


@dataclass(frozen=True)
class Interval:
    """An estimate between the bounds of its confidence interval."""

    estimate: float
    lower: float
    upper: float

    def overlaps(self, other: Interval) -> bool:
        """Whether some value lies in both intervals."""
        return self.lower <= other.upper and other.lower <= self.upper


@dataclass(frozen=True)
class PairTest:
    """How likely a run of `first` beats one of `second`, and the corrected p-value of there being no difference."""

    first: str
    second: str
    probability_of_improvement: float
    p_value: float


def interquartile_mean(scores: Floats) -> float:
    """The mean of the middle half of all scores, `runs x tasks` (Agarwal et al. 2021, section 4.3).

    A quarter of the scores, rounded down, is left out at each end; so fewer than four scores give their plain mean.
    """
    return float(_interquartile_means(scores.reshape(1, -1))[0])


def _interquartile_means(samples: Floats) -> Floats:
    """The interquartile mean of each row of `resamples x scores`."""
    cut = samples.shape[1] // 4
    middle: Floats = np.sort(samples, axis=1)[:, cut : samples.shape[1] - cut]
    means: Floats = middle.mean(axis=1)
    return means


def interquartile_interval(scores: Floats, rng: np.random.Generator) -> Interval:
    """The interquartile mean of `runs x tasks` with its stratified percentile-bootstrap interval of 95 %.

    Runs are drawn again within each task, so that every resample holds each task equally often (Agarwal et al. 2021,
    section 4.1). One run says nothing about the spread of runs: its interval is everything.
    """
    runs, tasks = scores.shape
    estimate = interquartile_mean(scores)
    if runs < 2:
        return Interval(estimate, -np.inf, np.inf)
    drawn = rng.integers(0, runs, (_RESAMPLES, runs, tasks))
    samples = np.take_along_axis(scores[None], drawn, axis=1).reshape(_RESAMPLES, -1)
    lower, upper = np.quantile(_interquartile_means(samples), _BOUNDS)
    return Interval(estimate, float(lower), float(upper))


def interquartile_band(curves: Floats, rng: np.random.Generator) -> tuple[Floats, ...]:
    """The interquartile mean at each place of `runs x n`, and the bounds of its bootstrap interval of 95 %.

    Whole runs are drawn again, so that a bound is as steady as a curve. The band of one run is the run.
    """
    runs = len(curves)
    middle = _interquartile_means(curves.T)
    if runs < 2:
        return middle, middle, middle
    drawn = rng.integers(0, runs, (_RESAMPLED_CURVES, runs))
    samples = np.stack([_interquartile_means(curves[picked].T) for picked in drawn])
    lower, upper = np.quantile(samples, _BOUNDS, axis=0)
    return middle, lower, upper


def probability_of_improvement(first: Floats, second: Floats) -> float:
    """How likely a run of `first` beats a run of `second`, a tie counting half, averaged over tasks.

    first, second: `runs x tasks`, the runs may differ in number (Agarwal et al. 2021, section 4.3).
    """
    wins = first[:, None, :] > second[None, :, :]
    ties = first[:, None, :] == second[None, :, :]
    return float((wins + 0.5 * ties).mean())


def anytime_best(rewards: Floats) -> Floats:
    """The best reward so far after each trial, `n`; NaN (a failed trial) adds nothing."""
    return np.fmax.accumulate(rewards)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for being several, in their order (Holm 1979)."""
    count = len(p_values)
    corrected = [0.0] * count
    largest = 0.0
    for position, index in enumerate(sorted(range(count), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (count - position) * p_values[index]))
        corrected[index] = largest
    return corrected


def compare_pairs(scores: Mapping[str, Floats]) -> list[PairTest]:
    """Every pair of searchers by a two-sided Mann-Whitney test, Holm-corrected over the pairs.

    scores: searcher to `runs`, final scores in one task, at least one run each.
    """
    from scipy.stats import mannwhitneyu

    pairs = list(combinations(scores, 2))
    raw = [float(mannwhitneyu(scores[first], scores[second]).pvalue) for first, second in pairs]
    return [
        PairTest(first, second, probability_of_improvement(scores[first][:, None], scores[second][:, None]), p_value)
        for (first, second), p_value in zip(pairs, holm(raw), strict=True)
    ]
