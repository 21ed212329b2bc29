"""SqueezeNet (Iandola et al. 2016, table 1): fire modules; strides fit images of 32 x 32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FIRES = ((16, 64), (16, 64), (32, 128), 0, (32, 128), (48, 192), (48, 192), (64, 256), 0, (64, 256))  # 0: maximum


class Fire(nn.Module):
    """A 1x1 convolution squeezes; 1x1 and 3x3 convolutions expand side by side (section 3.2)."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1(x)), F.relu(self.expand3(x))], 1)


class SqueezeNet(nn.Module):
    """Eight fire modules between two convolutions; the last has a channel for each class, averaged over the map."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, 96, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        inputs = 96
        for fire in _FIRES:
            if isinstance(fire, int):
                layers.append(nn.MaxPool2d(2))
            else:
                layers.append(Fire(inputs, *fire))
                inputs = 2 * fire[1]
        self.features = nn.Sequential(*layers, nn.Dropout(0.5))
        # Averaging and a 1x1 convolution commute; in this order the result is that of a layer with weights, unlike in
        # the paper, where a ReLU stands between them.
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Conv2d(inputs, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.pool(self.features(x))), 1)
