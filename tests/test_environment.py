"""The environment keeps Gymnasium's contract, refuses what is not an action, and never ends outside a hard budget."""

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from automc.environment.environment import CompressionEnv
from automc.environment.metrics import Outcome
from automc.environment.observation import FEATURES
from automc.environment.problem import Problem
from automc.environment.space import MAX_CHOICES
from automc.environment.walk import Walk
from automc.errors import ConfigError, InfeasibleBudget, InvalidAction
from automc.schema import GoalSpec
from tests.problems import JOINT, FormulaCost, FormulaPricing, formula_outcome, tiny_network, tiny_problem


def environment(problem: Problem) -> CompressionEnv:
    return CompressionEnv(problem, lambda policy: formula_outcome(problem, policy))


def play(env: CompressionEnv, choose) -> tuple[list[float], list[dict]]:
    """Run an episode; `choose(env)` gives each action."""
    env.reset()
    rewards, infos, done = [], [], False
    while not done:
        _, reward, done, truncated, info = env.step(choose(env))
        assert not truncated
        rewards.append(reward)
        infos.append(info)
    return rewards, infos


def unevenly_priced(seed: int) -> FormulaPricing:
    """A device where narrower choices are as often dearer as cheaper: nothing can be said without asking."""

    class Uneven(FormulaPricing):
        def cost(self, policy):
            fingerprint = [int(digit, 16) for digit in policy.fingerprint[:8]]
            cost = super().cost(policy)
            factor = 0.5 + np.random.default_rng([seed, *fingerprint]).random()
            return FormulaCost(cost.latency_ms * factor, cost.energy_mj, cost.size_bytes, cost.macs)

    return Uneven(tiny_network())


def test_gymnasium_and_stable_baselines_accept_it():
    from stable_baselines3.common.env_checker import check_env as check_env_of_stable_baselines

    env = environment(tiny_problem())
    check_env(env, skip_render_check=True)
    check_env_of_stable_baselines(env)


def test_an_episode_walks_the_decisions_and_is_rewarded_at_the_end():
    problem = tiny_problem(GoalSpec(limits={"latency_ms": "100%"}))
    rewards, infos = play(environment(problem), lambda env: 0)
    expected = formula_outcome(problem, problem.space.policy(problem.space.smallest()))
    assert rewards == [0.0] * 9 + [expected.reward]
    assert infos[-1]["metrics"] == expected.metrics
    assert infos[-1]["policy"]["keep_ratio"] == {"a": 0.25, "b": 0.25}
    assert not any(info["clipped"] for info in infos)


@pytest.mark.parametrize("reward", ["amc", "fastest"])
@pytest.mark.parametrize("pricing", [None, unevenly_priced(0), unevenly_priced(1)])
@pytest.mark.parametrize("share", ["20%", "40%"])
def test_no_episode_ends_outside_a_hard_budget(reward, pricing, share):
    goal = GoalSpec(reward=reward, limits={"latency_ms": share, "size_bytes": share})
    problem = tiny_problem(goal, pricing=pricing)
    env = environment(problem)
    random = np.random.default_rng(0)

    def masked(env):
        return random.choice(np.flatnonzero(env.action_masks()))

    def unmasked(env):
        return env.action_space.n - 1 if random.random() < 0.7 else random.integers(env.action_space.n)

    for choose in (masked, unmasked):
        for _ in range(20):
            _, infos = play(env, choose)
            metrics = infos[-1]["metrics"]
            assert metrics["latency_ms"] <= problem.limits.costs["latency_ms"]
            assert metrics["size_bytes"] <= problem.limits.costs["size_bytes"]
            assert choose is unmasked or not any(info["clipped"] for info in infos)


def test_masks_show_what_is_taken_as_it_is():
    env = environment(tiny_problem(GoalSpec(limits={"latency_ms": "30%"})))
    random = np.random.default_rng(0)
    for _ in range(10):
        env.reset()
        done = False
        while not done:
            action = random.integers(env.action_space.n)
            allowed = env.action_masks()[action]
            _, _, done, _, info = env.step(action)
            assert info["clipped"] != allowed


def test_a_tight_budget_masks_and_a_soft_goal_does_not():
    def refused(reward):
        env = environment(tiny_problem(GoalSpec(reward=reward, limits={"latency_ms": "9%"})))
        env.reset()
        return [env.problem.space.decisions[0].choices[i] for i in np.flatnonzero(~env.action_masks()[:4])]

    assert refused("amc") == [1.0]
    assert refused("mnasnet") == refused("absolute") == []


def test_clipping_takes_the_nearest_allowed_choice():
    env = environment(tiny_problem(GoalSpec(reward="mnasnet")))
    env.reset()
    env.step(3)
    _, _, _, _, info = env.step(3)  # weight bits have three choices
    assert info["clipped"]
    assert env._walk.chosen == (3, 2)


