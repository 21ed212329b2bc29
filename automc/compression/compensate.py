"""Changing weights column by column while those not yet changed make up for the errors: the core of every method."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from automc.compression.quantize import damp, nearest

_DAMPING = 1e-2  # of the mean diagonal, added to a Gram matrix before it is inverted
_DESCENTS = 2  # passes over all columns
_BLOCK = 64  # columns whose corrections are applied to the rest at once

# Which weights of a block of columns stay, as 0 and 1: from the weights `groups x out x block` as corrected so far, and
# from where the block begins in the order of the columns.
Keep = Callable[[Tensor, int], Tensor]


def round_compensated(
    weight: Tensor, scale: Tensor, gram: Tensor, levels: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Round to `scale` times one of the `levels`; what is not yet rounded makes up for the errors made so far.

    weight: `groups x out x d`, scale: `groups x out`, gram: `groups x d x d`; where the `mask`, like `weight`, is 0, so
    is the code. Columns go in the order of falling input energy. Returns codes like `weight`.
    """
    factor = inverse_factor(gram, order := by_energy(gram))
    keep = None if mask is None else _fixed(mask.gather(2, order[:, None].expand_as(mask)))
    rounded = sweep(weight, factor, order, lambda values: nearest(values, scale, levels) * scale[..., None], keep)
    codes = nearest(rounded, scale, levels)
    return codes if mask is None else codes * mask


def descend(
    weight: Tensor, scale: Tensor, gram: Tensor, levels: Tensor, codes: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Codes that are better still: each in turn is made the best one beside all the others (coordinate descent).

    What the `mask` makes 0 stays so. Where there are few levels much is gained: of the error of one-bit weights a tenth
    to a half.
    """
    codes = codes.clone()
    slope = (weight - codes * scale[..., None]) @ gram
    for _ in range(_DESCENTS):
        for column in range(weight.shape[2]):
            energy = gram[:, column, column, None].clamp(min=1e-12)
            best = codes[..., column] * scale + slope[..., column] / energy
            new = nearest(best[..., None], scale, levels)[..., 0]
            if mask is not None:
                new *= mask[..., column]
            slope -= ((new - codes[..., column]) * scale)[..., None] * gram[:, None, column]
            codes[..., column] = new
    return codes


def sweep(
    weight: Tensor,
    factor: Tensor,
    order: Tensor,
    replace: Callable[[Tensor], Tensor],
    keep: Keep | None = None,
    stops: Sequence[int] | None = None,
) -> Tensor:
    """Replace the columns in their `order`; the columns after each make up for what its replacement changed.

    Greedy minimisation of the squared error of `weight @ inputs` (GPTQ: Frantar et al. 2022, algorithm 1; with `keep`,
    SparseGPT: Frantar & Alistarh 2023, algorithm 1). weight: `groups x out x d`, order: `groups x d`; `replace` maps
    values, `groups x out x 1`, to those that are allowed. `keep` is asked for blocks of columns that end at `stops`.
    """
    remaining = weight.gather(2, order[:, None].expand_as(weight)).clone()
    width = weight.shape[2]
    start = 0
    for stop in stops or [*range(_BLOCK, width, _BLOCK), width]:
        stays = None if keep is None else keep(remaining[..., start:stop], start)
        errors = torch.empty_like(remaining[..., start:stop])
        for column in range(start, stop):
            value = remaining[..., column]
            new = replace(value[..., None])[..., 0]
            if stays is not None:
                new = new * stays[..., column - start]
            error = (value - new) / factor[:, column, column, None]
            remaining[..., column + 1 : stop] -= error[..., None] * factor[:, None, column, column + 1 : stop]
            remaining[..., column], errors[..., column - start] = new, error
        remaining[..., stop:] -= errors @ factor[:, start:stop, stop:]
        start = stop
    return torch.empty_like(remaining).scatter_(2, order[:, None].expand_as(remaining), remaining)


def by_energy(gram: Tensor) -> Tensor:
    """`groups x d`: the columns in the order of falling input energy."""
    return gram.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)


def inverse_factor(gram: Tensor, order: Tensor) -> Tensor:
    """The upper Cholesky factor, `groups x d x d`, of the inverse of the damped Gram matrix in that order of columns.

    The square of its diagonal is the inverse of what an error of a column costs once the columns after it adapt.
    """
    ordered = gram.gather(1, order[:, :, None].expand_as(gram)).gather(2, order[:, None].expand_as(gram))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damp(ordered, _DAMPING)))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def refit_scale(weight: Tensor, codes: Tensor, gram: Tensor) -> Tensor:
    """`groups x out`: the scale with which `codes` come nearest to what `weight` computes; both `groups x out x d`."""
    through = codes @ gram
    energy = (through * codes).sum(-1)
    return ((through * weight).sum(-1) / energy.clamp(min=1e-30)).clamp(min=0)


def _fixed(mask: Tensor) -> Keep:
    return lambda block, start: mask[..., start : start + block.shape[2]]
