"""Policies: what they may say, what is written out for what they leave unsaid, and which channels they keep."""

from __future__ import annotations

import numpy as np
import pytest

from automc.choices import Codebook, Gated, LowRank, Sparse, Uniform
from automc.compression.policy import Policy, kept_slots, uniform_policy
from automc.errors import PolicyError
from tests.networks import TinyDepthwise, TinyPlain, TinyResidual, traced


@pytest.fixture(scope="module")
def network():
    return traced(TinyResidual())


def test_every_name_is_written_out(network):
    policy = Policy().normalised(network)
    assert policy.keep_ratio == {group.name: 1.0 for group in network.groups if group.prunable}
    assert policy.weights == {layer.name: Uniform(weight_bits=8) for layer in network.convs}
    assert policy.activation_bits == dict.fromkeys(network.quantised_tensors, 8)


def test_equal_meanings_have_equal_fingerprints(network):
    nearly_half = Policy(keep_ratio={"same1.0": 0.52}).normalised(network)  # of 8 channels both keep 4
    half = Policy(keep_ratio={"same1.0": 0.5}, activation_bits={"add": 8}).normalised(network)
    assert nearly_half.fingerprint == half.fingerprint
    assert half.fingerprint != Policy().normalised(network).fingerprint
    assert half.normalised(network) == half


@pytest.mark.parametrize(("ratio", "count"), [(1.0, 8), (0.5, 4), (0.56, 4), (0.57, 5), (0.01, 1)])
def test_the_nearest_count_is_kept_and_at_least_one(ratio, count):
    assert Policy(keep_ratio={"a": ratio}).kept_count("a", 8) == count


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy(keep_ratio={"same1": 0.5}), "keep_ratio: TinyResidual has no 'same1'. Did you mean 'same1.0'?"),
        (Policy(weights={"linera": Uniform()}), "weights: TinyResidual has no 'linera'. Did you mean 'linear'?"),
        (Policy(activation_bits={"linear": 4}), "activation_bits: TinyResidual has no 'linear'"),
        (Policy(keep_ratio={"linear": 0.5}), "'linear' cannot be pruned: its outputs are the network's result"),
    ],
)
def test_what_does_not_fit_the_network_is_named(network, policy, message):
    with pytest.raises(PolicyError, match=message.replace("?", r"\?")):
        policy.normalised(network)


def test_a_file_reads_back_as_it_was_written(network):
    policy = uniform_policy(network, 0.5, 4, 6)
    assert Policy.from_json(policy.to_json()) == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"keep_ratio": {"a": 1.5}}', "mine.json: keep_ratio.a: .*less than or equal to 1"),
        ('{"weights": {"a": {"weight_bits": 9}}}', "weights.a.weight_bits: .*less than or equal to 8"),
        ('{"weights": {"a": {"method": "codebok"}}}', r"weights.a: no method 'codebok'. Did you mean 'codebook'\?"),
        ('{"weights": {"a": "codebook"}}', "weights.a: must be a method with its fields, .* Got 'codebook' instead"),
        ('{"weights": {"a": {"method": "codebook", "entries": 1}}}', "weights.a.entries: .*at least 2 entries"),
        ('{"weights": {"a": {"method": "sparse", "density": 0}}}', "weights.a.density: .*greater than 0"),
        ('{"weights": {"gated": {"method": "sparse", "density": 0}}}', "weights.gated.density: .*greater than 0"),
        ('{"weights": {"huffman": {"method": "sparse", "density": 0}}}', "weights.huffman.density: .*greater than 0"),
        ('{"weights": {"a": {"method": "sparse"}}}', "the field 'weights.a.density' is missing"),
        ('{"weights": {"a": {"method": "sparse", "density": 0.3, "pattern": "2:4"}}}', "density of 0.5, not 0.3"),
        ('{"weights": {"a": {"method": "sparse", "density": 0.3, "weight_bits": 1}}}', "weight_bits: .*or equal to 2"),
        (
            '{"weights": {"a": {"method": "sparse", "density": 0.3, "weight_bits": 4, "entries": 9}}}',
            "leave weight_bits out",
        ),
        ('{"weights": {"a": {"method": "codebook", "entries": 2, "prior": "mixture"}}}', "at least 3 entries"),
        ('{"weights": {"a": {"method": "codebook", "prior": "gauss"}}}', "'k-means' or 'mixture'"),
        ('{"keep_rato": {}}', r"mine.json: unknown field 'keep_rato'. Did you mean 'keep_ratio'\?"),
        ("{", "mine.json: "),
        ("[]", "mine.json: must be a mapping of fields"),
    ],
)
def test_a_file_with_faults_is_refused_with_their_places(text, message):
    with pytest.raises(PolicyError, match=message):
        Policy.from_json(text, "mine.json")


