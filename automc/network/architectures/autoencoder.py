"""MLPerf Tiny's autoencoder for anomaly detection (Banbury et al. 2021, section 3.4), here on images of 28 x 28."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WIDTHS = (128, 128, 128, 128, 8, 128, 128, 128, 128)
_PIXELS = 28 * 28


class Autoencoder(nn.Module):
    """Nine dense layers with batch norm, eight values wide in the middle, and one that gives the flattened image back.

    What it reconstructs badly is unlike what it was trained on. The result is `channels * 28 * 28` values in the order
    of a flattened `channels x 28 x 28` image, normalised as the input is.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inputs = channels * _PIXELS
        layers: list[nn.Module] = []
        for width in _WIDTHS:
            layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(inputs, channels * _PIXELS)

    def forward(self, x: Tensor) -> Tensor:
        image: Tensor = self.last(self.layers(torch.flatten(x, 1)))
        return image
