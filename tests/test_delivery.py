"""Policies that begin alike share their preparation, and nothing else changes by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from automc.choices import Codebook, Gated, Uniform
from automc.compression.delivery import Delivery
from automc.compression.policy import Policy
from automc.compression.prepare import Preparation
from automc.compression.tensors import Tensor
from automc.network.datasets import load_dataset
from tests.networks import TinyConcat, TinyResidual, traced

CALIBRATION = load_dataset("digits").train.pixels[:70]


def random_policies(network, count: int):
    """Each like the one before but for one decision."""
    random = np.random.default_rng(0)
    groups = [group.name for group in network.groups if group.prunable]
    layers = [layer.name for layer in network.convs]
    ratio, weights, bits = dict.fromkeys(groups, 1.0), {}, {}
    for _ in range(count):
        match random.integers(3):
            case 0:
                ratio[groups[random.integers(len(groups))]] = float(random.choice([0.5, 0.75]))
            case 1:
                weights[layers[random.integers(len(layers))]] = Uniform(weight_bits=int(random.integers(2, 8)))
            case _:
                tensors = network.quantised_tensors
                bits[tensors[random.integers(len(tensors))]] = int(random.integers(3, 8))
        yield Policy(keep_ratio=ratio, weights=weights, activation_bits=bits)


@pytest.mark.parametrize("make", [TinyResidual, TinyConcat])
def test_a_shared_beginning_changes_no_program(make):
    network = traced(make())
    one = Preparation(network, CALIBRATION)
    for policy in random_policies(network, 6):
        fresh = Preparation(network, CALIBRATION)
        assert one.sequential(policy).fingerprint == fresh.sequential(policy).fingerprint


def test_what_is_shared_is_not_prepared_again(monkeypatch):
    preparation = Preparation(traced(TinyResidual()), CALIBRATION)
    prepared = []
    original = Preparation._sequential

    def noted(self, layer, plan, delivered):
        prepared.append(layer.name)
        return original(self, layer, plan, delivered)

    monkeypatch.setattr(Preparation, "_sequential", noted)
    names = [layer.name for layer in preparation.network.convs]
    preparation.sequential(Policy())
    assert prepared == names
    for policy, first in (
        (Policy(weights={"linear": Codebook(entries=4)}), "linear"),
        (Policy(weights={"linear": Codebook(entries=4)}), None),
        (Policy(weights={"padded1.0": Gated(active_ratio=0.5)}), "padded1.0"),
        (Policy(activation_bits={"add": 4}), "same2.0"),  # which writes that sum
    ):
        prepared.clear()
        preparation.sequential(policy)
        assert prepared == ([] if first is None else names[names.index(first) :])


def test_what_does_not_fit_is_not_remembered():
    delivery, tensor = Delivery(limit=100), Tensor("a", 1, 1, 60, 8, 1.0, 3)
    batch = [torch.zeros(1, 1, 1, 60)]
    delivery.remember(0, "first", None, {"a": batch}, {"a": tensor})
    delivery.remember(1, "second", None, {"a": batch}, {"a": tensor})
    delivery.remember(2, "third", None, {}, {})  # nothing may follow a gap
    assert delivery.common(["first", "second", "third"]) == 1
    assert torch.equal(delivery.delivered({"a": tensor}, {"a"})["a"][0], batch[0])
    assert delivery.delivered({"a": tensor}, set()) == {}