def test_a_choice_may_leave_its_method_out_if_it_is_uniform():
    read = Policy.from_json('{"weights": {"a": {"weight_bits": 3}, "b": {"method": "codebook", "entries": 4}}}')
    assert read.weights == {"a": Uniform(weight_bits=3), "b": Codebook(entries=4)}


def test_n_of_m_says_its_density():
    assert Sparse(pattern="1:4") == Sparse(pattern="1:4", density=0.25)


@pytest.mark.parametrize(
    ("layer", "choice", "message"),
    [
        (
            "conv2.0",
            LowRank(rank_ratio=0.5),
            "'conv2.0' is a convolution of 3 x 3 over a map; choose uniform, codebook",
        ),
        ("linear", Gated(active_ratio=0.5), "'linear' writes the network's result"),
    ],
)
def test_a_method_is_refused_where_it_does_not_fit(layer, choice, message):
    with pytest.raises(PolicyError, match=message):
        Policy(weights={layer: choice}).normalised(traced(TinyPlain()))


def test_a_layer_that_computes_a_sum_cannot_be_gated(network):
    with pytest.raises(PolicyError, match=r"'same2.0' computes a sum, which needs all its channels; gate the layer be"):
        Policy(weights={"same2.0": Gated(active_ratio=0.5)}).normalised(network)


def test_depthwise_layers_have_no_blocks():
    depthwise = traced(TinyDepthwise())
    with pytest.raises(PolicyError, match=r"'depthwise.0' has 24 groups; choose the pattern unstructured"):
        Policy(weights={"depthwise.0": Sparse(pattern="2:4")}).normalised(depthwise)
    Policy(weights={"depthwise.0": Sparse(density=0.5)}).normalised(depthwise)


def test_ranks_and_active_channels_are_at_least_one():
    assert [LowRank(rank_ratio=ratio).rank(10, 64) for ratio in (0.01, 0.5, 1.0)] == [1, 5, 10]
    assert [Gated(active_ratio=ratio).active(16) for ratio in (0.01, 0.5, 1.0)] == [1, 8, 16]


def test_what_is_kept_is_nested(network):
    order = {group.name: np.random.default_rng(1).permutation(group.slots) for group in network.groups}
    fewer, more = (kept_slots(uniform_policy(network, ratio), network, order) for ratio in (0.25, 0.75))
    for name, slots in fewer.items():
        assert set(slots) < set(more[name])
        assert order[name][0] not in more[name]
        assert list(slots) == sorted(slots)
    assert "linear" not in fewer


def test_uniform_keeps_the_ends_fine(network):
    policy = uniform_policy(network, 0.5, 4, 3)
    bits = {name: choice.weight_bits for name, choice in policy.weights.items()}
    assert [name for name, width in bits.items() if width == 8] == ["conv1.0", "linear"]
    assert set(bits.values()) == {4, 8}
    assert [name for name, width in policy.activation_bits.items() if width == 8] == ["input", "mean_pool"]
    assert set(policy.activation_bits.values()) == {3, 8}
    assert set(policy.keep_ratio.values()) == {0.5}


def test_what_the_last_layer_reads_stays_fine_behind_a_max_pool():
    policy = uniform_policy(traced(TinyPlain()), weight_bits=4, activation_bits=4)
    assert policy.activation_bits == {"input": 8, "conv1.0": 4, "conv2.0": 8}
