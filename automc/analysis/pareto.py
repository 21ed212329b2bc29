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


def anytime_hypervolume(cost: Floats, accuracy: Floats, reference: tuple[float, float]) -> Floats:
    """The hypervolume of the first 1, 2, ... n points, `n`; it never falls. A point with a NaN adds nothing."""
    volumes = np.zeros(len(cost))
    front_cost, front_accuracy = np.empty(0), np.empty(0)
    for position in range(len(cost)):
        if np.isfinite(cost[position]) and np.isfinite(accuracy[position]):
            front_cost = np.append(front_cost, cost[position])
            front_accuracy = np.append(front_accuracy, accuracy[position])
            kept = pareto_front(front_cost, front_accuracy)
            front_cost, front_accuracy = front_cost[kept], front_accuracy[kept]
        volumes[position] = hypervolume(front_cost, front_accuracy, reference)
    return np.maximum.accumulate(volumes)  # the same area summed over other strips may differ in the last digit


def _check(cost: Floats, accuracy: Floats) -> None:
    if cost.ndim != 1 or cost.shape != accuracy.shape:
        raise ValueError(
            f"cost and accuracy must be two rows of one length. Got {cost.shape} and {accuracy.shape} instead."
        )
    if not (np.isfinite(cost).all() and np.isfinite(accuracy).all()):
        raise ValueError("cost and accuracy must be finite; leave out trials that failed")