def test_a_budget_that_nothing_meets_is_refused_with_the_lowest_cost():
    problem = tiny_problem(GoalSpec(limits={"latency_ms": "1%"}))
    lowest = problem.cost(problem.space.policy(problem.space.smallest())).latency_ms
    with pytest.raises(
        InfeasibleBudget, match=rf"latency_ms: the lowest found is {str(lowest)[:5]}.*The limit is 0\.0103"
    ):
        environment(problem).reset()


def test_a_budget_is_found_feasible_where_the_smallest_choice_is_not_the_cheapest():
    class Reversed(FormulaPricing):
        def cost(self, policy):
            cost = super().cost(policy)
            return FormulaCost(2.0 - cost.latency_ms, None, cost.size_bytes, cost.macs)

    problem = tiny_problem(GoalSpec(limits={"latency_ms": 1.0}), pricing=Reversed(tiny_network()))
    assert not problem.limits.fits(problem.cost_of(problem.space.smallest()))
    _, infos = play(environment(problem), lambda env: 0)
    assert infos[-1]["metrics"]["latency_ms"] <= 1.0


@pytest.mark.parametrize("action", [4, -1, 1.0, np.float32(1), np.nan, "1", None, [1], np.array([1]), np.zeros((2, 2))])
def test_what_is_not_an_action_is_refused_and_changes_nothing(action):
    env = environment(tiny_problem())
    env.reset()
    before, *_ = env.step(1)
    with pytest.raises(InvalidAction, match=r"whole number in 0\.\.3"):
        env.step(action)
    assert env._walk.chosen == (1,)
    np.testing.assert_array_equal(env._observer.observe(env._walk.walks)[0], before)


@pytest.mark.parametrize("action", [2, np.int64(2), np.uint8(2), np.array(2)])
def test_every_kind_of_whole_number_is_an_action(action):
    env = environment(tiny_problem())
    env.reset()
    env.step(action)
    assert env._walk.chosen == (2,)


def test_a_step_outside_an_episode_is_refused():
    env = environment(tiny_problem())
    for use in (lambda: env.step(0), env.action_masks):
        with pytest.raises(ResetNeeded):
            use()
    play(env, lambda env: 0)
    for use in (lambda: env.step(0), env.action_masks):
        with pytest.raises(ResetNeeded):
            use()


def test_a_failed_evaluation_ends_its_episode_only():
    problem = tiny_problem()
    answers = iter([Outcome.failed("logit_error is nan"), Outcome({"accuracy": 0.5}, 0.5)])
    env = CompressionEnv(problem, lambda policy: next(answers))
    rewards, infos = play(env, lambda env: 0)
    assert rewards[-1] == -1.0
    assert infos[-1]["failure"] == "logit_error is nan"
    rewards, infos = play(env, lambda env: 0)
    assert rewards[-1] == 0.5
    assert "failure" not in infos[-1]


def test_observations_tell_what_is_asked_and_what_is_spent():
    problem = tiny_problem(GoalSpec(limits={"latency_ms": "50%"}))
    env = environment(problem)

    def features(observation):
        return dict(zip(FEATURES, observation.tolist(), strict=True))

    begun = features(env.reset()[0])
    assert begun["asks_keep_ratio"] == begun["is_convolution"] == begun["most_cost"] == 1
    assert [begun[f"choice_{index}"] for index in range(5)] == [0.25, 0.5, 0.75, 1.0, 0.0]
    assert begun["budget"] == pytest.approx(0.5)
    assert begun["macs_share"] == pytest.approx(problem.network["a"].macs / problem.network.macs)
    after = features(env.step(1)[0])
    assert after["asks_weights"] == 1
    assert after["previous_keep_ratio"] == after["previous_choice"] == after["kept_outputs"] == 0.5
    assert after["most_cost"] < begun["most_cost"]
    assert after["least_cost"] > begun["least_cost"]
    env.step(0)
    last = features(env.step(0)[0])
    assert last["kept_inputs"] == 0.5  # of b, which reads a
    assert last["previous_weights"] == 0.5


def test_a_space_with_more_choices_than_are_shown_is_refused():
    many = JOINT.model_copy(update={"keep_ratio": [share / 100 for share in range(1, 101)]})
    environment(tiny_problem(space=many, network=tiny_network(2)))  # 16 whole channels
    with pytest.raises(ConfigError, match=f"at most {MAX_CHOICES} choices .* Got 24 for keep_ratio of b instead"):
        environment(tiny_problem(space=many, network=tiny_network(3)))


def test_a_walk_refuses_what_leaves_the_budget():
    problem = tiny_problem(GoalSpec(limits={"latency_ms": "9%"}))
    walk = Walk(problem)
    with pytest.raises(InvalidAction, match=r"choice 3 is not allowed for keep_ratio of a: .*; allowed are 0, 1, 2"):
        walk.choose(3)
    assert walk.chosen == ()
