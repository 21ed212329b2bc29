"""Low-rank factorisation of dense layers, weighted by what they read."""

from __future__ import annotations

import torch
from torch import Tensor

from automc.compression.quantize import Grid


def factors(weight: Tensor, gram: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """`left @ right` of that rank, nearest to what `weight` computes: `1 x out x rank` and `1 x rank x d`.

    weight: `1 x out x d`, gram: `1 x d x d`, the covariance of the inputs, positive definite. The singular values are
    those of `weight @ gram^(1/2)`, so that directions in which the inputs hardly vary cost next to nothing; the values
    between the two, `right @ inputs`, have variance 1 and are uncorrelated.
    """
    root = torch.linalg.cholesky(gram)
    left, singular, right = torch.linalg.svd(weight @ root, full_matrices=False)
    towards = torch.linalg.solve_triangular(root, right[:, :rank], upper=False, left=False)
    return left[..., :rank] * singular[:, None, :rank], towards


def grid_between(covariance: Tensor) -> Grid:
    """The grid of 8 bits for values about 0 with that covariance, `1 x rank x rank`: six standard deviations each way.

    The values are sums of many inputs, so they are about normal, and a step is a twentieth of a standard deviation.
    """
    spread = float(covariance.diagonal(dim1=1, dim2=2).max().sqrt())
    return Grid(8, 6 * spread / 127 if spread > 0 else 1.0, 128)
