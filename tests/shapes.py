"""One small network for each shape of graph, on 8 x 8 digits, and what must hold of every one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from automc.choices import Codebook, Gated, LowRank, Sparse
from automc.compiler.artifact import compile_batch
from automc.compression.executor import Executor
from automc.compression.interpreter import interpret
from automc.compression.policy import Policy, kept_slots
from automc.compression.prepare import Preparation
from automc.compression.program import Program
from automc.environment.space import SearchSpace
from automc.network.architectures.densenet import DenseLayer, Transition
from automc.network.architectures.mnasnet import Block
from automc.network.architectures.mobilenet import InvertedResidual, conv_bn
from automc.network.architectures.resnet import BasicBlock, Bottleneck
from automc.network.architectures.shufflenet import GroupedUnit, SplitUnit
from automc.network.architectures.squeezenet import Fire
from automc.network.datasets import load_dataset
from automc.network.forward import walk
from automc.network.graph import Network
from automc.network.training import normalise
from automc.schema import SearchSpaceSpec
from tests.networks import randomise, traced

Pixels = NDArray[np.uint8]

_DIGITS = load_dataset("digits").train.pixels
CALIBRATION, HELD_OUT = _DIGITS[:128], _DIGITS[200:212]
EVERYTHING = SearchSpaceSpec(
    description="every method, with channels and bits of all kinds",
    keep_ratio=[0.3, 0.6, 1.0],
    weight_bits=[1, 2, 3, 4, 6, 8],
    activation_bits=[2, 4, 6, 8],
    methods=[
        Codebook(entries=6),
        Codebook(entries=16, huffman=True),
        Sparse(density=0.4, huffman=True),
        Sparse(density=0.3, entries=8),
        Sparse(density=0.5, pattern="blocks", weight_bits=5),
        Sparse(pattern="2:4", weight_bits=4),
        LowRank(rank_ratio=0.5),
        Gated(active_ratio=0.5, weight_bits=4),
    ],
)


def random_policies(
    preparation: Preparation, count: int, seed: int, choices: SearchSpaceSpec = EVERYTHING
) -> list[Policy]:
    """Policies drawn evenly from a space of all methods, or of other `choices`."""
    space = SearchSpace(preparation.network, choices, preparation.removal_order)
    random = np.random.default_rng(seed)
    return [space.policy([int(random.integers(len(each.choices))) for each in space.decisions]) for _ in range(count)]


def random_programs(preparation: Preparation, count: int, seed: int = 0) -> list[Program]:
    """Programs of random policies, prepared in turns by both fidelities."""
    policies = random_policies(preparation, count, seed)
    return [(preparation.sequential if i % 2 else preparation.program)(policy) for i, policy in enumerate(policies)]


def assert_evaluations_agree(programs: list[Program], folder: Path, pixels: Pixels = HELD_OUT) -> None:
    """The interpreter, the fast evaluation and the compiled portable C give the same bits."""
    libraries = compile_batch(programs, "portable", folder)
    for program, library in zip(programs, libraries, strict=True):
        expected = interpret(program, pixels)
        assert np.isfinite(expected).all()
        assert np.array_equal(Executor(program).run(pixels), expected)
        assert np.array_equal(library.run(pixels), expected)


@torch.no_grad()
def float_results(network: Network, pixels: Pixels, policy: Policy, preparation: Preparation) -> NDArray[np.float32]:
    """What the float network gives when the channels that `policy` removes are zeros, flat as a program's results."""
    slots = kept_slots(policy, network, preparation.removal_order)
    for layer, _, _, after in walk(network.layers, normalise(pixels, network.mean, network.std)):
        removed = np.ones(len(network.channel_slots[layer.name]), bool)
        removed[network.kept_channels(layer.name, slots)] = False
        after[:, removed] = 0
    return after.permute(0, 2, 3, 1).flatten(1).numpy()


