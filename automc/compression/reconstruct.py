"""Least-squares repair: weights of the inputs that remain take over the work of those that were removed."""

from __future__ import annotations

import torch
from torch import Tensor

from automc.compression.quantize import damp

_RIDGE = 1e-4


def repair(weight: Tensor, gram: Tensor, cross: Tensor) -> Tensor:
    """The weights nearest to `weight` that best give the targets (He, Zhang & Sun 2017, section 3.1, equation 5).

    weight: `groups x out x d`, what remains of the dense weights; gram: `groups x d x d` covariance of the remaining
    inputs; cross: `groups x d x out` their covariance with the targets. All float64.
    """
    missing = cross - gram @ weight.mT
    correction: Tensor = torch.linalg.solve(damp(gram, _RIDGE), missing)
    return weight + correction.mT
