"""Policies: what they may say, what is written out for what they leave unsaid, and which channels they keep."""

from __future__ import annotations

import numpy as np
import pytest

from automc.compression.policy import Choice, Policy, kept_slots, uniform_policy
from automc.errors import PolicyError
from tests.networks import TinyResidual, traced


@pytest.fixture(scope="module")
def network():
    return traced(TinyResidual())


def test_every_name_is_written_out(network):
    policy = Policy().normalised(network)
    assert policy.keep_ratio == {group.name: 1.0 for group in network.groups if group.prunable}
    assert policy.weights == {layer.name: Choice(weight_bits=8) for layer in network.convs}
    assert policy.activation_bits == dict.fromkeys(network.quantised_tensors, 8)


def test_equal_meanings_have_equal_fingerprints(network):
    nearly_half = Policy(keep_ratio={"same1.0": 0.52}).normalised(network)  # of 8 channels both keep 4
    half = Policy(keep_ratio={"same1.0": 0.5}, activation_bits={"add": 8}).normalised(network)
    assert nearly_half.fingerprint() == half.fingerprint()
    assert half.fingerprint() != Policy().normalised(network).fingerprint()
    assert half.normalised(network) == half


@pytest.mark.parametrize(("ratio", "count"), [(1.0, 8), (0.5, 4), (0.56, 4), (0.57, 5), (0.01, 1)])
def test_the_nearest_count_is_kept_and_at_least_one(ratio, count):
    assert Policy(keep_ratio={"a": ratio}).kept_count("a", 8) == count


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy(keep_ratio={"same1": 0.5}), "keep_ratio: TinyResidual has no 'same1'. Did you mean 'same1.0'?"),
        (Policy(weights={"linera": Choice()}), "weights: TinyResidual has no 'linera'. Did you mean 'linear'?"),
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
        ('{"weights": {"a": {"weight_bits": 9}}}', "weights.a.weight_bits"),
        ('{"weight_bits": {}}', "weight_bits: Extra inputs"),
        ("{", "mine.json: "),
    ],
)
def test_a_file_with_faults_is_refused_with_their_places(text, message):
    with pytest.raises(PolicyError, match=message):
        Policy.from_json(text, "mine.json")


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
