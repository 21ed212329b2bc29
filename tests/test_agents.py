"""Agents: the episodes they learn in, the predictor that imagines for them, and what is saved of them."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

import tests.problems as problems
from automc.environment.observation import FEATURES
from automc.environment.problem import Problem
from automc.environment.sensitivity import single_losses
from automc.environment.space import MAX_CHOICES
from automc.environment.walk import Walk, Walks
from automc.errors import ConfigError, CorruptFile, InfeasibleBudget, InvalidAction, RunMismatch
from automc.schema import GoalSpec, SearcherSpec, SearchSpaceSpec
from automc.search.episodes import AGENT_FEATURES, Episodes
from automc.search.experiment import study_header
from automc.search.imagination import Imagination
from automc.search.predictor import Predictor
from automc.search.searchers import build_searcher
from automc.search.searchers.agent import load_network
from automc.search.study import Study
from automc.search.trials import Trial, TrialLog
from tests.test_searchers import AGENTS, QUICK, TIGHT, search, tiny

FEWER = SearchSpaceSpec(description="other choices", keep_ratio=[0.5, 1.0], weight_bits=[2, 3, 4, 6, 8])


def random_rows(problem: Problem, count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    counts = [len(decision.choices) for decision in problem.space.decisions]
    return random.integers(0, counts, (count, len(counts))).astype(np.uint8)


def test_prices_of_many_are_those_of_each():
    problem = tiny()
    rows = random_rows(problem, 200)
    costs = [problem.cost(problem.space.policy(row)) for row in rows.tolist()]
    expected = [[cost.latency_ms, cost.size_bytes] for cost in costs]
    assert (problem.costs_of(rows) == expected).all()
    assert (problem.costs_of(rows[::-1]) == expected[::-1]).all()


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
    with pytest.raises(InfeasibleBudget, match="keeps the budget"):
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


def test_an_agent_that_ignored_its_masks_would_be_refused(monkeypatch: pytest.MonkeyPatch):
    assert len(search("ppo", 12)) == 12
    monkeypatch.setattr(Episodes, "action_masks", lambda self: np.ones((self.num_envs, MAX_CHOICES), np.bool_))
    with pytest.raises(InvalidAction):
        search("ppo", 12)


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


@pytest.mark.parametrize(("name", "settings"), [*((name, {}) for name in AGENTS), ("ppo", {"prior": "none"})])
def test_every_agent_sees_what_choices_lose_alone(name: str, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    seen = []
    real = Episodes._observe
    monkeypatch.setattr(Episodes, "_observe", lambda self: seen.append(real(self)) or seen[-1])
    problem = tiny()
    search(name, 1, problem, **settings)
    first = AGENT_FEATURES.index("loss_0")
    losses = single_losses(problem)[0]
    shown = seen[0][0, first : first + len(losses)]
    assert (np.argsort(shown) == np.argsort(losses)).all()
    assert shown.max() > 0


def test_the_predictor_learns_how_perturbations_add_up():
    """Errors are squared lengths of sums of vectors, of which single losses show the lengths alone."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(8, 1, 3)) * np.array([1.5, 1.0, 0.5, 0.0])[None, :, None] + 0.1 * random.normal(
        size=(8, 4, 3)
    )
    losses = [np.square(vectors[decision]).sum(1) for decision in range(8)]
    rows = random.integers(0, 4, (150, 8)).astype(np.uint8)
    errors = np.square(vectors[np.arange(8), rows].sum(1)).sum(1)
    predictor = Predictor(losses)
    before, doubt = predictor.error(rows[100:])
    for row, error in zip(rows[:100], errors[:100], strict=True):
        predictor.observe(row, error, 0.1 * error)
    after, sure = predictor.error(rows[100:])
    truth = errors[100:]
    assert np.corrcoef(after, truth)[0, 1] > 0.95 > np.corrcoef(before, truth)[0, 1]
    assert (sure < doubt).all()


@pytest.mark.parametrize(("chance", "followed"), [(0.0, True), (0.01, False)])
def test_the_predictor_learns_what_errors_leave_unexplained_unless_it_is_chance(chance: float, followed: bool):
    """Some perturbations cost quality and as long ones do not: the errors alone cannot tell."""
    random = np.random.default_rng(0)
    losses = [np.array([0.3, 0.2, 0.1, 0.0])] * 8
    costly = 0.05 * random.choice([-1.0, 1.0], (8, 1)) * np.sqrt(losses)
    rows = random.integers(0, 4, (150, 8)).astype(np.uint8)
    errors = np.array(losses)[np.arange(8), rows].sum(1)
    unexplained = costly[np.arange(8), rows].sum(1) if followed else chance * random.normal(size=150)
    predictor = Predictor(losses)
    for row, error, part in zip(rows[:100], errors, unexplained, strict=False):
        predictor.observe(row, error, 0.1 * error + part)
    found = predictor.lost(rows[100:]) - 0.1 * errors[100:]
    assert (np.corrcoef(found, unexplained[100:])[0, 1] > 0.9) == followed
    assert (found.std() < 0.5 * unexplained.std()) != followed


def test_errors_cost_quality_even_where_few_images_say_that_they_help():
    random = np.random.default_rng(0)
    losses = [np.array([0.8, 0.2, 0.1, 0.0])] * 8
    rows = random.integers(1, 4, (20, 8)).astype(np.uint8)
    predictor = Predictor(losses)
    for row in rows:
        predictor.observe(row, np.array(losses)[np.arange(8), row].sum(), -0.01 + 0.004 * random.normal())
    worst, best = predictor.lost(np.array([[0] * 8, [3] * 8], np.uint8), 1.0)
    assert worst > best + 0.004


