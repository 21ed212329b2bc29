"""Metrics are those of the very Program that would be compiled, whatever was evaluated before."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from automc.choices import Codebook, Sparse, Uniform
from automc.compiler.sizes import program_bytes
from automc.compression.executor import Executor
from automc.compression.interpreter import interpret
from automc.compression.policy import Policy
from automc.environment.environment import CompressionEnv
from automc.environment.evaluator import Evaluator
from automc.environment.loading import build_problem, calibration_pixels
from automc.environment.problem import Problem
from automc.environment.space import SearchSpace
from automc.errors import DataError, InfeasibleBudget, NameNotFound, PolicyError, UnsupportedLayer
from automc.network.training import normalise
from automc.schema import GoalSpec
from tests.problems import JOINT, macs_table, small_module, small_problem


@pytest.fixture(scope="module")
def problem() -> Problem:
    torch.set_num_threads(1)
    return small_problem()


def dense_logits(problem: Problem, pixels) -> np.ndarray:
    with torch.no_grad():
        return problem.module(normalise(pixels, problem.network.mean, problem.network.std)).numpy()


@pytest.mark.parametrize("fidelity", ["independent", "sequential"])
@pytest.mark.parametrize("split", ["search", "selection"])
def test_metrics_are_what_the_interpreter_computes(problem, fidelity, split):
    evaluator = Evaluator(problem, fidelity)
    policy = problem.space.policy(tuple(len(decision.choices) // 2 for decision in problem.space.decisions))
    metrics = evaluator.evaluate(policy, split)
    images = getattr(problem.splits, split)
    program = getattr(problem.prepare(), {"independent": "program", "sequential": "sequential"}[fidelity])(policy)
    logits, dense = interpret(program, images.pixels), dense_logits(problem, images.pixels)
    right, dense_right = ((answer.argmax(1) == images.labels).mean() for answer in (logits, dense))
    assert metrics.quality == right
    assert metrics.quality_loss == dense_right - right
    assert metrics.logit_error == pytest.approx(((logits - dense) ** 2).mean(), rel=1e-4)
    cost = problem.cost(policy)
    assert (metrics.latency_ms, metrics.size_bytes, metrics.macs) == (cost.latency_ms, cost.size_bytes, program.macs)
    assert metrics.peak_memory_bytes > 0


CODED = [Uniform(weight_bits=4, huffman=True), Codebook(entries=8, huffman=True), Sparse(density=0.5)]


@pytest.mark.parametrize("choice", CODED, ids=str)
def test_what_codes_take_is_taken_from_the_program(problem, choice):
    policy = Policy(weights={layer.name: choice for layer in problem.network.convs})
    evaluator = Evaluator(problem)
    size = evaluator.evaluate(policy).size_bytes
    assert size == sum(program_bytes(evaluator.program(policy)).values())
    assert size != problem.cost(policy).size_bytes


@pytest.mark.parametrize("reward", ["amc", "fastest"])
def test_a_program_larger_than_a_hard_limit_earns_less_than_nothing(problem, reward):
    policy = Policy(weights={layer.name: Sparse(density=0.5) for layer in problem.network.convs})
    size = Evaluator(problem).evaluate(policy).size_bytes
    rewards = []
    for limit in (size, size - 1):
        asked = small_problem(goal=GoalSpec(reward=reward, limits={"size_bytes": limit}, tolerance=0.99))
        rewards.append(Evaluator(asked).outcome(policy).reward)
    assert rewards[0] >= 0 > rewards[1] > -0.1


def test_only_spaces_with_methods_say_how_these_compress(problem):
    assert "methods" not in problem.identity
    assert "methods" in small_problem(space=JOINT.model_copy(update={"methods": CODED})).identity


def test_fewer_bits_lose_more(problem):
    evaluator = Evaluator(problem)
    layers = [layer.name for layer in problem.network.convs]

    def error(bits):
        weights = {name: Uniform(weight_bits=bits) for name in layers}
        return evaluator.evaluate(Policy(weights=weights)).logit_error

    spread = dense_logits(problem, problem.splits.search.pixels).var()
    assert error(8) < 0.01 * spread
    assert error(8) < error(4) < error(2)


def test_an_evaluation_depends_on_its_policy_alone(problem):
    first, second = problem.space.policy(problem.space.smallest()), Policy()
    evaluator, other = Evaluator(problem), Evaluator(small_problem())
    states = torch.get_rng_state(), np.random.get_state()[1].tobytes()
    forward = [evaluator.evaluate(first), evaluator.evaluate(second)]
    backward = [other.evaluate(second), other.evaluate(first)]
    assert forward == backward[::-1]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tobytes() == states[1]


def test_a_policy_is_computed_once(problem, monkeypatch):
    runs = []
    real = Executor.run
    monkeypatch.setattr(Executor, "run", lambda self, pixels: runs.append(1) or real(self, pixels))
    evaluator = Evaluator(problem)
    whole = {"keep_ratio": {group.name: 1.0 for group in problem.network.groups if group.prunable}}
    assert evaluator.evaluate(Policy()) == evaluator.evaluate(Policy(**whole))
    evaluator.evaluate(Policy(), "selection")
    assert len(runs) == 2


def test_roundings_and_interpolations_are_noted(problem):
    name = problem.network.groups[0].name
    metrics = Evaluator(problem).evaluate(Policy(keep_ratio={name: 0.6}))
    assert f"keep_ratio of {name} is 0.625 in whole channels, not 0.6" in metrics.notes
    assert any(note.startswith("latency interpolated: ") and name in note for note in metrics.notes)
    assert Evaluator(problem).evaluate(Policy()).notes == ()


def test_a_policy_of_another_network_is_refused(problem):
    with pytest.raises(PolicyError, match="small has no 'layer9'"):
        Evaluator(problem).evaluate(Policy(keep_ratio={"layer9": 0.5}))


def test_logits_that_are_not_finite_fail_the_trial_with_the_reason(problem, monkeypatch):
    broken = lambda self, pixels: np.full((len(pixels), 10), np.nan, np.float32)  # noqa: E731
    monkeypatch.setattr(Executor, "run", broken)
    outcome = Evaluator(problem).outcome(Policy())
    assert outcome.reason == "logit_error is nan"
    assert outcome.metrics == {}
    assert outcome.reward == -1.0


def test_an_outcome_carries_metrics_and_the_goals_reward(problem):
    evaluator = Evaluator(problem)
    outcome = evaluator.outcome(Policy())
    assert outcome.metrics == evaluator.evaluate(Policy()).to_record()
    assert outcome.reward == outcome.metrics["accuracy"]


def test_an_environment_evaluates_by_itself(problem):
    env = CompressionEnv(problem)
    env.reset()
    done = False
    while not done:
        _, reward, done, _, info = env.step(1)
    expected = Evaluator(problem).outcome(Policy.model_validate(info["policy"]))
    assert info["metrics"] == expected.metrics
    assert reward == expected.reward


def test_calibration_images_are_in_no_other_split(problem):
    pixels = calibration_pixels(problem.spec, problem.splits)
    calibration = {image.tobytes() for image in pixels}
    assert len(pixels) == 64
    assert calibration <= {image.tobytes() for image in problem.splits.train.pixels}
    for images in (problem.splits.search, problem.splits.selection, problem.splits.test):
        assert not calibration & {image.tobytes() for image in images.pixels}


class Halves(nn.Module):
    """Reads only some channels of a convolution, so that its cost depends on which channels are removed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, 2, 1)
        self.second = nn.Conv2d(4, 8, 3, 1, 1)
        self.last = nn.Linear(8, 10)
        with torch.no_grad():
            self.first.weight[4:] *= 0.01
            self.first.bias[4:] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.second(torch.relu(self.first(x))[:, :4]))
        return self.last(torch.flatten(nn.functional.adaptive_avg_pool2d(y, 1), 1))


