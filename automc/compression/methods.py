"""What a choice does to a layer: from float weights and what they read to integers, one function a method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automc.choices import Choice, Codebook, Gated, LowRank, Sparse, Uniform
from automc.compression.coded import Coded, IntegerWeights
from automc.compression.compensate import descend, refit_scale, round_compensated
from automc.compression.factorise import factors, grid_between
from automc.compression.quantize import damp, levels_of, weight_scales
from automc.compression.reconstruct import repair
from automc.compression.sharing import shared_levels
from automc.compression.sparsity import thin
from automc.compression.windows import Encoding

Kernel = tuple[int, int]

_FEW = 8  # levels
_DAMPING = 1e-4  # of the mean variance, added to inputs that are to be factorised


def encode(weight: Tensor, gram: Tensor, kernel: Kernel, choice: Choice) -> Coded:
    """The layer's integers; its biases are still 0.

    weight: `groups x out x d` float64, where `d = in/groups * kh * kw`; gram: `groups x d x d`, the covariance of what
    the kernel meets.
    """
    coded: Coded = _METHODS[type(choice)](weight, gram, kernel, choice)
    return coded


def couples_outputs(choice: Choice) -> bool:
    """Whether what becomes of one output channel depends on which others there are."""
    return isinstance(choice, Codebook | Sparse | LowRank)


def _uniform(weight: Tensor, gram: Tensor, kernel: Kernel, choice: Uniform | Gated) -> Coded:
    levels, scale = levels_of(choice.weight_bits), weight_scales(weight, choice.weight_bits)
    codes, scale = _rounded(weight, scale, gram, levels)
    return Coded(_integers(codes, scale, levels, kernel, choice))


def _codebook(weight: Tensor, gram: Tensor, kernel: Kernel, choice: Codebook) -> Coded:
    importance = gram.diagonal(dim1=1, dim2=2)[:, None].expand_as(weight)
    levels, scale = shared_levels(weight, importance, choice.entries, choice.prior)
    codes, scale = _rounded(weight, scale, gram, levels)
    return Coded(_integers(codes, scale, levels, kernel, choice, "codebook"))


def _sparse(weight: Tensor, gram: Tensor, kernel: Kernel, choice: Sparse) -> Coded:
    thinned = thin(weight, gram, choice.density, choice.pattern, kernel[0] * kernel[1])
    mask = (thinned != 0).to(weight.dtype)
    if choice.entries is None:
        levels, scale = levels_of(choice.weight_bits), weight_scales(thinned, choice.weight_bits)
    else:
        importance = gram.diagonal(dim1=1, dim2=2)[:, None] * mask
        levels, scale = shared_levels(thinned, importance, choice.entries)
    codes, _ = _rounded(weight, scale, gram, levels, mask)
    levels = torch.unique(torch.cat([levels, levels.new_zeros(1)]))
    encoding: Encoding = "blocks" if choice.pattern == "blocks" else "sparse"
    return Coded(_integers(codes, refit_scale(weight, codes, gram), levels, kernel, choice, encoding))


def _low_rank(weight: Tensor, gram: Tensor, kernel: Kernel, choice: LowRank) -> Coded:
    _, outputs, inputs = weight.shape
    # Of few images, inputs vary in fewer directions than the rank has: there, rounding errors would be enlarged without
    # an end, and what is between would have no covariance.
    gram = damp(gram, _DAMPING)
    left, right = factors(weight, gram, choice.rank(outputs, inputs))
    plain = Uniform(weight_bits=choice.weight_bits)
    before = _uniform(right, gram, kernel, plain).weights
    rounded = torch.tensor(before.codes.reshape(len(right[0]), -1) * before.scale[:, None])[None]
    between = rounded @ gram @ rounded.mT  # the covariance of what is between
    repaired = repair(left, between, rounded @ gram @ weight.mT)
    after = _uniform(repaired, between, (1, 1), plain).weights
    return Coded(after, before, grid_between(between))


_METHODS: dict[type[Any], Callable[..., Coded]] = {
    Uniform: _uniform,
    Codebook: _codebook,
    Sparse: _sparse,
    LowRank: _low_rank,
    Gated: _uniform,
}


def _rounded(
    weight: Tensor, scale: Tensor, gram: Tensor, levels: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Codes, 0 where the `mask` is, and the scale that suits them; few levels are worth more work."""
    codes = round_compensated(weight, scale, gram, levels, mask)
    if len(levels) > _FEW:
        return codes, scale
    codes = round_compensated(weight, scale := refit_scale(weight, codes, gram), gram, levels, mask)
    codes = descend(weight, scale := refit_scale(weight, codes, gram), gram, levels, codes, mask)
    return codes, refit_scale(weight, codes, gram)


def _integers(
    codes: Tensor, scale: Tensor, levels: Tensor, kernel: Kernel, choice: Any, encoding: Encoding = "dense"
) -> IntegerWeights:
    """In the shapes of a convolution."""
    shaped = codes.to(torch.int8).reshape(-1, codes.shape[2] // (kernel[0] * kernel[1]), *kernel).numpy()
    flat = scale.flatten().numpy()
    return IntegerWeights(
        shaped,
        choice.weight_bits,
        flat,
        np.zeros(len(flat)),
        levels.to(torch.int8).numpy(),
        encoding,
        getattr(choice, "huffman", False),
    )