def test_imagination_proposes_what_was_not_tried_within_its_share():
    problem = tiny()
    losses = [np.linspace(1, 0, len(decision.choices)) ** 2 for decision in problem.space.decisions]
    imagination = Imagination(problem, losses, 1.0)
    cheapest = problem.cheapest
    outcome = problems.formula_outcome(problem, problem.space.policy(cheapest))
    imagination.observe(cheapest, Trial(0, problem.space.policy(cheapest), outcome.metrics, outcome.reward))
    assert imagination.proposal(1.0) is None
    for share in (0.8, 1.0):
        imagination.improve(share)
        proposal = imagination.proposal(share)
        assert proposal is not None
        assert proposal != cheapest
        assert 0.5 * share < problem.limits.worst(problem.cost_of(proposal)) <= share
    first, second = imagination.rewards(np.array([imagination.proposal(1.0), cheapest], np.uint8))
    assert first > second


def test_one_agent_serves_all_budgets():
    problem = tiny()
    trials = search("ppo", 24, problem, least_budget=0.6)
    used = [problem.limits.worst(problem.cost(trial.policy)) for trial in trials]
    assert max(used) <= 1
    assert np.histogram(used, [0.4, 0.7, 0.85, 1.0])[0].min() >= 3
    for goal, settings in ((GoalSpec(reward="mnasnet"), {}), (TIGHT, {"prior": "none"})):
        with pytest.raises(ConfigError, match="least_budget needs"):
            build_searcher("ppo", {"least_budget": 0.5, **settings}, tiny(goal), 0)
    with pytest.raises(InfeasibleBudget):
        build_searcher("ppo", {"least_budget": 0.01}, problem, 0)


def train(name: str, folder: Path, seed: int = 1) -> None:
    problem = tiny()
    agent = build_searcher(name, QUICK.get(name, {}), problem, seed)
    Study(folder, {}, agent, lambda policy: problems.formula_outcome(problem, policy), 12).run()


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_is_saved_without_pickle_and_goes_on_with_another_network(name: str, tmp_path: Path):
    from safetensors.torch import load_file

    train(name, tmp_path / "first")
    train(name, tmp_path / "second")
    first, second = ((tmp_path / folder / "agent.safetensors").read_bytes() for folder in ("first", "second"))
    assert first == second
    network = load_network(tmp_path / "first", name)
    assert all((load_file(tmp_path / "first" / "agent.safetensors")[key] == network[key]).all() for key in network)

    other = problems.tiny_problem(GoalSpec(limits={"latency_ms": "60%"}), FEWER, width=2)
    agent = build_searcher(name, {"agent": str(tmp_path / "first")}, other, 0)
    learner = agent.begin(Episodes(other, agent.at_once, lambda rows, shares: rows.sum(1), actions=agent.actions))
    assert all((value == network[key]).all() for key, value in learner.policy.state_dict().items())
    assert len(search(name, 4, other, agent=str(tmp_path / "first"))) == 4


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_leaves_no_folders_of_logs_behind(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    train(name, tmp_path / "study")
    assert not [*(tmp_path / "temporary").glob("SB3*")]


def test_a_study_is_bound_to_the_agent_that_it_began_with(tmp_path: Path):
    for seed in (1, 2):
        train("recurrent_ppo", tmp_path / str(seed), seed)
    problem, saved = tiny(), tmp_path / "saved"
    searcher = SearcherSpec(name="recurrent_ppo", settings={"agent": str(saved)})
    shutil.copytree(tmp_path / "1", saved)
    before = study_header(problem, searcher, 0)
    assert before == study_header(problem, searcher, 0)
    shutil.copytree(tmp_path / "2", saved, dirs_exist_ok=True)
    with TrialLog(tmp_path / "study", before, print), pytest.raises(ConfigError, match="holds no saved agent"):
        study_header(problem, SearcherSpec(name="ppo", settings={"agent": str(tmp_path / "nowhere")}), 0)
    with pytest.raises(RunMismatch, match=r"hashes\.agent"):
        TrialLog(tmp_path / "study", study_header(problem, searcher, 0), print)


def test_a_damaged_or_foreign_agent_is_refused(tmp_path: Path):
    train("recurrent_ppo", tmp_path)
    with pytest.raises(ConfigError, match="holds no saved agent"):
        build_searcher("ppo", {"agent": str(tmp_path / "nowhere")}, tiny(), 0)
    with pytest.raises(ConfigError, match="an agent of 'recurrent_ppo', which 'ppo' cannot take over"):
        build_searcher("ppo", {"agent": str(tmp_path)}, tiny(), 0)
    card = json.loads((tmp_path / "agent.json").read_text())
    (tmp_path / "agent.json").write_text(json.dumps(card | {"features": card["features"][1:]}))
    with pytest.raises(ConfigError, match="other features"):
        load_network(tmp_path, "recurrent_ppo")
    (tmp_path / "agent.json").write_text(json.dumps(card))
    content = bytearray((tmp_path / "agent.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "agent.safetensors").write_bytes(content)
    with pytest.raises(CorruptFile, match="SHA-256"):
        load_network(tmp_path, "recurrent_ppo")
    (tmp_path / "agent.json").write_text("[]")
    with pytest.raises(CorruptFile, match="not the card"):
        load_network(tmp_path, "recurrent_ppo")
