"""The episodes that agents learn in: walks side by side, their actions, features and rewards."""

from __future__ import annotations

import numpy as np
import pytest

from automc.environment.observation import FEATURES
from automc.environment.space import MAX_CHOICES, Choices, replaced
from automc.environment.walk import Walk, Walks
from automc.errors import InfeasibleBudget, InvalidAction
from automc.search.episodes import AGENT_FEATURES, Episodes
from tests.searches import tiny


def test_walks_side_by_side_are_single_walks_and_keep_their_own_budgets():
    problem = tiny()
    random = np.random.default_rng(0)
    shares = [1.0, 0.8, 0.6, 1.0]
    walks, single = Walks(problem, shares), Walk(problem)
    while not walks.done:
        allowed = walks.allowed()
        assert (allowed[0] == single.allowed()).all()
        chosen = np.array([random.choice(np.flatnonzero(row)) for row in allowed])
        single.choose(int(chosen[0]))
        walks.choose(chosen)
    assert tuple(walks.chosen[0]) == single.chosen
    for share, row in zip(shares, walks.chosen.tolist(), strict=True):
        assert problem.limits.worst(problem.cost_of(tuple(row))) <= share
    with pytest.raises(InfeasibleBudget, match=r"keeps 0\.01 of the budget"):
        Walks(problem, [1.0, 0.01])


def test_episodes_show_features_of_one_length_and_reward_the_end():
    seen = []

    def judge(rows, shares):
        seen.append((rows, shares))
        return rows.sum(1)

    problem = tiny()
    episodes = Episodes(problem, 3, judge, draw=lambda count: np.linspace(0.7, 1.0, count))
    observation = episodes.reset()
    for step in range(len(problem.space.decisions)):
        assert observation.shape == (3, len(AGENT_FEATURES))
        assert (episodes.action_masks().sum(1) > 0).all()
        observation, rewards, done, _ = episodes.step(episodes.action_masks().cumsum(1).argmax(1) * [0, 0, 1])
        assert done.all() == (step == len(problem.space.decisions) - 1)
    assert seen[0][0].shape == (3, 10)
    np.testing.assert_allclose(seen[0][1], [0.7, 0.85, 1.0])
    assert rewards.argmax() == 2
    assert observation[:, len(FEATURES) - 1].tolist() == [1, 1, 1]  # a new episode, nothing decided


def test_a_continuous_action_is_spread_over_what_is_allowed():
    problem = tiny()
    rows = []
    episodes = Episodes(problem, 2, lambda choices, shares: rows.append(choices) or [0, 0], actions="continuous")
    episodes.reset()
    for _ in problem.space.decisions:
        allowed = episodes.action_masks()[1]
        expected = np.flatnonzero(allowed)[-1]
        episodes.step(np.array([[-1.0], [1.0]], np.float32))
        rows.append(expected)
    (choices,) = [row for row in rows if isinstance(row, np.ndarray)]
    assert (choices[0] == 0).all()
    assert choices[1].tolist() == [int(row) for row in rows if not isinstance(row, np.ndarray)]


def test_a_spread_action_reaches_all_that_is_allowed_in_equal_shares():
    problem = tiny()
    episodes = Episodes(problem, MAX_CHOICES, lambda rows, shares: rows.sum(1), actions="spread")
    for position in range(len(problem.space.decisions)):
        episodes.reset()
        for _ in range(position):
            episodes.step(np.full(MAX_CHOICES, 9))
        (allowed,) = np.unique(episodes.action_masks(), axis=0)
        walks = episodes._walks
        episodes.step(np.arange(MAX_CHOICES))
        chosen = walks.chosen[:, position].astype(int)
        assert (np.unique(chosen) == np.flatnonzero(allowed)).all()
        assert np.ptp(np.bincount(chosen)[allowed[: chosen.max() + 1]]) <= 1
        assert (np.diff(chosen) >= 0).all()


def test_a_masked_action_is_taken_as_it_is_or_refused():
    problem = tiny()
    episodes = Episodes(problem, 1, lambda rows, shares: rows.sum(1))
    with pytest.raises(InvalidAction, match="choice 15 is not allowed"):
        episodes.step(np.array([15]))


@pytest.mark.parametrize("found", [(0.40, 0.60, 0.55, 0.57), (0.0, 0.0, 0.0, 0.9), (0.9, 0.9, 0.9, 0.9)])
def test_the_rewards_of_single_episodes_are_of_one_size_from_the_first_on(found: tuple[float, ...]):
    """An agent that learns from all episodes before never forgets the first ones."""
    problem, answers = tiny(), iter(found)
    episodes = Episodes(problem, 1, lambda rows, shares: [next(answers)])
    given = [episodes.step(np.array([0]))[1][0] for _ in found for _ in problem.space.decisions]
    ends = np.array(given[len(problem.space.decisions) - 1 :: len(problem.space.decisions)])
    assert np.abs(given).max() <= 2
    assert ends[0] == 0
    assert np.sign(ends[1]) == np.sign(found[1] - found[0])
    assert len(set(ends)) == len(set(found))


def test_the_curves_the_device_and_the_guide_are_seen_as_they_are():
    problem = tiny()
    space, largest = problem.space, problem.space.largest()
    losses = [np.geomspace(1e-9, 1e-3, len(decision.choices))[::-1] for decision in space.decisions]
    guides = np.array([problem.cheapest, largest], np.uint8)
    episodes = Episodes(problem, 2, lambda rows, shares: [0, 0], losses, guide=lambda shares: guides)
    narrow = tuple(
        place if decision.kind == "keep_ratio" else 0 for decision, place in zip(space.decisions, largest, strict=True)
    )
    dense = problem.dense_cost

    def used(choices: Choices) -> float:
        cost = problem.cost_of(choices)
        return (cost.latency_ms / dense.latency_ms / 0.4 + cost.size_bytes / dense.size_bytes / 0.6) / (
            1 / 0.4 + 1 / 0.6
        )

    seen = episodes.reset()
    for position, decision in enumerate(space.decisions):
        named = dict(zip(AGENT_FEATURES, seen.T, strict=True))
        for place in range(MAX_CHOICES):
            there = place < len(decision.choices)
            height = 1 + np.log10(losses[position][place] / 1e-3) / 6 if there else 0.0
            saving = used(largest) - used(replaced(largest, position, place)) if there else 0.0
            np.testing.assert_allclose(named[f"loss_{place}"], height, atol=1e-6)
            np.testing.assert_allclose(named[f"saving_{place}"], saving, atol=1e-6)
            assert named[f"away_{place}"].tolist() == [-abs(place - int(index)) for index in guides[:, position]]
        np.testing.assert_allclose(named["device_ms"], np.log10(dense.latency_ms) / 3, rtol=1e-6)
        bits = problem.cost_of(narrow).latency_ms / problem.cost_of(largest).latency_ms
        np.testing.assert_allclose(named["device_bits"], bits, rtol=1e-6)
        seen = episodes.step(np.array([row.argmax() for row in episodes.action_masks()]))[0]
