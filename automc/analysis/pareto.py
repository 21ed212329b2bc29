"""Which policies nothing else beats, and how much of the plane of cost and accuracy they cover."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def pareto_front(cost: Floats, accuracy: Floats) -> NDArray[np.int64]:
    """The indices of the points that no other point beats: lower cost is better, higher accuracy is better.

    cost, accuracy: `n`, finite. The indices come in the order of rising cost, and so of rising accuracy. Of points
    that are equal in both, the first stands for all.
    """
    _check(cost, accuracy)
    # Cheapest first; at one cost the most accurate first, then the earliest.
    order = np.lexsort((np.arange(len(cost)), -accuracy, cost))
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(accuracy[order])[:-1]))[: len(order)]
    return order[accuracy[order] > best_before]


def hypervolume(cost: Floats, accuracy: Floats, reference: tuple[float, float]) -> float:
    """The area between the front and the `reference` (cost, accuracy), exactly; 0 for points that do not better it.

    cost, accuracy: `n`, finite. The unit is that of cost times accuracy. Larger is better.
    """
    _check(cost, accuracy)
    worst_cost, worst_accuracy = reference
    inside = (cost < worst_cost) & (accuracy > worst_accuracy)
    cost, accuracy = cost[inside], accuracy[inside]
    front = pareto_front(cost, accuracy)
    widths = np.diff(cost[front], append=worst_cost)
    return float(widths @ (accuracy[front] - worst_accuracy))


def _check(cost: Floats, accuracy: Floats) -> None:
    if cost.ndim != 1 or cost.shape != accuracy.shape:
        raise ValueError(
            f"cost and accuracy must be two rows of one length. Got {cost.shape} and {accuracy.shape} instead."
        )
    if not (np.isfinite(cost).all() and np.isfinite(accuracy).all()):
        raise ValueError("cost and accuracy must be finite; leave out trials that failed")
