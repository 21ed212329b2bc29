"""Small problems for fast tests: an evaluation that is a formula, or small networks that read digits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from automc.choices import Sparse
from automc.compression.policy import Policy
from automc.compression.prepare import Preparation
from automc.cost.kernels import KernelPlan
from automc.cost.table import Header, LatencyTable, Row
from automc.environment.evaluator import Evaluator
from automc.environment.loading import build_problem
from automc.environment.metrics import Metrics, Outcome
from automc.environment.problem import Problem
from automc.environment.space import SearchSpace
from automc.network.datasets import Dataset, Images, Splits, load_dataset
from automc.network.graph import Add, Conv, Group, Input, Network, Pool
from automc.network.trace import trace
from automc.schema import DataSpec, EnvironmentSpec, FinetuningSpec, GoalSpec, SearchSpaceSpec
from tests.cost_examples import kernels_of

JOINT = SearchSpaceSpec(
    description="channels and bits of the tiny network",
    keep_ratio=[0.25, 0.5, 0.75, 1.0],
    weight_bits=[4, 6, 8],
    activation_bits=[4, 8],
)


def tiny_network(width: int = 1) -> Network:
    """Three convolutions of which two meet in a sum, a pool and a dense layer: 8x8 grey images to 3 classes.

    `width` multiplies the channels.
    """
    random = np.random.default_rng(0)
    few, many = 4 * width, 8 * width

    def conv(name, source, shape, inputs, kernel, **rest):
        weight = random.normal(0, 0.5, (shape[0], inputs, kernel, kernel)).astype(np.float32)
        return Conv(name, (source,), shape, weight=weight, bias=np.zeros(shape[0], np.float32), **rest)

    layers = (
        Input("image", (), (1, 8, 8)),
        conv("a", "image", (few, 8, 8), 1, 3, padding=(1, 1), activation="relu"),
        conv("b", "a", (many, 4, 4), few, 3, stride=(2, 2), padding=(1, 1), activation="relu"),
        conv("c", "b", (many, 4, 4), many, 3, padding=(1, 1)),
        Add("sum", ("b", "c"), (many, 4, 4), activation="relu"),
        Pool("pool", ("sum",), (many, 1, 1), kind="mean", kernel=(4, 4), stride=(4, 4)),
        conv("dense", "pool", (3, 1, 1), many, 1),
    )
    groups = (
        Group("a", few, {"a": np.arange(few)}),
        Group("b", many, {"b": np.arange(many), "c": np.arange(many)}),
        Group("dense", 3, {"dense": np.arange(3)}, reason="it writes the network's result"),
    )
    group_of = {"a": 0, "b": 1, "c": 1, "sum": 1, "pool": 1, "dense": 2}
    slots = {
        layer.name: np.stack([np.full(layer.shape[0], group_of.get(layer.name, -1)), np.arange(layer.shape[0])], 1)
        for layer in layers
    }
    return Network("tiny", layers, groups, slots, (0.5,), (0.25,))


@dataclass(frozen=True)
class FormulaCost:
    """What the made-up device takes."""

    latency_ms: float
    energy_mj: float | None
    size_bytes: int
    macs: int
    interpolated: tuple[str, ...] = ()
    source: str = "simulated"
    peak_memory_bytes: int | None = 100


class FormulaPricing:
    """A device where a MAC costs its bits: exact, monotonic and without any table."""

    def __init__(self, network: Network) -> None:
        self._plan = KernelPlan(network)

    def cost(self, policy: Policy) -> FormulaCost:
        kernels = [(step.kernel, step.times) for step in self._plan.steps(policy)]
        work = sum(times * kernel.macs * kernel.weight_bits * kernel.activation_bits for kernel, times in kernels)
        size = sum(times * kernel.weights * kernel.weight_bits for kernel, times in kernels)
        macs = sum(times * kernel.macs for kernel, times in kernels)
        return FormulaCost(0.001 + work * 1e-6, work * 1e-7, math.ceil(size / 8), macs)


def tiny_problem(
    goal: GoalSpec | None = None, space: SearchSpaceSpec = JOINT, pricing=None, network: Network | None = None
) -> Problem:
    """A problem of ten decisions, or that of another `network` for 8x8 grey images.

    Its module is a placeholder, as nothing is computed with it.
    """
    network = network or tiny_network()
    random = np.random.default_rng(0)

    def some() -> Images:
        return Images(random.integers(0, 256, (6, 8, 8, 1), dtype=np.uint8), random.integers(0, 3, 6))

    data = DataSpec(name="random", search=6, selection=6, calibration=6)
    return Problem(
        name="tiny",
        spec=EnvironmentSpec(description="for tests", network="tiny", data=data, goal=goal or GoalSpec()),
        given=network,
        network=network,
        module=nn.Identity(),
        dataset=Dataset("random", ("x", "y", "z"), network.mean, network.std, some(), some()),
        splits=Splits(some(), some(), some(), some(), "train"),
        space=SearchSpace(network, space),
        pricing=pricing or FormulaPricing(network),
        target="portable",
        identity={"environment": "tiny", "weights": network.name},
        prepare=partial(Preparation, network, some().pixels),
    )


def formula_metrics(problem: Problem, policy: Policy) -> Metrics:
    """What a policy is worth by a formula that a good searcher can learn: each decision loses its own share.

    The losses differ between decisions, so that treating all layers alike is not the best.
    """
    loss = 0.0
    for position, decision in enumerate(problem.space.decisions):
        index = problem.space.choices_of(policy)[position]
        share = decision.shares[index] / decision.shares[-1]
        loss += 0.02 * (1 + 7 * position % 5) * (1 - share) ** 2
    cost = problem.cost(policy)
    return Metrics(
        quality=0.9 - loss,
        quality_loss=loss,
        logit_error=10 * loss,
        latency_ms=cost.latency_ms,
        energy_mj=cost.energy_mj,
        size_bytes=cost.size_bytes,
        peak_memory_bytes=100,
        macs=cost.macs,
    )


def formula_outcome(problem: Problem, policy: Policy) -> Outcome:
    """The formula's metrics as an environment's `evaluate` answers them."""
    metrics = formula_metrics(problem, policy)
    return Outcome(metrics.to_record(), problem.reward(metrics))


def macs_table(network: Network) -> LatencyTable:
    """A latency table by a formula: `network`'s kernels, whole and at a quarter of the channels, take their work."""
    prunable = [group.name for group in network.groups if group.prunable]
    policies = [Policy(keep_ratio=dict.fromkeys(prunable, ratio)) for ratio in (0.25, 1.0)]
    kernels = sorted({kernel for policy in policies for kernel in kernels_of(network, policy) if kernel.inputs})
    rows = tuple(Row(kernel, 1e-6 * kernel.work + 1e-4, 0.0, 9, "simulated") for kernel in kernels)
    header = Header("paper", "none", "portable", "none", "none", "2026-01-01")
    return LatencyTable(header, None, rows)


