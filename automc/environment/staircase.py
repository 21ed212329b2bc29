"""The channel counts worth offering: those at which a device's latency falls.

A kernel computes whole vectors of output channels and takes whole steps of input channels, so its time is a staircase
in their number, and removing a channel inside a stair only costs accuracy (Radu et al. 2019, "Performance Aware
Convolutional Neural Network Channel Pruning for Embedded GPUs").
"""

from __future__ import annotations

from collections.abc import Mapping

_NEAR = 1 / 16  # of the channels: how far below a count the end of a vector is looked for


def staircase(latencies: Mapping[float, float], most: int) -> list[float]:
    """At most `most` of the keep ratios, ascending; those between two of them are about as slow as the upper one.

    `latencies` says what each ratio takes; the largest is always offered. Every other one is the largest that is as
    fast. It saves at least one part in `most - 1` of all that can be saved over the next one; of those near the largest
    that does, it is the one that saves most for a channel, which is where a vector ends.
    """
    falls: list[float] = []
    for ratio in sorted(latencies, reverse=True):
        if not falls or latencies[ratio] < latencies[falls[-1]]:
            falls.append(ratio)
    offered = [falls[0]]
    part = (latencies[falls[0]] - latencies[falls[-1]]) / (most - 1)
    while True:
        last = offered[-1]
        saved = {ratio: latencies[last] - latencies[ratio] for ratio in falls if ratio < last}
        worth = [ratio for ratio in saved if saved[ratio] >= part]
        if not worth:
            return offered[::-1]
        near = [ratio for ratio in worth if ratio >= worth[0] - _NEAR]
        offered.append(max(near, key=lambda ratio: saved[ratio] / (last - ratio)))
