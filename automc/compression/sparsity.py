"""Sparse weights: which ones become zero, decided one column after the other while the others make up for it."""

from __future__ import annotations

import torch
from torch import Tensor

from automc.choices import Pattern
from automc.compression.compensate import inverse_factor, sweep
from automc.compression.windows import BLOCK_INPUTS, BLOCK_OUTPUTS

_BLOCK = 64  # columns for which it is decided at once
_FEW = {"2:4": 2, "1:4": 1}


def thin(weight: Tensor, gram: Tensor, density: float, pattern: Pattern, taps: int) -> Tensor:
    """The weights `groups x out x d`, of which about a share `density` is not zero, and which make up for the others.

    Optimal brain surgeon, one block of columns after the other (SparseGPT: Frantar & Alistarh 2023, section 3): in each
    the weights go whose removal costs least once the columns after them adapt. How many go in a block is decided for
    all blocks at once, from the weights as they were.
    """
    unit = _units(weight.shape[2], taps, 1 if pattern == "unstructured" else BLOCK_INPUTS)
    columns, unit = _ordered(unit, gram)
    order = columns.expand(len(gram), -1)
    factor = inverse_factor(gram, order)
    rigidity = factor.diagonal(dim1=1, dim2=2).square()  # groups x d
    stops = _stops(unit)

    def costs(values: Tensor, start: int) -> Tensor:
        return values.square() / rigidity[:, None, start : start + values.shape[2]]

    def units_of(values: Tensor, start: int) -> Tensor:
        return unit[start : start + values.shape[2]] - unit[start]

    if pattern in _FEW:
        return sweep(
            weight,
            factor,
            order,
            _same,
            lambda values, start: _best_of_each(costs(values, start), units_of(values, start), _FEW[pattern]),
            stops,
        )
    rows = 1 if pattern == "unstructured" else BLOCK_OUTPUTS
    first = costs(weight.gather(2, order[:, None].expand_as(weight)), 0)
    scores = _block_sums(first, unit, rows)
    threshold = scores.flatten().topk(max(1, round(density * scores.numel()))).values[-1]
    begins = [0, *stops[:-1]]
    quota = {
        begin: int((scores[..., unit[begin] : unit[stop - 1] + 1] >= threshold).sum())
        for begin, stop in zip(begins, stops, strict=True)
    }

    def keep(values: Tensor, start: int) -> Tensor:
        mine = units_of(values, start)
        sums = _block_sums(costs(values, start), mine, rows)
        chosen = torch.zeros(sums.numel(), dtype=values.dtype)
        chosen[sums.flatten().topk(quota[start]).indices] = 1
        spread = chosen.view_as(sums).repeat_interleave(rows, 1)[:, : values.shape[1]]
        return spread[..., mine]

    return sweep(weight, factor, order, _same, keep, stops)


def _same(values: Tensor) -> Tensor:
    return values


def _units(width: int, taps: int, inputs: int) -> Tensor:
    """`d`: the unit of each column; a unit is one tap of so many neighbouring inputs."""
    column = torch.arange(width)
    return column // taps // inputs * taps + column % taps


def _ordered(unit: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """The columns, units of most input energy first and together, and the units anew numbered in that order."""
    energy = gram.diagonal(dim1=1, dim2=2).sum(0)
    count = int(unit.max()) + 1
    mean = torch.zeros(count, dtype=energy.dtype).index_add_(0, unit, energy) / torch.bincount(unit, minlength=count)
    place = mean.argsort(descending=True, stable=True).argsort()[unit]
    columns = place.argsort(stable=True)
    return columns, place[columns]


def _stops(unit: Tensor) -> list[int]:
    """Where blocks of about `_BLOCK` columns end without cutting through a unit."""
    ends = [int(end) for end in (unit[1:] != unit[:-1]).nonzero().flatten() + 1] + [len(unit)]
    stops, last = [], 0
    for end in ends:
        if end - last >= _BLOCK:
            stops.append(end)
            last = end
    return stops if stops and stops[-1] == len(unit) else [*stops, len(unit)]


def _block_sums(costs: Tensor, unit: Tensor, rows: int) -> Tensor:
    """`groups x ceil(out / rows) x units`: what each block of so many rows and one unit of columns costs."""
    groups, outputs, _ = costs.shape
    units = torch.zeros(groups, outputs, int(unit[-1]) + 1, dtype=costs.dtype).index_add_(2, unit, costs)
    if rows == 1:
        return units
    padded = torch.nn.functional.pad(units, (0, 0, 0, -outputs % rows))
    return padded.reshape(groups, -1, rows, padded.shape[2]).sum(2)


def _best_of_each(costs: Tensor, unit: Tensor, count: int) -> Tensor:
    """1 for the `count` dearest weights of each row and unit."""
    kept = torch.zeros_like(costs)
    for one in range(int(unit[-1]) + 1):
        mine = (unit == one).nonzero().flatten()
        best = costs[..., mine].topk(min(count, len(mine)), dim=2).indices
        kept.scatter_(2, mine[best], 1)
    return kept
