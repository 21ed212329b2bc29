"""Fronts and hypervolumes against cases done by hand, and against brute force."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automc.search.pareto import hypervolume, pareto_front, thinned

_LEVELS = 8
points = st.lists(st.tuples(st.integers(0, _LEVELS), st.integers(0, _LEVELS)), max_size=12).map(
    lambda pairs: np.array(pairs, np.float64).reshape(-1, 2).T
)


def _cells_covered(cost, accuracy, reference):
    """The hypervolume of integer points, by counting the unit cells that some point dominates."""
    covered = 0
    for x in range(_LEVELS + 1):
        for y in range(_LEVELS + 1):
            inside = x + 1 <= reference[0] and y >= reference[1]
            covered += inside and bool(np.any((cost <= x) & (accuracy >= y + 1)))
    return covered


def test_front_of_a_case_by_hand():
    cost = np.array([3.0, 1.0, 2.0, 2.0, 4.0, 1.0])
    accuracy = np.array([0.9, 0.5, 0.7, 0.6, 0.9, 0.4])
    assert pareto_front(cost, accuracy).tolist() == [1, 2, 0]


def test_equal_points_are_represented_by_the_first():
    assert pareto_front(np.array([1.0, 1.0, 1.0]), np.array([0.5, 0.8, 0.8])).tolist() == [1]


def test_no_points_have_no_front_and_no_volume():
    nothing = np.empty(0)
    assert pareto_front(nothing, nothing).tolist() == []
    assert hypervolume(nothing, nothing, (1.0, 0.0)) == 0


def test_hypervolume_of_a_case_by_hand():
    cost, accuracy = np.array([1.0, 2.0, 5.0]), np.array([0.5, 0.75, 1.0])
    # Strips from 1 to 2 and from 2 to 4; the third point costs more than the reference.
    assert hypervolume(cost, accuracy, (4.0, 0.25)) == 1 * 0.25 + 2 * 0.5


@given(points)
def test_front_is_what_nothing_dominates(pair):
    cost, accuracy = pair
    chosen = set(pareto_front(cost, accuracy).tolist())
    for mine in range(len(cost)):
        better = (
            (cost <= cost[mine]) & (accuracy >= accuracy[mine]) & ((cost < cost[mine]) | (accuracy > accuracy[mine]))
        )
        twin_before = (cost[:mine] == cost[mine]) & (accuracy[:mine] == accuracy[mine])
        assert (mine in chosen) == (not better.any() and not twin_before.any())


@given(points, st.integers(0, _LEVELS), st.integers(0, _LEVELS))
def test_hypervolume_counts_the_cells(pair, cost, accuracy):
    assert hypervolume(*pair, (cost, accuracy)) == _cells_covered(*pair, (cost, accuracy))


def test_points_that_are_not_finite_or_do_not_match_are_refused():
    with pytest.raises(ValueError, match="leave out trials that failed"):
        pareto_front(np.array([1.0, np.nan]), np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match="one length"):
        hypervolume(np.array([1.0, 2.0]), np.array([0.5]), (1.0, 0.0))


def test_a_thinned_front_covers_most_and_keeps_its_best():
    cost = np.array([1.0, 2.0, 3.0, 3.1, 6.0])
    quality = np.array([0.1, 0.8, 0.85, 0.9, 0.95])
    assert thinned(cost, quality, 9) == [0, 1, 2, 3, 4]
    assert thinned(cost, quality, 3) == [1, 3, 4]  # the cheapest is worth nothing, the third hardly anything
    assert thinned(cost, quality, 1) == [4]
    assert thinned(cost[:1], quality[:1], 1) == [0]


def test_thinning_loses_little_against_the_best_choice_of_all():
    random = np.random.default_rng(0)
    cost, quality = random.uniform(0, 1, 60), random.uniform(0, 1, 60)
    front = pareto_front(cost, quality)
    cost, quality = cost[front], quality[front]
    reference = float(cost[-1]), float(quality[0])
    every = [list(chosen) for chosen in combinations(range(len(front)), 4)]
    best = max(hypervolume(cost[chosen], quality[chosen], reference) for chosen in every)
    found = thinned(cost, quality, 4)
    assert hypervolume(cost[found], quality[found], reference) >= 0.95 * best