def error(results: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Root mean squared, in standard deviations of `expected`."""
    return float(np.sqrt(np.square(results - expected).mean() / expected.var()))


class GraphTests:
    """What holds of a network of any shape; a test file gives it its `network` and says which channels are coupled."""

    network: type[nn.Module]

    @pytest.fixture(scope="class")
    @classmethod
    def preparation(cls) -> Preparation:
        return Preparation(traced(cls.network()), CALIBRATION)

    def test_removed_channels_are_those_that_the_float_network_loses(self, preparation: Preparation) -> None:
        """Each group alone, in 8 bits: repaired weights are nearer to the dense network than channels of zeros."""
        network = preparation.network
        dense = float_results(network, CALIBRATION, Policy(), preparation)
        for group in network.groups:
            policy = Policy(keep_ratio={group.name: 0.6})
            if not group.prunable or policy.kept_count(group.name, group.slots) == group.slots:
                continue
            program = preparation.sequential(policy)
            slots = kept_slots(policy, network, preparation.removal_order)
            for name, tensor in program.tensors.items():
                assert tensor.channels == len(network.kept_channels(name, slots))
            masked = error(float_results(network, CALIBRATION, policy, preparation), dense)
            assert masked > 0
            assert error(Executor(program).run(CALIBRATION), dense) < masked + 0.05

    def test_eight_bits_are_nearly_the_float_network(self, preparation: Preparation) -> None:
        dense = float_results(preparation.network, HELD_OUT, Policy(), preparation)
        for program in (preparation.program(Policy()), preparation.sequential(Policy())):
            assert error(Executor(program).run(HELD_OUT), dense) < 0.06

    def test_three_evaluations_of_random_policies_agree(self, preparation: Preparation, tmp_path: Path) -> None:
        assert_evaluations_agree(random_programs(preparation, 3), tmp_path)


class _Shape(nn.Module):
    """`layers` between the image and the means of the last map's channels, from which a dense layer makes logits."""

    def __init__(self, last: int, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(last, 10)
        randomise(self, 0)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.layers(x).mean((2, 3)))


def _stem(outputs: int, stride: int = 1) -> list[nn.Module]:
    return [*conv_bn(1, outputs, 3, stride), nn.ReLU()]


class Chain(nn.Module):
    """LeNet's shape: convolutions, maxima, two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 9, 3)
        self.fc1, self.fc2 = nn.Linear(9, 12), nn.Linear(12, 10)
        randomise(self, 0)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))


class Residual(_Shape):
    """Identity, padded and projected shortcuts, and a bottleneck."""

    def __init__(self) -> None:
        blocks = [BasicBlock(6, 6, 1, "pad"), BasicBlock(6, 10, 2, "pad"), BasicBlock(10, 12, 2, "project")]
        super().__init__(16, *_stem(6), *blocks, Bottleneck(12, 4, 1))


class Concatenation(_Shape):
    """DenseNet's pre-activated layers and SqueezeNet's fire module."""

    def __init__(self) -> None:
        dense = [DenseLayer(6, 4), DenseLayer(10, 4), Transition(14)]
        super().__init__(12, nn.Conv2d(1, 6, 3, padding=1), *dense, Fire(14, 4, 6))


class SplitShuffle(_Shape):
    """ShuffleNetV2's units: with a stride, and with a split."""

    def __init__(self) -> None:
        super().__init__(12, *_stem(6), SplitUnit(6, 12, 2), SplitUnit(12, 12, 1), SplitUnit(12, 12, 1))


class Grouped(_Shape):
    """ShuffleNetV1's units, and a chain of grouped convolutions whose channels leave evenly."""

    def __init__(self) -> None:
        chain = [nn.Conv2d(12, 24, 3, padding=1, groups=3), nn.ReLU(), nn.Conv2d(24, 12, 3, 2, groups=2), nn.ReLU()]
        super().__init__(12, *_stem(4), GroupedUnit(4, 24, 2, 2, True), GroupedUnit(24, 24, 1, 2, False),
                         nn.Conv2d(24, 12, 1), nn.ReLU(), *chain)  # fmt: skip


class Depthwise(_Shape):
    """MobileNet's blocks, with and without a shortcut."""

    def __init__(self) -> None:
        separable = [*conv_bn(8, 8, 3, 2, 8), nn.ReLU(), *conv_bn(8, 12, 1), nn.ReLU()]
        blocks = [InvertedResidual(6, 8, 1, 1), InvertedResidual(8, 8, 1, 3)]
        super().__init__(12, *_stem(6), *blocks, *separable)


class SqueezeExcitation(_Shape):
    """MnasNet's block with hard-swish, hard-sigmoid and a shortcut, and with ReLU and sigmoid."""

    def __init__(self) -> None:
        blocks = [Block(6, 6, 3, 1, 2, True, True), Block(6, 8, 5, 2, 2, True, False)]
        super().__init__(8, *_stem(6), *blocks)


class Denoising(nn.Module):
    """DnCNN's shape: what is computed is taken off the image, which is the result."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), *conv_bn(6, 6, 3), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(6, 1, 3, padding=1))
        randomise(self, 0)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return x - self.layers(x)


class Enlarging(nn.Module):
    """FSRCNN's shape: details are added to repeated pixels, and channels become pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1), nn.ReLU())
        self.details = nn.Conv2d(4, 4, 3, padding=1)
        randomise(self, 0)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.details(self.layers(x)) + x.repeat_interleave(4, 1), 2)


SHAPES = (
    Chain, Residual, Concatenation, SplitShuffle, Grouped, Depthwise, SqueezeExcitation, Denoising, Enlarging
)  # fmt: skip
