"""Fine-tuning keeps what a method promised: shared values stay shared, removed weights removed, signs signs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from automc.choices import Codebook, LowRank, Sparse, Uniform
from automc.compression.executor import Executor
from automc.compression.finetune import finetune
from automc.compression.operations import Convolve
from automc.compression.policy import Policy
from automc.compression.prepare import Preparation
from automc.compression.shadow import ShadowWeights
from automc.errors import PolicyError
from automc.network.datasets import load_dataset
from automc.schema import FinetuningSpec
from tests.networks import MEAN, STD, TinyPlain, randomise, traced
from tests.restore import restored

TRAIN = load_dataset("digits").train


@pytest.fixture(scope="module")
def preparation():
    return Preparation(traced(TinyPlain()), TRAIN.pixels[:96])


@pytest.fixture(scope="module")
def before(preparation):
    choices = {
        "conv1.0": Uniform(weight_bits=1),
        "conv2.0": Codebook(entries=5),
        "linear": Sparse(density=0.3, entries=4),
    }
    return preparation.program(Policy(weights=choices))


def weight_of(program, name):
    (found,) = (each for each in program.operations if each.target == name)
    assert isinstance(found, Convolve)
    return found.weight


def test_shared_removed_and_one_bit_weights_stay_so(before, tmp_path):
    spec = FinetuningSpec(epochs=2, batch_size=32, learning_rate=0.05, crop=0, flip=False)
    after = finetune(before, TRAIN.take(np.arange(320)), TinyPlain(), MEAN, STD, spec, tmp_path, lambda line: None)
    for name, entries in (("conv2.0", 5), ("linear", 5)):
        old, new = weight_of(before, name), weight_of(after, name)
        assert not np.array_equal(old, new)
        assert len(np.unique(new)) <= entries
        for value in np.unique(old):
            assert len(np.unique(new[old == value])) == 1
    assert ((weight_of(before, "linear") == 0) <= (weight_of(after, "linear") == 0)).all()
    assert set(np.unique(weight_of(after, "conv1.0"))) == {-1, 1}


def test_an_entry_moves_by_the_gradients_of_all_its_weights(before):
    shadow = ShadowWeights(before)
    pixels = torch.from_numpy(TRAIN.pixels[:8]).permute(0, 3, 1, 2)
    shadow(pixels).square().mean().backward()
    place = [each.target for each in before.operations if isinstance(each, Convolve)].index("conv2.0")
    gradient, codes = shadow.weights[place].grad.numpy(), weight_of(before, "conv2.0")
    for value in np.unique(codes):
        assert len(np.unique(gradient[codes == value])) == 1
    assert np.abs(gradient).max() > 0


def test_float_weights_come_back_from_a_program(preparation):
    network = preparation.network
    program = preparation.program(Policy(weights={layer.name: Uniform(weight_bits=4) for layer in network.convs}))
    again = Preparation(restored(network, program), TRAIN.pixels[:96]).program(Policy())
    answers = [Executor(each).run(TRAIN.pixels[200:260]) for each in (program, again)]
    assert np.abs(answers[0] - answers[1]).max() < 0.05 * answers[0].std()


@pytest.mark.parametrize(
    "policy", [Policy(keep_ratio={"conv1.0": 0.5}), Policy(weights={"linear": LowRank(rank_ratio=0.5)})]
)
def test_only_whole_layers_come_back(preparation, policy):
    with pytest.raises(PolicyError, match="was pruned or factorised"):
        restored(preparation.network, preparation.program(policy))


def test_a_factorised_layer_does_not_come_back_where_its_second_factor_has_the_same_shape():
    module = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 10)).eval()
    randomise(module, 0)
    network = traced(module)
    program = Preparation(network, TRAIN.pixels[:16]).program(Policy(weights={"4": LowRank(rank_ratio=1.0)}))
    assert weight_of(program, "4").shape[:2] == (10, 8)
    with pytest.raises(PolicyError, match="'4' was pruned or factorised"):
        restored(network, program)
