"""Weight sharing: one small table of values for all weights of a layer."""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 40  # of Lloyd's algorithm; it has settled by then
_BINS = 2048  # of the histogram from which it starts


def shared_levels(weight: Tensor, importance: Tensor, entries: int) -> tuple[Tensor, Tensor]:
    """A table of at most `entries` int8 values, ascending, and the scale of each row: `entries` and `groups x out`.

    k-means on the weights relative to their row's root mean square (Han et al. 2016, section 3.1), each counted by what
    an error of it costs in the layer's outputs (Choi et al. 2017, section 3.3). weight and importance:
    `groups x out x d`; the importance is the energy of each weight's input, 0 for a weight that was pruned.
    """
    spread = weight.square().mean(-1).sqrt()
    relative = weight / torch.where(spread > 0, spread, 1.0)[..., None]
    counts = (importance * spread.square()[..., None]).flatten()
    counted = counts > 0
    centres = _lloyd(relative.flatten()[counted], counts[counted], entries)
    step = max(float(centres.abs().max()), 1e-12) / 127
    return torch.unique((centres / step).round()), spread * step


def _lloyd(values: Tensor, counts: Tensor, entries: int) -> Tensor:
    """The centres, ascending, of a one-dimensional weighted k-means."""
    if len(values) == 0:  # nothing that matters
        return torch.zeros(1, dtype=values.dtype)
    low, high = float(values.min()), float(values.max())
    if low == high:
        return values[:1].clone()
    # The best quantiser has centres as dense as the cube root of the density (Panter & Dite 1951).
    places = ((values - low) / (high - low) * _BINS).long().clamp(max=_BINS - 1)
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
