"""Costs as sums over layers, the cheapest policy by elimination, and what is said of budgets before any trial."""

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

from automc.compression.policy import Policy
from automc.cost.energy import HOROWITZ
from automc.cost.kernels import KernelPlan
from automc.cost.model import CostModel
from automc.environment.elimination import Table, elimination_order, minimise
from automc.environment.factors import COSTS, Factors
from automc.environment.problem import Problem
from automc.environment.reward import Limits
from automc.errors import InfeasibleBudget
from automc.schema import GoalSpec
from automc.search.searchers.greedy import allocate
from tests.problems import JOINT, macs_table, tiny_network, tiny_problem


@cache
def uneven_model() -> CostModel:
    """A device on which a kernel takes anything from half to twice its work: fewer channels are often slower."""
    network, random = tiny_network(), np.random.default_rng(3)
    table = macs_table(network)
    plan = KernelPlan(network)
    ratios, bits = JOINT.keep_ratio, JOINT.activation_bits
    policies = [
        Policy(keep_ratio={"a": a, "b": b}, activation_bits=dict.fromkeys(("a", "b", "sum"), count))
        for a, b, count in product(ratios, ratios, bits)
    ]
    kernels = sorted({step.kernel for policy in policies for step in plan.steps(policy)})
    like = table.rows[0]
    rows = [
        replace(like, kernel=kernel, latency_ms=(1e-4 + 1e-6 * kernel.work) * float(random.uniform(0.5, 2)))
        for kernel in kernels
    ]
    return CostModel(network, replace(table, rows=tuple(rows), energy=HOROWITZ))


def problem_with(limits: dict[str, float]) -> Problem:
    return tiny_problem(GoalSpec.model_validate({"limits": limits}), pricing=uneven_model())


@cache
def every_choice() -> np.ndarray:
    """All policies of the tiny space: `n x decisions`."""
    sizes = [len(decision.choices) for decision in tiny_problem().space.decisions]
    return np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), axis=-1).reshape(-1, len(sizes))


@cache
def every_cost() -> np.ndarray:
    return Factors(tiny_problem().space, uneven_model()).costs(every_choice())


def test_a_policy_costs_to_the_last_bit_the_sum_over_its_layers() -> None:
    problem, model = problem_with({"latency_ms": 1.0}), uneven_model()
    random = np.random.default_rng(0)
    rows = every_choice()[random.choice(len(every_choice()), 200)]
    for choices in map(tuple, rows.tolist()):
        assert problem.cost_of(choices) == model.cost(problem.space.policy(choices))


