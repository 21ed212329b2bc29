"""What agents learn from: the predictor that imagines for them, what they see, and trials that fail."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import tests.problems as problems
from automc.choices import Codebook
from automc.compression.policy import Policy
from automc.environment.metrics import Outcome
from automc.environment.problem import Problem
from automc.environment.sensitivity import single_losses
from automc.environment.space import MAX_CHOICES
from automc.errors import ConfigError, InfeasibleBudget, InvalidAction
from automc.schema import GoalSpec
from automc.search.episodes import AGENT_FEATURES, Episodes
from automc.search.imagination import Imagination
from automc.search.predictor import Predictor
from automc.search.searchers import build_searcher
from automc.search.searchers.agent import load_network
from automc.search.study import Progress, Study
from automc.search.trials import Trial
from tests.searches import AGENTS, QUICK, TIGHT, search, tiny


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


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_that_cannot_be_shown_every_choice_is_refused_before_anything_is_measured(name: str):
    methods = [Codebook(entries=entries) for entries in range(2, 16)]
    problem = problems.tiny_problem(space=problems.JOINT.model_copy(update={"methods": methods}))  # beside three widths
    with pytest.raises(ConfigError, match="17 for weights of a instead; offer fewer values in weight_bits and methods"):
        build_searcher(name, {}, problem, 0)


def test_an_agent_that_ignored_its_masks_would_be_refused(monkeypatch: pytest.MonkeyPatch):
    assert len(search("ppo", 12)) == 12
    monkeypatch.setattr(Episodes, "action_masks", lambda self: np.ones((self.num_envs, MAX_CHOICES), np.bool_))
    with pytest.raises(InvalidAction):
        search("ppo", 12)


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


def test_exchanges_change_one_or_two_decisions_and_promise_most():
    problem = tiny(GoalSpec(reward="mnasnet"))  # nothing is too dear
    imagination = Imagination(problem, problem.space.by_decision(np.zeros(len(problem.space.moves[0]))), 1.0)
    best = problem.space.largest()
    rows, (owners, _) = problem.space.moved(best), problem.space.moves
    gains = np.where((rows == best).all(1), 0.0, -np.random.default_rng(0).uniform(1, 2, len(rows)))
    found = imagination._exchanges(best, rows, gains, 1.0)
    gain_of = {(owner, row[owner]): gain for owner, row, gain in zip(owners, rows, gains, strict=True)}
    promised = [sum(gain_of[d, row[d]] for d in np.flatnonzero(row != best)) for row in found]
    moving = np.flatnonzero(gains)
    pairs = [gains[i] + gains[j] for i in moving for j in moving if owners[i] < owners[j]]
    assert len(np.unique(found, axis=0)) == len(found)
    assert np.allclose(promised, sorted([*gains[moving], *pairs], reverse=True)[: len(found)])


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


@pytest.mark.parametrize("name", ["ddpg", "td3"])
def test_a_critic_is_told_at_every_step_what_its_episode_ended_with(name: str, tmp_path: Path):
    agent = build_searcher(name, QUICK[name], tiny(), 0)
    Study(tmp_path, {}, agent, lambda policy: problems.formula_outcome(agent.problem, policy), 6).run()
    memory = agent.learner.replay_buffer
    memory.pos = 6 * agent.steps  # of the seventh, which was walked and never judged, nothing is learned
    ends = memory.rewards[: memory.pos][agent.steps - 1 :: agent.steps, 0]
    told = memory.sample(200)
    assert (told.dones == 1).all()
    assert set(told.rewards[:, 0].tolist()) == set(ends.tolist()) != {0.0}


@pytest.mark.parametrize("name", AGENTS)
def test_numbers_that_are_not_finite_fail_their_trials_and_the_agent_goes_on_learning(name: str, tmp_path: Path):
    asked, networks = itertools.count(), []

    def sometimes(problem: Problem, policy: Policy) -> Outcome:
        outcome = problems.formula_outcome(problem, policy)
        if next(asked) % 3:
            return outcome
        broken = {**outcome.metrics, "accuracy": math.nan}
        return Outcome(broken, math.inf)

    agent = build_searcher(name, QUICK.get(name, {}), tiny(), 0)

    def remember(progress: Progress) -> None:
        if agent.learner is not None:
            networks.append(copy.deepcopy(agent.learner.policy.state_dict()))

    trials = Study(tmp_path, {}, agent, lambda policy: sometimes(agent.problem, policy), 30, remember).run()
    failed = [trial for trial in trials if not trial.complete]
    assert len(trials) == 30
    assert len(failed) >= 5
    assert {trial.reason for trial in failed} == {"accuracy is nan, reward is inf"}
    learned = load_network(tmp_path, name)
    assert all(torch.isfinite(value).all() for value in learned.values())
    halfway = networks[len(networks) // 2]
    assert any((value != halfway[key]).any() for key, value in learned.items())
