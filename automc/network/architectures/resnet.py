"""Residual networks for small images: CIFAR ResNets, their plain twin (He et al. 2016), and MLPerf Tiny's ResNet-8."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    `shortcut` says how the shortcut crosses a change of shape: `pad` subsamples and pads channels with zeros (option A
    of He et al. 2016, section 4.2), `project` uses a strided 1x1 convolution, `none` leaves the shortcut out.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut if stride != 1 or inputs != outputs or shortcut == "none" else "identity"
        self.padding = (outputs - inputs) // 2
        if self.shortcut == "project":
            self.project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.shortcut == "identity":
            y = y + x
        elif self.shortcut == "project":
            y = y + self.project(x)
        elif self.shortcut == "pad":
            y = y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(y)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide (He et al. 2016, figure 5), and a shortcut.

    The shortcut is projected by a 1x1 convolution where the shape changes.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.project: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.project(x))


class BottleneckResNet(nn.Module):
    """Three stages of `blocks` bottlenecks, 16, 32 and 64 channels inside, for images of any small size."""

    def __init__(self, blocks: int, classes: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        inputs = 16
        for stage, width in enumerate((16, 32, 64)):
            for block in range(blocks):
                layers.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
                inputs = 4 * width
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))
        return logits


class ResNet(nn.Module):
    """Three stages of `blocks` basic blocks, 16, 32 and 64 channels wide, for images of any small size."""

    def __init__(self, blocks: int, shortcut: str, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, 1, blocks, shortcut)
        self.layer2 = self._stage(16, 32, 2, blocks, shortcut)
        self.layer3 = self._stage(32, 64, 2, blocks, shortcut)
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int, blocks: int, shortcut: str) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, stride, shortcut)
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, shortcut) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def resnet8(classes: int = 10, channels: int = 3) -> ResNet:
    """MLPerf Tiny's image classification network: one block a stage, 1x1 projections as shortcuts."""
    return ResNet(1, "project", classes, channels)


def cifar_resnet(depth: int, classes: int = 10, channels: int = 3) -> ResNet:
    """CIFAR ResNet of `depth` = 6n + 2 layers with shortcuts that have no parameters."""
    return ResNet((depth - 2) // 6, "pad", classes, channels)


def bottleneck_resnet(depth: int, classes: int = 10, channels: int = 3) -> BottleneckResNet:
    """CIFAR ResNet of `depth` = 9n + 2 layers in bottlenecks (He et al. 2016b, "Identity Mappings", section 4)."""
    return BottleneckResNet((depth - 2) // 9, classes, channels)


def plain20(classes: int = 10, channels: int = 3) -> ResNet:
    """The 20-layer network without shortcuts that He et al. 2016 compare with."""
    return ResNet(3, "none", classes, channels)
