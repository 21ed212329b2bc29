"""Rounding to integer grids: scales of activations and weights, and rounding that compensates its own errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_DAMPING = 1e-2  # of the mean diagonal, added to a Gram matrix before it is inverted
_BLOCK = 64  # columns whose corrections are applied to the rest at once


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


def weight_scales(weight: Tensor, bits: int) -> Tensor:
    """The symmetric grid's step of least squared error for each row: `... x d` to `...`; 0 for a row of zeros."""
    top = (1 << (bits - 1)) - 1
    largest = weight.abs().amax(-1)
    best, least = largest / top, torch.full_like(largest, torch.inf)
    for shrink in np.linspace(1, 0.25, 31):
        scale = largest * shrink / top
        error = (nearest(weight, scale, bits) * scale[..., None] - weight).square().sum(-1)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best


def nearest(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The nearest codes in +-(2^(bits-1) - 1), as floats; 0 where the scale is 0."""
    top = (1 << (bits - 1)) - 1
    return (weight / torch.where(scale > 0, scale, 1.0)[..., None]).round().clamp(-top, top)


def round_compensated(weight: Tensor, scale: Tensor, gram: Tensor, bits: int) -> Tensor:
    """Round column by column; what is not yet rounded makes up for the errors made so far.

    Greedy minimisation of the squared error of `weight @ inputs` (GPTQ: Frantar et al. 2022, algorithm 1, columns in
    the order of falling input energy). weight: `groups x out x d`, scale: `groups x out`, gram: `groups x d x d`.
    Returns codes like `weight`.
    """
    width = weight.shape[2]
    order = gram.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    damped = damp(gram.gather(1, order[:, :, None].expand_as(gram)).gather(2, order[:, None].expand_as(gram)), _DAMPING)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    remaining = weight.gather(2, order[:, None].expand_as(weight)).clone()
    codes = torch.empty_like(remaining)
    for start in range(0, width, _BLOCK):
        stop = min(start + _BLOCK, width)
        errors = torch.empty_like(remaining[..., start:stop])
        for column in range(start, stop):
            value = remaining[..., column]
            code = nearest(value[..., None], scale, bits)[..., 0]
            error = (value - code * scale) / factor[:, column, column, None]
            remaining[..., column:stop] -= error[..., None] * factor[:, None, column, column:stop]
            codes[..., column], errors[..., column - start] = code, error
        remaining[..., stop:] -= errors @ factor[:, start:stop, stop:]
    return torch.empty_like(codes).scatter_(2, order[:, None].expand_as(codes), codes)


def damp(gram: Tensor, share: float) -> Tensor:
    """`gram` (`groups x d x d`) plus that share of its mean diagonal on the diagonal, so that it can be inverted."""
    strength = share * gram.diagonal(dim1=1, dim2=2).mean(1)
    strength = torch.where(strength > 0, strength, 1.0)  # an input that is always zero
    return gram + strength[:, None, None] * torch.eye(gram.shape[-1], dtype=gram.dtype)
