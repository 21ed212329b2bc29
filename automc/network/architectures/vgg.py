"""VGG with batch norm for small images (Simonyan & Zisserman 2015, table 1, column D), with one dense layer as head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0 is a maximum over 2 x 2


class Vgg(nn.Module):
    """Thirteen 3x3 convolutions in five stages; 32 x 32 images end as 512 values.

    The three dense layers of the paper are one, as is usual on CIFAR (Li et al. 2017, "Pruning Filters for Efficient
    ConvNets", section 4.1, has two).
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for width in _WIDTHS:
            if width:
                layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return logits
