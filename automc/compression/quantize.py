"""Integer grids: scales of activations and of weights, and rounding to the nearest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automc.compression.windows import weight_magnitudes


@dataclass(frozen=True)
class Grid:
    """The values that a stored tensor can take: `scale * (stored - zero_point)`, stored in [0, 2^bits - 1]."""

    bits: int
    scale: float
    zero_point: int

    @property
    def top(self) -> int:
        """The largest stored value."""
        return (1 << self.bits) - 1

    def store(self, values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The nearest stored values."""
        stored: NDArray[np.uint8] = np.clip(np.rint(values / self.scale) + self.zero_point, 0, self.top).astype(
            np.uint8
        )
        return stored

    def read(self, stored: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The real values."""
        return (stored.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


def activation_grid(samples: NDArray[np.float32], bits: int) -> Grid:
    """The grid of least mean squared error on `samples`; its zero-point is 0 where no sample is negative.

    Clipping some large values for a finer step pays off in few bits, so shrunken ranges are tried as well.
    """
    low, high = min(0.0, float(samples.min())), max(0.0, float(samples.max()))
    if low == high:
        return Grid(bits, 1.0, 0)
    best, least = Grid(bits, 1.0, 0), np.inf
    for shrink in np.linspace(1, 0.1, 46):
        scale = shrink * (high - low) / ((1 << bits) - 1)
        grid = Grid(bits, scale, round(-low * shrink / scale))
        error = float(np.square(grid.read(grid.store(samples)) - samples).mean())
        if error < least:
            best, least = grid, error
    return best


def levels_of(bits: int) -> Tensor:
    """The codes of so many bits, ascending: +-(2^(bits-1) - 1) and all between, or the signs -1 and +1; float64."""
    least, largest = weight_magnitudes(bits)
    return torch.arange(-largest, largest + 1, max(1, 2 * least), dtype=torch.float64)


def weight_scales(weight: Tensor, bits: int) -> Tensor:
    """The symmetric grid's step of least squared error for each row: `... x d` to `...`; 0 for a row of zeros.

    For one bit it is the mean magnitude (XNOR-Net: Rastegari et al. 2016, equation 6).
    """
    if bits == 1:
        return weight.abs().mean(-1)
    levels = levels_of(bits)
    largest, top = weight.abs().amax(-1), float(levels[-1])
    best, least = largest / top, torch.full_like(largest, torch.inf)
    for shrink in np.linspace(1, 0.25, 31):
        scale = largest * shrink / top
        error = (nearest(weight, scale, levels) * scale[..., None] - weight).square().sum(-1)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best


def nearest(weight: Tensor, scale: Tensor, levels: Tensor) -> Tensor:
    """The nearest of the ascending `levels` to `weight / scale`, as floats; that nearest to 0 where the scale is 0."""
    steps = torch.where((scale > 0)[..., None], weight / torch.where(scale > 0, scale, 1.0)[..., None], 0.0)
    if len(levels) == levels[-1] - levels[0] + 1:  # every integer in between
        return steps.round().clamp(levels[0], levels[-1])
    return levels[torch.bucketize(steps, (levels[1:] + levels[:-1]) / 2, right=True)]


def damp(gram: Tensor, share: float) -> Tensor:
    """`gram` (`groups x d x d`) plus that share of its mean diagonal on the diagonal, so that it can be inverted."""
    strength = share * gram.diagonal(dim1=1, dim2=2).mean(1)
    strength = torch.where(strength > 0, strength, 1.0)  # an input that is always zero
    return gram + strength[:, None, None] * torch.eye(gram.shape[-1], dtype=gram.dtype)
