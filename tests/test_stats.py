"""Statistics against cases done by hand, scipy, and the properties that they promise."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean

from automc.analysis.stats import (
    Interval,
    anytime_best,
    compare_pairs,
    holm,
    interquartile_band,
    interquartile_interval,
    interquartile_mean,
    probability_of_improvement,
)


def test_interquartile_mean_leaves_out_a_quarter_at_each_end():
    scores = np.array([[100.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, -100.0]])
    assert interquartile_mean(scores) == (3 + 4 + 5 + 6) / 4
    assert interquartile_mean(np.array([[1.0], [2.0], [9.0]])) == 4.0


def test_a_band_is_the_interval_at_every_place():
    curves = np.maximum.accumulate(np.random.default_rng(0).normal(size=(9, 30)), axis=1)
    middle, lower, upper = interquartile_band(curves, np.random.default_rng(0))
    for place in (0, 12, 29):
        interval = interquartile_interval(curves[:, [place]], np.random.default_rng(1))
        assert middle[place] == interval.estimate
        assert lower[place] == pytest.approx(interval.lower, abs=0.15)
        assert upper[place] == pytest.approx(interval.upper, abs=0.15)
    one = interquartile_band(curves[:1], np.random.default_rng(0))
    assert all((bound == curves[0]).all() for bound in one)


def test_interquartile_mean_is_scipys_trimmed_mean():
    scores = np.random.default_rng(0).normal(size=(7, 3))
    assert interquartile_mean(scores) == pytest.approx(trim_mean(scores, 0.25, axis=None), rel=1e-12)


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        interval = interquartile_interval(rng.normal(size=(20, 2)), rng)
        covered += interval.lower <= 0 <= interval.upper
    assert covered in range(86, 100)  # nominal 95; a percentile bootstrap of 40 scores is a little narrow


def test_bootstrap_is_stratified():
    # Two tasks far apart, without spread inside: only a resample that mixed tasks could differ.
    scores = np.tile([0.0, 10.0], (6, 1))
    assert interquartile_interval(scores, np.random.default_rng(0)) == Interval(5.0, 5.0, 5.0)


def test_bootstrap_is_a_function_of_its_generator():
    scores = np.random.default_rng(2).normal(size=(5, 1))
    first, again, other = (interquartile_interval(scores, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again != other
    assert first.lower < first.estimate < first.upper


def test_one_run_has_no_bounds():
    interval = interquartile_interval(np.array([[0.7]]), np.random.default_rng(0))
    assert interval == Interval(0.7, -np.inf, np.inf)
    assert interval.overlaps(Interval(5.0, 5.0, 5.0))


def test_intervals_overlap_when_they_share_a_value():
    assert Interval(1.0, 0.0, 2.0).overlaps(Interval(2.5, 2.0, 3.0))
    assert not Interval(1.0, 0.0, 2.0).overlaps(Interval(2.5, 2.1, 3.0))


def test_probability_of_improvement_counts_ties_half_and_averages_tasks():
    first = np.array([[1.0, 5.0], [3.0, 5.0]])
    second = np.array([[1.0, 4.0], [2.0, 4.0], [4.0, 4.0]])
    # Task 0: 1 ties 1 (0.5), 3 beats 1 and 2 (2), of 6 pairs; task 1: always.
    assert probability_of_improvement(first, second) == pytest.approx((2.5 / 6 + 1) / 2)
    assert probability_of_improvement(second, first) == pytest.approx(1 - (2.5 / 6 + 1) / 2)


def test_probability_of_improvement_is_the_scaled_mann_whitney_statistic():
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 5, 8).astype(float), rng.integers(0, 5, 6).astype(float)
    statistic = mannwhitneyu(first, second).statistic
    assert probability_of_improvement(first[:, None], second[:, None]) == pytest.approx(statistic / 48)


def test_anytime_best_never_falls_and_passes_over_failures():
    best = anytime_best(np.array([np.nan, 0.2, 0.1, np.nan, 0.5, 0.4]))
    assert np.isnan(best[0])
    assert best[1:].tolist() == [0.2, 0.2, 0.2, 0.5, 0.5]


def test_holm_by_hand():
    # 0.01 * 4, then 0.02 * 3, then 0.03 * 2 which equals it, then 0.5 * 1.
    assert holm([0.03, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_compare_pairs_tests_every_pair_with_correction():
    rng = np.random.default_rng(5)
    scores = {"good": rng.normal(3, 1, 8), "bad": rng.normal(0, 1, 8), "twin": rng.normal(0, 1, 8)}
    tests = {(test.first, test.second): test for test in compare_pairs(scores)}
    assert set(tests) == {("good", "bad"), ("good", "twin"), ("bad", "twin")}
    corrected = holm([mannwhitneyu(scores[first], scores[second]).pvalue for first, second in tests])
    assert [test.p_value for test in tests.values()] == corrected
    assert tests["good", "bad"].p_value < 0.05 < tests["bad", "twin"].p_value
    assert tests["good", "bad"].probability_of_improvement > 0.9