def test_a_batch_costs_what_its_policies_cost() -> None:
    factors, random = Factors(tiny_problem().space, uneven_model()), np.random.default_rng(0)
    rows = every_choice()[random.choice(len(every_choice()), 100)]
    one_by_one = [factors.cost(choices) for choices in map(tuple, rows.tolist())]
    alone = np.array([[getattr(cost, metric) for metric in COSTS] for cost in one_by_one])
    np.testing.assert_allclose(factors.costs(rows), alone, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_elimination_finds_the_least_sum(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 4, 6).tolist()
    scopes = [tuple(random.permutation(6)[: random.integers(0, 4)].tolist()) for _ in range(7)]
    tables = [Table(scope, random.normal(size=[sizes[variable] for variable in scope])) for scope in scopes]

    def value(chosen: tuple[int, ...]) -> float:
        return sum(float(table.values[tuple(chosen[variable] for variable in table.scope)]) for table in tables)

    order = elimination_order(scopes, sizes, 1000)
    assert order is not None
    least = min(map(value, product(*map(range, sizes))))
    assert value(minimise(tables, order)) == pytest.approx(least)
    assert elimination_order([(0, 1, 2)], [4, 4, 4], 63) is None


@pytest.mark.parametrize("metric", COSTS)
def test_the_lowest_cost_is_that_of_an_exhaustive_search(metric: str) -> None:
    lowest = problem_with({"latency_ms": 1.0}).feasibility.lowest(metric)
    assert lowest.exact
    assert lowest.cost == pytest.approx(every_cost()[:, COSTS.index(metric)].min(), rel=1e-12)


def targets(count: int) -> list[dict[str, float]]:
    """Budgets of one and of two limits around what is possible."""
    random, costs = np.random.default_rng(1), every_cost()
    lowest = dict(zip(COSTS, costs.min(axis=0).tolist(), strict=True))
    found = []
    for number in range(count):
        metrics = ["latency_ms"] if number % 2 else ["latency_ms", str(random.choice(["size_bytes", "energy_mj"]))]
        found.append({metric: lowest[metric] * float(random.uniform(0.8, 1.6)) for metric in metrics})
    return found


def reachable(limits: dict[str, float]) -> bool:
    kept = [every_cost()[:, COSTS.index(metric)] <= limit for metric, limit in limits.items()]
    return bool(np.logical_and.reduce(kept).any())


def test_reachable_targets_are_reached_by_greedy_search_and_the_others_by_no_policy() -> None:
    asked = targets(50)
    assert 10 <= sum(map(reachable, asked)) <= 40
    for limits in asked:
        problem = problem_with(limits)
        if reachable(limits):
            base = problem.space.largest()
            choices = allocate(problem, base, np.ones(len(base)), growth=4.0)
            assert problem.limits.fits(problem.cost(problem.space.policy(choices)))
        else:
            with pytest.raises(InfeasibleBudget, match="no policy of the search space keeps the budget"):
                _ = problem.cheapest


def test_an_unreachable_limit_is_refused_with_the_nearest_that_can_be_reached() -> None:
    lowest = problem_with({"latency_ms": 1.0}).feasibility.lowest("latency_ms").cost
    with pytest.raises(InfeasibleBudget) as refusal:
        _ = problem_with({"latency_ms": lowest / 2}).cheapest
    message = str(refusal.value)
    assert f"latency_ms: the lowest reachable is {lowest:.3g}" in message
    assert "most of it in" in message
    asked = float(message.rpartition("goal.limits.latency_ms=")[2])
    assert lowest <= asked <= lowest * (1 + 1e-5)
    assert problem_with({"latency_ms": asked}).cheapest


def test_the_nearest_target_of_which_a_share_can_be_reached() -> None:
    lowest = problem_with({"latency_ms": 1.0}).feasibility.lowest("latency_ms").cost
    with pytest.raises(InfeasibleBudget, match=r"keeps 0\.3 of the budget") as refusal:
        problem_with({"latency_ms": 2 * lowest}).cheapest_within(0.3)
    assert f"The limit is {2 * lowest:.6g}" in str(refusal.value)
    asked = float(str(refusal.value).rpartition("goal.limits.latency_ms=")[2])
    assert problem_with({"latency_ms": asked}).cheapest_within(0.3)


def test_the_lowest_costs_are_told_in_whole_bytes_and_with_the_layers_that_hold_a_latency_up() -> None:
    problem = problem_with({"latency_ms": 1.0})
    size = problem.feasibility.lowest("size_bytes").cost
    share = size / problem.dense_cost.size_bytes
    assert problem.lowest_line("size_bytes") == (
        f"size_bytes: the lowest reachable is {size:.0f}, {share:.1%} of the dense network at 8 bits"
    )
    choices = problem.feasibility.lowest("latency_ms").choices
    prices = uneven_model().layer_prices(problem.space.policy(choices))
    slowest = max(prices, key=lambda layer: prices[layer].latency_ms)
    assert f"; most of it in {slowest} " in problem.lowest_line("latency_ms")


def test_a_network_that_is_too_entangled_gets_no_certainty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automc.environment.factors._LARGEST", 2)
    problem = problem_with({"latency_ms": 1e-6})
    assert not problem.feasibility.lowest("latency_ms").exact
    assert not problem.feasibility.keep(Limits(problem.spec.goal, {"latency_ms": 1e-6})).certain
    with pytest.raises(InfeasibleBudget, match="no policy was found that keeps the budget"):
        _ = problem.cheapest
