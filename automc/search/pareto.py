"""Which policies nothing else beats, and how much of the plane of cost and quality they cover."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from automc.environment.measures import Floats


def pareto_front(cost: Floats, quality: Floats) -> NDArray[np.int64]:
    """The indices of the points that no other point beats: lower cost is better, higher quality is better.

    cost, quality: `n`, finite. The indices come in the order of rising cost, and so of rising quality. Of points
    that are equal in both, the first stands for all.
    """
    _check(cost, quality)
    # Cheapest first; at one cost the best first, then the earliest.
    order = np.lexsort((np.arange(len(cost)), -quality, cost))
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(quality[order])[:-1]))[: len(order)]
    return order[quality[order] > best_before]


def hypervolume(cost: Floats, quality: Floats, reference: tuple[float, float]) -> float:
    """The area between the front and the `reference` (cost, quality), exactly; 0 for points that do not better it.

    cost, quality: `n`, finite. The unit is that of cost times quality. Larger is better.
    """
    _check(cost, quality)
    worst_cost, worst_quality = reference
    inside = (cost < worst_cost) & (quality > worst_quality)
    cost, quality = cost[inside], quality[inside]
    front = pareto_front(cost, quality)
    widths = np.diff(cost[front], append=worst_cost)
    return float(widths @ (quality[front] - worst_quality))


def thinned(cost: Floats, quality: Floats, count: int) -> list[int]:
    """The indices of at most `count` points of a front that cover most of what it covers, in their order.

    cost, quality: `n`, of a front as `pareto_front` gives it. Again and again the point goes whose area nothing else
    covers is the smallest (Beume et al. 2007, SMS-EMOA, section 3), seen from the front's own worst quality; the best
    quality stays.
    """
    left = list(range(len(cost)))
    while len(left) > count:
        below = np.concatenate(([quality[0]], quality[left[:-2]]))
        areas = np.diff(cost[left]) * (quality[left[:-1]] - below)
        del left[int(np.argmin(areas))]
    return left


def _check(cost: Floats, quality: Floats) -> None:
    if cost.ndim != 1 or cost.shape != quality.shape:
        raise ValueError(
            f"cost and quality must be two rows of one length. Got {cost.shape} and {quality.shape} instead."
        )
    if not (np.isfinite(cost).all() and np.isfinite(quality).all()):
        raise ValueError("cost and quality must be finite; leave out trials that failed")
