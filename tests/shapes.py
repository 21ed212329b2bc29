"""One small network for each shape of graph, on 8 x 8 digits, and what must hold of each: three evaluations agree."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automc.network.architectures.densenet import DenseLayer, Transition
from automc.network.architectures.mnasnet import Block
from automc.network.architectures.mobilenet import InvertedResidual, conv_bn
from automc.network.architectures.resnet import BasicBlock, Bottleneck
from automc.network.architectures.shufflenet import GroupedUnit, SplitUnit
from automc.network.architectures.squeezenet import Fire
from tests.networks import randomise


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
