"""Least-squares repair: weights of the inputs that remain take over the work of those that were removed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automc.compression.quantize import damp
from automc.network.graph import Conv

_RIDGE = 1e-2  # of the mean diagonal: a few hundred images do not determine every weight


def repair(weight: Tensor, gram: Tensor, cross: Tensor) -> Tensor:
    """The weights nearest to `weight` that best give the targets (He, Zhang & Sun 2017, section 3.1, equation 5).

    weight: `groups x out x d`, what remains of the dense weights; gram: `groups x d x d` covariance of the remaining
    inputs; cross: `groups x d x out` their covariance with the targets. All float64.
    """
    missing = cross - gram @ weight.mT
    correction: Tensor = torch.linalg.solve(damp(gram, _RIDGE), missing)
    return weight + correction.mT


def as_matrix(layer: Conv) -> Tensor:
    """The dense weights as `groups x out/groups x d` float64, `d = in/groups * kh * kw`."""
    return torch.tensor(layer.weight, dtype=torch.float64).reshape(layer.groups, -1, layer.weight[0].size)


def rows_of(layer: Conv, outputs: NDArray[np.int64]) -> Tensor:
    """The rows of some output channels, equally many of each group: `groups x rows x d`."""
    return as_matrix(layer).flatten(0, 1)[outputs].reshape(layer.groups, -1, layer.weight[0].size)


def columns_of(layer: Conv, inputs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the kernels of some input channels, equally many of each group, stand among the `d` columns.

    `groups x columns`.
    """
    taps = layer.kernel[0] * layer.kernel[1]
    channels = inputs.reshape(layer.groups, -1) - layer.weight.shape[1] * np.arange(layer.groups)[:, None]
    columns: NDArray[np.int64] = channels[:, :, None] * taps + np.arange(taps)
    return columns.reshape(layer.groups, -1)


def mean_output(weight: NDArray[Any], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """`out`: what `weight` (`out x in/groups x kh x kw`) makes of the mean inputs `groups x d`."""
    rows = weight.reshape(len(mean), -1, mean.shape[1]).astype(np.float64)
    return (rows @ mean[:, :, None]).ravel()
