"""ShuffleNetV1 (Zhang et al. 2018, table 1) and ShuffleNetV2 (Ma et al. 2018, table 5); strides fit 32 x 32 images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automc.network.architectures.mobilenet import conv_bn

_REPEATS = (4, 8, 4)
_V1_OUTPUTS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # of the first stage, by the number of groups
_V2_OUTPUTS = {0.5: (48, 96, 192, 1024), 1.0: (116, 232, 464, 1024)}


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle: the channels of `groups` sets, one of each in turn (V1, section 3.1)."""
    count, channels, height, width = x.size()
    return x.view(count, groups, channels // groups, height, width).transpose(1, 2).reshape(x.size())


class GroupedUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, beside a shortcut (V1, figure 2).

    With `stride` 2 the shortcut is averaged and joined, else it is added. The first unit's 1x1 is not grouped.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int, first: bool) -> None:
        super().__init__()
        hidden = outputs // 4
        self.stride, self.groups = stride, groups
        self.reduce = nn.Sequential(*conv_bn(inputs, hidden, 1, groups=1 if first else groups), nn.ReLU())
        self.depthwise = nn.Sequential(*conv_bn(hidden, hidden, 3, stride, hidden))
        grown = outputs - inputs if stride == 2 else outputs
        self.expand = nn.Sequential(*conv_bn(hidden, grown, 1, groups=groups))

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.depthwise(shuffle(self.reduce(x), self.groups)))
        if self.stride == 2:
            return F.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1))
        return F.relu(x + y)


class ShuffleNetV1(nn.Module):
    """Three stages of grouped units."""

    def __init__(self, groups: int, classes: int, channels: int) -> None:
        super().__init__()
        inputs = 24
        layers = [*conv_bn(channels, inputs, 3), nn.ReLU()]
        for stage, repeats in enumerate(_REPEATS):
            outputs = _V1_OUTPUTS[groups] << stage
            for repeat in range(repeats):
                stride = 2 if repeat == 0 else 1
                layers.append(GroupedUnit(inputs, outputs, stride, groups, first=stage == 0 and repeat == 0))
                inputs = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


class SplitUnit(nn.Module):
    """Half of the channels pass, the other half is convolved; both are joined and shuffled (V2, figure 3c and d).

    With `stride` 2 both halves are convolved from all channels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        read = inputs if stride == 2 else half
        self.stride = stride
        self.right = nn.Sequential(
            *conv_bn(read, half, 1),
            nn.ReLU(),
            *conv_bn(half, half, 3, stride, half),
            *conv_bn(half, half, 1),
            nn.ReLU(),
        )
        if stride == 2:
            self.left = nn.Sequential(*conv_bn(read, read, 3, 2, read), *conv_bn(read, half, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            left, right = self.left(x), self.right(x)
        else:
            left, right = x.chunk(2, 1)
            right = self.right(right)
        return shuffle(torch.cat([left, right], 1), 2)


class ShuffleNetV2(nn.Module):
    """Three stages of split units and a last 1x1 convolution; `width` is 0.5 or 1.0."""

    def __init__(self, width: float, classes: int, channels: int) -> None:
        super().__init__()
        inputs = 24
        layers = [*conv_bn(channels, inputs, 3), nn.ReLU()]
        *stages, last = _V2_OUTPUTS[width]
        for outputs, repeats in zip(stages, _REPEATS, strict=True):
            for repeat in range(repeats):
                layers.append(SplitUnit(inputs, outputs, 2 if repeat == 0 else 1))
                inputs = outputs
        self.features = nn.Sequential(*layers, *conv_bn(inputs, last, 1), nn.ReLU())
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits
