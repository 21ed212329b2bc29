"""Networks from images to images: DnCNN (Zhang et al. 2017) removes noise, FSRCNN (Dong et al. 2016) enlarges."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class DnCnn(nn.Module):
    """`depth` 3x3 convolutions with batch norm between them compute the noise, which is taken off the image (sec. 3).

    64 channels and a depth of 17 are the paper's; smaller ones suit small images.
    """

    def __init__(self, depth: int, width: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.noise = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        noise: Tensor = self.noise(x)
        return x - noise


class Fsrcnn(nn.Module):
    """FSRCNN(56, 12, 4): features, shrinking, mapping, expanding, and pixels out of channels (section 3.2).

    As in its successors (Shi et al. 2016, section 3.2) a convolution and PixelShuffle stand for the transposed
    convolution, which computes the same, and ReLU for PReLU. Each new pixel is added to the one that it replaces,
    so that only details are computed.
    """

    def __init__(self, factor: int, channels: int) -> None:
        super().__init__()
        features, shrunk, maps = 56, 12, 4
        layers: list[nn.Module] = [nn.Conv2d(channels, features, 5, padding=2), nn.ReLU()]
        layers += [nn.Conv2d(features, shrunk, 1), nn.ReLU()]
        for _ in range(maps):
            layers += [nn.Conv2d(shrunk, shrunk, 3, padding=1), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Conv2d(shrunk, features, 1), nn.ReLU())
        self.details = nn.Conv2d(features, channels * factor**2, 3, padding=1)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        repeated = x.repeat_interleave(self.factor**2, 1)
        return F.pixel_shuffle(self.details(self.features(x)) + repeated, self.factor)
