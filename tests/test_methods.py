"""Every method of compressing a layer's weights: its integers, its errors, and the same numbers wherever they run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from automc.choices import Codebook, Gated, LowRank, Sparse, Uniform
from automc.compression import methods
from automc.compression.executor import Executor
from automc.compression.interpreter import interpret
from automc.compression.methods import encode
from automc.compression.operations import Convolve
from automc.compression.policy import Policy, unfit
from automc.compression.prepare import Preparation
from automc.compression.sharing import shared_levels
from automc.cost.model import CostModel
from automc.errors import WeightsError
from automc.network.datasets import load_dataset
from tests.cost_examples import kernels_of, table_for
from tests.networks import TINY_NETWORKS, TinyPlain, TinyResidual, traced

PIXELS = load_dataset("digits").train.pixels
CALIBRATION, HELD_OUT = PIXELS[:96], PIXELS[160:172]
CHOICES = [
    Uniform(weight_bits=1),
    Uniform(weight_bits=3, huffman=True),
    Codebook(entries=4, huffman=True),
    Codebook(entries=256),
    Codebook(entries=6, prior="mixture"),
    Sparse(density=0.4, weight_bits=5),
    Sparse(density=0.5, pattern="blocks"),
    Sparse(pattern="2:4", density=0.5, entries=6),
    Sparse(pattern="1:4", density=0.25),
    LowRank(rank_ratio=0.4),
    Gated(active_ratio=0.5, weight_bits=6),
]


@pytest.fixture(scope="module", params=TINY_NETWORKS, ids=lambda make: make.__name__)
def preparation(request):
    return Preparation(traced(request.param()), CALIBRATION)


@pytest.fixture(scope="module")
def plain():
    return Preparation(traced(TinyPlain()), CALIBRATION)


def problem(width: int = 72, outputs: int = 20, seed: int = 0):
    """Weights of a 3 x 3 kernel, and the covariance of correlated inputs."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(4 * width, width)) @ (np.tri(width) + 3 * np.eye(width))
    return torch.tensor(random.normal(size=(1, outputs, width))), torch.tensor(rows.T @ rows / len(rows))[None]


def error_of(choice, width: int = 72) -> float:
    weight, gram = problem(width)
    difference = weight - matrix(encode(weight, gram, (3, 3), choice).weights)
    return float((difference @ gram * difference).sum() / (weight @ gram * weight).sum())


def matrix(weights) -> torch.Tensor:
    return torch.tensor(weights.codes.reshape(len(weights.codes), -1) * weights.scale[:, None])[None]


@pytest.mark.parametrize("fidelity", ["program", "sequential"])
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_each_method_computes_the_same_everywhere(plain, choice, fidelity):
    preparation, network = plain, plain.network
    weights = {layer.name: choice for layer in network.convs if unfit(choice, layer.name, network) is None}
    keep_ratio = {group.name: 0.6 for group in network.groups if group.prunable}
    policy = Policy(keep_ratio=keep_ratio, weights=weights, activation_bits={network.quantised_tensors[1]: 1})
    program = getattr(preparation, fidelity)(policy)
    assert np.array_equal(interpret(program, HELD_OUT), Executor(program).run(HELD_OUT))
    assert program.fingerprint == getattr(preparation, fidelity)(policy).fingerprint


def test_random_policies_of_all_methods_compute_the_same_everywhere(preparation):
    network, random = preparation.network, np.random.default_rng(0)
    for fidelity in (preparation.program, preparation.sequential):
        weights = {}
        for layer in network.convs:
            fitting = [choice for choice in CHOICES if unfit(choice, layer.name, network) is None]
            weights[layer.name] = fitting[random.integers(len(fitting))]
        bits = {name: int(random.integers(1, 9)) for name in network.quantised_tensors}
        program = fidelity(Policy(weights=weights, activation_bits=bits))
        assert np.array_equal(interpret(program, HELD_OUT), Executor(program).run(HELD_OUT))


