"""MobileNetV1 (Howard et al. 2017, table 1) and MobileNetV2 (Sandler et al. 2018, table 2), with width multipliers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def scaled(channels: int, width: float) -> int:
    """`width` times `channels`, to a multiple of 8, never less than 0.9 of it: as in the authors' code."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution and its batch norm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class MobileNetV1(nn.Module):
    """Thirteen depthwise separable convolutions.

    `small` is for images of 32 x 32: the first convolution keeps the size (so the last map is 2 x 2).
    """

    def __init__(self, width: float, small: bool, classes: int, channels: int) -> None:
        super().__init__()
        inputs = scaled(32, width)
        layers = [*conv_bn(channels, inputs, 3, 1 if small else 2), nn.ReLU()]
        for full, stride in _V1:
            outputs = scaled(full, width)
            layers += [*conv_bn(inputs, inputs, 3, stride, inputs), nn.ReLU()]
            layers += [*conv_bn(inputs, outputs, 1), nn.ReLU()]
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.flatten(self.pool(self.features(x)), 1))
        return logits


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; a shortcut where the shapes allow (section 3.3)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers = [*conv_bn(inputs, hidden, 1), nn.ReLU6()] if expansion != 1 else []
        layers += [*conv_bn(hidden, hidden, 3, stride, hidden), nn.ReLU6(), *conv_bn(hidden, outputs, 1)]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """Seventeen inverted residuals between two convolutions.

    `small` is for images of 32 x 32: the first convolution and the second stage keep the size (so the last map is
    4 x 4), the usual form on CIFAR.
    """

    def __init__(self, width: float, small: bool, classes: int, channels: int) -> None:
        super().__init__()
        inputs = scaled(32, width)
        layers = [*conv_bn(channels, inputs, 3, 1 if small else 2), nn.ReLU6()]
        for stage, (expansion, full, repeats, stride) in enumerate(_V2):
            outputs = scaled(full, width)
            for repeat in range(repeats):
                first = stride if repeat == 0 and not (small and stage == 1) else 1
                layers.append(InvertedResidual(inputs, outputs, first, expansion))
                inputs = outputs
        last = scaled(1280, max(1.0, width))
        self.features = nn.Sequential(*layers, *conv_bn(inputs, last, 1), nn.ReLU6())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.flatten(self.pool(self.features(x)), 1))
        return logits
