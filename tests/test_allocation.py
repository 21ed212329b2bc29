"""Allocation by dynamic programming, the sensitivities it starts from, and what the searcher learns of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from automc.compression.executor import Executor
from automc.environment.problem import Problem
from automc.environment.sensitivity import single_losses
from automc.environment.space import replaced
from automc.network.forward import forward
from automc.network.training import normalise
from automc.schema import GoalSpec, SearchSpaceSpec
from automc.search.allocation import allocate
from automc.search.searchers.dynamic import Factors
from tests.problems import tiny_problem

SMALL = SearchSpaceSpec(description="few", keep_ratio=[0.5, 0.75, 1.0], weight_bits=[4, 8], activation_bits=[4, 8])


def falling(problem: Problem, seed: int) -> list[np.ndarray]:
    """Losses that grow with compression, differently for each decision."""
    random = np.random.default_rng(seed)
    scales = np.exp(random.normal(0, 1, len(problem.space.decisions)))
    return [
        scale * (len(decision.choices) - 1 - np.arange(len(decision.choices))) ** 2.0
        for scale, decision in zip(scales, problem.space.decisions, strict=True)
    ]


def total(losses: list[np.ndarray], choices: tuple[int, ...]) -> float:
    return float(sum(loss[index] for loss, index in zip(losses, choices, strict=True)))


@pytest.mark.parametrize("limits", [{"latency_ms": "50%"}, {"macs": "70%"}, {"latency_ms": "60%", "size_bytes": "65%"}])
def test_the_allocation_is_nearly_the_best_of_all_policies(limits: dict[str, str]) -> None:
    problem = tiny_problem(GoalSpec(limits=limits), SMALL)
    policies = product(*(range(len(decision.choices)) for decision in problem.space.decisions))
    fitting = [choices for choices in policies if problem.limits.fits(problem.cost_of(choices))]
    for seed in range(5):
        losses = falling(problem, seed)
        found = allocate(problem, losses)
        assert problem.limits.fits(problem.cost_of(found))
        assert total(losses, found) <= 1.05 * min(total(losses, choices) for choices in fitting)


def test_a_share_of_the_limits_is_kept_and_what_cannot_be_kept_gives_the_cheapest() -> None:
    problem = tiny_problem(GoalSpec(limits={"latency_ms": "80%"}), SMALL)
    losses = falling(problem, 0)
    assert problem.limits.worst(problem.cost_of(allocate(problem, losses, 0.7))) <= 0.7
    assert allocate(problem, losses, 1e-3) == problem.cheapest


def test_a_single_loss_is_the_logit_error_that_the_choice_adds_alone() -> None:
    problem = tiny_problem()
    losses = single_losses(problem, 4)
    space, pixels = problem.space, problem.splits.search.pixels[:4]
    answers = forward(problem.network.layers, normalise(pixels, problem.network.mean, problem.network.std))
    dense = answers[problem.network.output.name].flatten(1).numpy().astype(np.float64)

    def error(choices: tuple[int, ...]) -> float:
        program = problem.prepare().program(space.policy(choices))
        return float(np.square(Executor(program).run(pixels) - dense).mean())

    largest = space.largest()
    assert [len(loss) for loss in losses] == [len(decision.choices) for decision in space.decisions]
    for position, loss in enumerate(losses):
        assert loss[-1] == 0
        assert loss[0] == max(0.0, error(replaced(largest, position, 0)) - error(largest))


def test_single_losses_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOMC_CACHE", str(tmp_path))
    measured = single_losses(tiny_problem(), 3)

    def never() -> None:
        pytest.fail("measured again")

    again = single_losses(replace(tiny_problem(GoalSpec(limits={"macs": "60%"})), prepare=never), 3)  # another budget
    assert all((one == other).all() for one, other in zip(measured, again, strict=True))
    for file in tmp_path.rglob("*.json"):
        file.write_text("[")
    repaired = single_losses(tiny_problem(), 3)
    assert all((one == other).all() for one, other in zip(measured, repaired, strict=True))


def test_single_losses_are_those_of_what_is_pinned_and_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOMC_CACHE", str(tmp_path))
    spaces = [SMALL.model_copy(update={"activation_bits": [bits]}) for bits in (3, 8)]
    coarse, fine = (single_losses(tiny_problem(space=space), 3) for space in spaces)
    assert any((one != other).any() for one, other in zip(coarse, fine, strict=True))
    problem = tiny_problem(space=SMALL)
    grown = replace(problem, spec=problem.spec.model_copy(update={"grow": {"conv1": 16}}))
    for each in (problem, grown):
        single_losses(each, 3)
    assert len(list(tmp_path.rglob("sensitivity/*.json"))) == 4


def test_factors_are_learned_from_the_errors_of_whole_policies() -> None:
    random = np.random.default_rng(0)
    true = np.exp(random.normal(0, 0.3, 8))
    factors = Factors(8, spread=0.4, noise=0.01)
    assert np.allclose(factors.draw(0.0, random), 1.0)
    before = np.std(factors.draw(1.0, random) / factors.draw(0.0, random))
    for _ in range(60):
        losses = random.uniform(0.5, 1.5, 8)
        factors.observe(losses, 0.5 + float(losses @ true))
    assert np.abs(factors.draw(0.0, random) - true).max() < 0.1
    assert np.std(factors.draw(1.0, random) / factors.draw(0.0, random)) < before


def test_what_lies_far_off_teaches_nothing_about_the_best() -> None:
    random = np.random.default_rng(0)
    factors = Factors(3, spread=0.4, noise=0.05)
    factors.observe(np.array([1.0, 2.0, 1.0]), 4.0)
    expected = factors.draw(0.0, random)
    factors.observe(np.array([90.0, 0.0, 0.0]), 20.0)
    assert (factors.draw(0.0, random) == expected).all()