@pytest.mark.parametrize(
    "choices",
    [
        [Uniform(weight_bits=bits) for bits in range(1, 9)],
        [Codebook(entries=entries) for entries in (2, 4, 8, 16, 64, 256)],
        [Codebook(entries=entries, prior="mixture") for entries in (3, 4, 8, 16, 64, 256)],
        [Sparse(density=density) for density in (0.1, 0.25, 0.5, 0.75, 1.0)],
        [Sparse(density=density, pattern="blocks") for density in (0.1, 0.25, 0.5, 0.75, 1.0)],
        [Sparse(pattern="1:4", density=0.25), Sparse(pattern="2:4", density=0.5)],
    ],
    ids=lambda choices: choices[0].method,
)
def test_more_is_never_worse(choices):
    errors = [error_of(choice) for choice in choices]
    assert errors == sorted(errors, reverse=True)


def test_a_codebook_holds_no_more_than_its_entries_and_beats_the_grid_of_as_many_values():
    weight, gram = problem()
    for entries, bits in ((4, 2), (16, 4)):
        codes = encode(weight, gram, (3, 3), Codebook(entries=entries)).weights.codes
        assert 2 <= len(np.unique(codes)) <= entries
        assert error_of(Codebook(entries=entries)) < error_of(Uniform(weight_bits=bits))


def test_the_entries_of_a_mixture_settle_on_the_values_that_there_are():
    random = np.random.default_rng(0)
    means = np.array([-1.0, -0.4, 0.0, 0.7])
    weight = torch.tensor(random.choice(means, (1, 1, 600)) + random.normal(0, 0.02, (1, 1, 600)))
    levels, scale = shared_levels(weight, torch.ones_like(weight), 4, "mixture")
    assert np.abs((levels * scale.flatten()).numpy() - means).max() < 0.02


def test_a_mixture_has_a_zero_where_k_means_has_none():
    weight, gram = problem()
    importance = gram.diagonal(dim1=1, dim2=2)[:, None].expand_as(weight)
    assert 0 in shared_levels(weight, importance, 4, "mixture")[0]
    assert 0 not in shared_levels(weight, importance, 4)[0]


def test_a_mixture_of_one_value_keeps_it():
    levels, scale = shared_levels(torch.ones(1, 2, 5).double(), torch.ones(1, 2, 5), 4, "mixture")
    assert (levels * scale.flatten()[0]).tolist() == [1.0]


@pytest.mark.parametrize(("density", "pattern"), [(0.5, "unstructured"), (0.25, "unstructured"), (0.5, "blocks")])
def test_the_density_is_what_was_asked_for(density, pattern):
    weight, gram = problem(288, 32)
    codes = encode(weight, gram, (3, 3), Sparse(density=density, pattern=pattern)).weights.codes
    assert abs((codes != 0).mean() - density) < 0.02


def test_of_four_neighbouring_inputs_two_are_left():
    weight, gram = problem(9 * 10)
    codes = encode(weight, gram, (3, 3), Sparse(pattern="2:4", density=0.5)).weights.codes
    for start in range(0, 10, 4):
        assert ((codes[:, start : start + 4] != 0).sum(1) <= 2).all()


def test_blocks_are_zero_as_a_whole():
    weight, gram = problem(9 * 10, 40)
    codes = encode(weight, gram, (3, 3), Sparse(density=0.5, pattern="blocks")).weights.codes
    shares = [
        (codes[row : row + 16, column : column + 4, y, x] != 0).mean()
        for row in range(0, 40, 16)
        for column in range(0, 10, 4)
        for y in range(3)
        for x in range(3)
    ]
    assert all(share == 0 or share > 0.8 for share in shares)


def test_removal_with_compensation_beats_the_smallest_magnitudes():
    weight, gram = problem()
    threshold = weight.abs().flatten().median()
    difference = weight * (weight.abs() <= threshold)
    plain = float((difference @ gram * difference).sum() / (weight @ gram * weight).sum())
    assert error_of(Sparse(density=0.5)) < 0.5 * plain


@pytest.mark.parametrize(
    "choice",
    [
        Sparse(density=0.5, weight_bits=2),
        Sparse(density=0.25, pattern="1:4", weight_bits=3),
        Sparse(density=0.5, entries=4),
    ],
    ids=str,
)
def test_few_levels_are_searched_also_where_most_weights_are_zero(choice, monkeypatch):
    weight, gram = problem()
    found, codes = error_of(choice), encode(weight, gram, (3, 3), choice).weights.codes
    assert (codes != 0).mean() <= choice.density + 0.02
    monkeypatch.setattr(methods, "_FEW", 0)
    assert found < 0.95 * error_of(choice)


