"""Weight sharing: one small table of values for all weights of a layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from automc.choices import Prior

_ROUNDS = 40  # of either algorithm; it has settled by then
_BINS = 2048  # of histograms


def shared_levels(weight: Tensor, importance: Tensor, entries: int, prior: Prior = "k-means") -> tuple[Tensor, Tensor]:
    """A table of at most `entries` int8 values, ascending, and the scale of each row: `entries` and `groups x out`.

    They are fitted to the weights relative to their row's root mean square, each counted by what an error of it costs
    in the layer's outputs (Choi et al. 2017, section 3.3), in the way that `prior` names. weight and importance:
    `groups x out x d`; the importance is the energy of each weight's input, 0 for a weight that was pruned.
    """
    spread = weight.square().mean(-1).sqrt()
    relative = weight / torch.where(spread > 0, spread, 1.0)[..., None]
    counts = (importance * spread.square()[..., None]).flatten()
    counted = counts > 0
    centres = _FITS[prior](relative.flatten()[counted], counts[counted], entries)
    step = max(float(centres.abs().max()), 1e-12) / 127
    return torch.unique((centres / step).round()), spread * step


def _lloyd(values: Tensor, counts: Tensor, entries: int) -> Tensor:
    """The centres, ascending, of a one-dimensional weighted k-means (Han et al. 2016, section 3.1)."""
    if len(values) == 0:  # nothing that matters
        return torch.zeros(1, dtype=values.dtype)
    low, high = float(values.min()), float(values.max())
    if low == high:
        return values[:1].clone()
    # The best quantiser has centres as dense as the cube root of the density (Panter & Dite 1951).
    places = _bins(values, low, high)
    density = torch.zeros(_BINS, dtype=values.dtype).index_add_(0, places, counts)
    density = torch.nn.functional.avg_pool1d(density[None], 9, 1, 4)[0]
    mass = (density.pow(1 / 3)).cumsum(0)
    wanted = (torch.arange(entries, dtype=values.dtype) + 0.5) / entries * mass[-1]
    centres = low + (torch.searchsorted(mass, wanted) + 0.5) / _BINS * (high - low)
    order = values.argsort()
    values, weights = values[order], counts[order]
    sums = [torch.cat([part.new_zeros(1), part.cumsum(0)]) for part in (weights, weights * values)]
    for _ in range(_ROUNDS):
        middles = (centres[1:] + centres[:-1]) / 2
        stops = torch.searchsorted(values, middles)
        ends = torch.cat([stops.new_zeros(1), stops, stops.new_full((1,), len(values))])
        total, moment = (part[ends[1:]] - part[ends[:-1]] for part in sums)
        centres = torch.where(total > 0, moment / total.clamp(min=1e-300), centres)
    return centres.sort().values


def _mixture(values: Tensor, counts: Tensor, entries: int) -> Tensor:
    """The means, ascending, of a mixture of Gaussians of which one stays at zero (Ullrich, Meeds & Welling 2017).

    Their section 4.1 fits it by gradients together with the network; here the network stands, and expectation
    maximisation fits it from the centres of k-means. Their prior on the variances, which keeps the components apart,
    expects that of values spread evenly between the neighbours' middles, and weighs as much as all weights together.
    """
    centres = _lloyd(values, counts, entries)
    if len(centres) == 1:  # nothing to tell apart
        return centres
    points, mass = _histogram(values, counts)
    zero = int(centres.abs().argmin())
    centres[zero] = 0
    gaps = centres.diff().clamp(min=1e-3)
    expected = (torch.cat([gaps[:1], gaps]) + torch.cat([gaps, gaps[-1:]])).square() / 48
    variance, belief = expected, 1 / entries
    share = torch.full_like(centres, belief)
    for _ in range(_ROUNDS):
        squares = (points[:, None] - centres).square()
        likelihood = share.clamp(min=1e-12).log() - variance.log() / 2 - squares / variance / 2
        belongs = torch.softmax(likelihood, 1) * mass[:, None]
        share = belongs.sum(0)
        centres = torch.where(share > 0, (belongs * points[:, None]).sum(0) / share.clamp(min=1e-300), centres)
        centres[zero] = 0
        squares = (points[:, None] - centres).square()
        variance = ((belongs * squares).sum(0) + belief * expected) / (share + belief)
    return centres.sort().values


def _histogram(values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the values of each bin that has any, and the bin's part of the counts."""
    places = _bins(values, float(values.min()), float(values.max()))
    mass, sums = (values.new_zeros(_BINS).index_add_(0, places, part) for part in (counts, counts * values))
    held = mass > 0
    return sums[held] / mass[held], mass[held] / mass.sum()


def _bins(values: Tensor, low: float, high: float) -> Tensor:
    """The bin of each value, of `_BINS` between the least and the greatest."""
    return ((values - low) / (high - low) * _BINS).long().clamp(max=_BINS - 1)


_FITS: dict[Prior, Callable[[Tensor, Tensor, int], Tensor]] = {"k-means": _lloyd, "mixture": _mixture}
