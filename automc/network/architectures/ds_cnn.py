"""DS-CNN for keyword spotting (Zhang et al. 2017, "Hello Edge", table 7) as in MLPerf Tiny (Banbury et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from automc.network.architectures.mobilenet import conv_bn


class DsCnn(nn.Module):
    """A 10x4 convolution and four depthwise separable ones of 64 channels, for 49 x 10 spectrograms.

    MLPerf Tiny's first convolution pads 4 rows before and 5 after (TensorFlow's "same"), here it is 5 and 5; both give
    maps of 25 x 5.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        width = 64
        first = nn.Conv2d(channels, width, (10, 4), 2, (5, 1), bias=False)
        layers: list[nn.Module] = [first, nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.2)]
        for _ in range(4):
            layers += [*conv_bn(width, width, 3, 1, width), nn.ReLU(), *conv_bn(width, width, 1), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Dropout(0.4))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(torch.flatten(self.pool(self.features(x)), 1))
        return logits