def test_a_layer_keeps_at_least_one_weight():
    weight, gram = problem()
    codes = encode(weight, gram, (3, 3), Sparse(density=1e-6)).weights.codes
    assert (codes != 0).sum() == 1


@pytest.mark.parametrize("choice", CHOICES[:-2], ids=str)
def test_weights_and_inputs_of_zero_are_no_trouble(choice):
    weight, gram = torch.zeros(1, 5, 36, dtype=torch.float64), torch.zeros(1, 36, 36, dtype=torch.float64)
    assert not matrix(encode(weight, gram, (3, 3), choice).weights).any()


def test_a_rank_beyond_the_directions_of_few_inputs_can_be_had():
    random = np.random.default_rng(0)
    rows = random.normal(size=(8, 77)).astype(np.float32)  # eight images, in single precision as a network computes
    rows -= rows.mean(0)
    gram = torch.tensor((rows.T @ rows).astype(np.float64) / 8)[None]
    assert torch.linalg.eigvalsh(gram).min() < 0  # not even a covariance any more
    weight = torch.tensor(random.normal(size=(1, 77, 77)))
    coded = encode(weight, gram, (1, 1), LowRank(rank_ratio=0.5))
    difference = weight - matrix(coded.weights) @ matrix(coded.before)
    assert (difference @ gram * difference).sum() < 1e-2 * (weight @ gram * weight).sum()


def test_the_full_rank_is_the_layer_and_less_is_less():
    weight, gram = problem(30, 10)
    errors = []
    for ratio in (0.2, 0.5, 1.0):
        coded = encode(weight, gram, (1, 1), LowRank(rank_ratio=ratio))
        difference = weight - matrix(coded.weights) @ matrix(coded.before)
        errors.append(float((difference @ gram * difference).sum() / (weight @ gram * weight).sum()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


def test_a_gate_opens_the_active_channels_alone(plain):
    dense = plain.program(Policy())
    gated = plain.program(Policy(weights={"conv1.0": Gated(active_ratio=0.5)}))
    names = [operation.target for operation in gated.operations]
    assert names[1:5] == ["conv1.0.pooled", "conv1.0.saliency", "conv1.0.gate", "conv1.0"]
    everything = plain.program(Policy(weights={"conv1.0": Gated(active_ratio=1.0)}))
    assert np.array_equal(Executor(everything).run(HELD_OUT), Executor(dense).run(HELD_OUT))


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_a_program_counts_the_macs_that_its_policy_is_priced_by(plain, choice):
    network = plain.network
    fitting = [layer.name for layer in network.convs if unfit(choice, layer.name, network) is None]
    if choice.method == "sparse" and choice.pattern == "blocks":
        fitting = ["conv2.0"]  # whose blocks are of one size, and half of which is a whole number
    keep_ratio = {} if choice.method == "sparse" else {"conv1.0": 0.5}
    policy = Policy(keep_ratio=keep_ratio, weights=dict.fromkeys(fitting, choice))
    kernels = {*kernels_of(network, policy), *kernels_of(network, Policy())}
    cost = CostModel(network, table_for(dict.fromkeys(kernels, 1.0))).cost(policy)
    assert plain.program(policy).macs == plain.sequential(policy).macs == cost.macs


def test_a_choice_says_how_its_weights_are_stored():
    preparation = Preparation(traced(TinyResidual()), CALIBRATION)
    choices = {
        "same1.0": Codebook(entries=8, huffman=True),
        "padded1.0": Sparse(density=0.5),
        "projected1.0": Sparse(density=0.5, pattern="blocks"),
    }
    program = preparation.program(Policy(weights=choices))
    stored = {each.target: (each.encoding, each.huffman) for each in program.operations if isinstance(each, Convolve)}
    assert [stored[name] for name in choices] == [("codebook", True), ("sparse", False), ("blocks", False)]
    assert stored["linear"] == ("dense", False)


def test_weights_that_are_no_numbers_are_refused_by_layer():
    network = traced(TinyPlain())
    spoiled = dataclasses.replace(network.convs[1], weight=np.full_like(network.convs[1].weight, np.nan))
    layers = tuple(spoiled if layer is network.convs[1] else layer for layer in network.layers)
    with pytest.raises(WeightsError, match=r"the weights of 'conv2.0' are not all finite"):
        Preparation(dataclasses.replace(network, layers=layers), CALIBRATION)