def test_a_split_group_is_priced_by_the_channels_that_really_remain():
    halved = small_problem(Halves(), priced=Halves())
    evaluator = Evaluator(halved)
    for ratio in (0.5, 0.75):
        policy = Policy(keep_ratio={"first": ratio}).normalised(halved.network)
        assert evaluator.evaluate(policy).macs == evaluator.program(policy).macs


def test_no_choice_leaves_a_part_of_a_split_group_empty():
    network = small_problem(Halves(), priced=Halves()).network
    ascending = SearchSpace(network, JOINT, {"first": np.arange(8)})  # the four channels that are read leave first
    assert ascending.decisions[0].choices == (0.625, 0.75, 1.0)
    assert ascending.notes == ("keep_ratio of first in whole channels of 8: 0.25 is 0.625",)
    descending = SearchSpace(network, JOINT, {"first": np.arange(8)[::-1]})
    assert descending.decisions[0].choices == (0.25, 0.5, 0.75, 1.0)


def test_identity_changes_with_what_it_names(problem):
    same = small_problem().identity
    assert same == problem.identity

    def changed(**settings) -> set[str]:
        return {name for name, value in small_problem(**settings).identity.items() if value != same[name]}

    other = small_module()
    with torch.no_grad():
        other[0].bias[0] += 1
    assert changed(module=other) == {"weights"}
    assert changed(search=61) == {"environment", "images"}
    assert changed(goal=GoalSpec(limits={"latency_ms": "60%"})) == {"environment"}
    assert changed(priced=Halves()) == {"table"}
    assert changed(removal="magnitude") == {"environment"}


def test_the_environments_order_of_removal_is_that_of_its_programs(problem):
    chosen = small_problem(removal="magnitude").prepare().removal_order
    assert any((chosen[name] != order).any() for name, order in problem.prepare().removal_order.items())


def test_a_device_of_another_target_is_told_of_and_one_of_an_unknown_target_refused(problem, monkeypatch):
    table = macs_table(problem.network)
    lines: list[str] = []

    def load(target: str) -> None:
        header = replace(table.header, target=target)
        build_problem(
            "small", problem.spec, problem.module, problem.dataset, table=replace(table, header=header),
            report=lines.append,
        )  # fmt: skip

    load("portable")
    assert lines == []
    monkeypatch.setattr("automc.compiler.targets.cpu_flags", set)
    load("avx2")
    assert "paper computes with avx2, which this machine cannot run" in lines[0]
    with pytest.raises(NameNotFound, match="Did you mean 'avx2'"):
        load("avx3")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"module": small_module(7)}, DataError, "small answers 7 logits, but digits has 10 classes"),
        ({"search": 1290}, DataError, "ask for 1290 \\+ 40 images, but the train part of digits has 1297"),
        ({"calibration": 2000}, DataError, "asks for 2000 images, but 1197 training images of digits remain"),
        (
            {"goal": GoalSpec(limits={"latency_ms": "0.1%"})},
            InfeasibleBudget,
            "small: no policy of the search space keeps",
        ),
        ({"module": nn.Sequential(nn.Flatten(), nn.Softplus(), nn.Linear(64, 10))}, UnsupportedLayer, "Softplus"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(settings, error, message):
    with pytest.raises(error, match=message):
        small_problem(**settings)
