"""MnasNet's blocks with squeeze-and-excitation (Tan et al. 2019, figure 7; Hu et al. 2018, section 3), for 32 x 32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from automc.network.architectures.mobilenet import conv_bn, scaled

# Expansion, kernel, channels, repeats, stride, whether it squeezes: MnasNet-A1, its first stride left out.
_BLOCKS = (
    (6, 3, 24, 2, 1, False),
    (3, 5, 40, 3, 2, True),
    (6, 3, 80, 4, 2, False),
    (6, 3, 112, 2, 1, True),
    (6, 5, 160, 3, 2, True),
    (6, 3, 320, 1, 1, False),
)


class SqueezeExcitation(nn.Module):
    """Gains of each channel from the means of all: two 1x1 convolutions, ReLU between them, a gate behind them."""

    def __init__(self, channels: int, squeezed: int, gate: nn.Module) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU()
        self.excite = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        gains: Tensor = self.gate(self.excite(self.relu(self.squeeze(self.pool(x)))))
        return x * gains


class Block(nn.Module):
    """MobileNetV2's inverted residual, with squeeze-and-excitation behind the depthwise convolution."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, squeezes: bool, hard: bool
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers = [*conv_bn(inputs, hidden, 1), _activation(hard)]
        layers += [*conv_bn(hidden, hidden, kernel, stride, hidden), _activation(hard)]
        if squeezes:
            gate = nn.Hardsigmoid() if hard else nn.Sigmoid()
            layers.append(SqueezeExcitation(hidden, max(1, inputs // 4), gate))
        self.conv = nn.Sequential(*layers, *conv_bn(hidden, outputs, 1))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


class MnasNet(nn.Module):
    """MnasNet-A1 for small images; `hard` takes MobileNetV3's hard-swish and hard-sigmoid (Howard et al. 2019, 5.2)."""

    def __init__(self, width: float, hard: bool, classes: int, channels: int) -> None:
        super().__init__()
        inputs = scaled(32, width)
        layers = [*conv_bn(channels, inputs, 3), _activation(hard)]
        layers += [*conv_bn(inputs, inputs, 3, 1, inputs), _activation(hard)]
        layers += conv_bn(inputs, scaled(16, width), 1)
        inputs = scaled(16, width)
        for expansion, kernel, full, repeats, stride, squeezes in _BLOCKS:
            outputs = scaled(full, width)
            for repeat in range(repeats):
                layers.append(Block(inputs, outputs, kernel, 1 if repeat else stride, expansion, squeezes, hard))
                inputs = outputs
        last = scaled(1280, width)
        self.features = nn.Sequential(*layers, *conv_bn(inputs, last, 1), _activation(hard))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.flatten(self.pool(self.features(x)), 1))
        return logits


def _activation(hard: bool) -> nn.Module:
    return nn.Hardswish() if hard else nn.ReLU()