def small_module(classes: int = 10) -> nn.Module:
    layers = (nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, classes))
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0, 0.5, generator=generator)
    return module


def small_problem(module=None, goal=None, priced=None, removal="second_order", space=JOINT, **data) -> Problem:
    dataset = load_dataset("digits")
    module = module or small_module()
    sizes = {"search": 60, "selection": 40, "calibration": 64} | data
    images = DataSpec(name="digits", **sizes)
    spec = EnvironmentSpec(description="", network="small", data=images, goal=goal or GoalSpec(), removal=removal)
    table = macs_table(trace(priced or small_module(), (1, 8, 8), dataset.mean, dataset.std, "small"))
    return build_problem("small", spec, module, dataset, space=space, table=table)


def trained_module() -> nn.Module:
    """A small network that knows some digits: its last layer is a fit to random features."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    )
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0, 0.3, generator=generator)
    dataset = load_dataset("digits")
    pixels = torch.tensor(dataset.train.pixels).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        features = module[:-1]((pixels - dataset.mean[0]) / dataset.std[0])
        wanted = torch.eye(10)[torch.tensor(dataset.train.labels)]
        gram = features.T @ features + torch.eye(128)
        module[-1].weight.copy_(torch.linalg.solve(gram, features.T @ wanted).T)
        module[-1].bias.zero_()
    return module


def digits_problem(epochs: float = 0.0, target: str = "portable", **changes: Any) -> Problem:
    torch.set_num_threads(1)
    dataset, module = load_dataset("digits"), trained_module()
    spec = EnvironmentSpec(
        description="for tests",
        network="small",
        data=DataSpec(name="digits", search=60, selection=80, calibration=64),
        finetuning=FinetuningSpec(epochs=epochs, crop=0, flip=False, learning_rate=0.003),
        **changes,
    )
    table = macs_table(trace(module, (1, 8, 8), dataset.mean, dataset.std, "small"))
    table = replace(table, header=replace(table.header, target=target))
    return build_problem("small", spec, module, dataset, space=JOINT, table=table)


def half_sparse(problem: Problem, keep_ratio: float) -> Policy:
    """A policy whose size is known of its Program alone."""
    chosen = {layer.name: Sparse(density=0.5) for layer in problem.network.convs}
    return Policy(keep_ratio={"0": keep_ratio, "2": keep_ratio}, weights=chosen).normalised(problem.network)


def size_of(problem: Problem, policy: Policy) -> int:
    return Evaluator(problem, "sequential").evaluate(policy).size_bytes
