"""DenseNet for small images (Huang et al. 2017, section 3 and table 2): every layer reads all layers before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 3x3 convolution; its channels join those that it reads."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


class Transition(nn.Module):
    """Batch norm, ReLU, 1x1 convolution of as many channels, average over 2 x 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    """Three dense blocks without bottlenecks; `depth` = 3n + 4, each layer adds `growth` channels."""

    def __init__(self, depth: int, growth: int, classes: int, channels: int) -> None:
        super().__init__()
        width = 16
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
        for block in range(3):
            if block:
                layers.append(Transition(width))
            for _ in range((depth - 4) // 3):
                layers.append(DenseLayer(width, growth))
                width += growth
        self.features = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.features(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits
