"""Which channels may leave a grouped convolution together, so that its sets of channels stay equally large."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Sets = NDArray[np.int64]  # `groups x n`: the channels of each set


def bundles(constraints: Sequence[Sets]) -> list[NDArray[np.int64]] | None:
    """Bundles of channels that have equally many channels in every set of each constraint; None where none were found.

    A channel that is written by one grouped convolution and read by another belongs to a set of each. It is an edge
    between these two sets. Where all channels are, the edges form a regular bipartite graph, which is a union of
    perfect matchings (König 1916); each of them is a bundle.
    """
    pending = [sets for sets in _distinct(constraints) if not _is_even(sets)]
    found: list[NDArray[np.int64]] = []
    while pending:
        first = pending.pop(0)
        meeting = [sets for sets in pending if np.isin(sets, first).any()]
        pending = [sets for sets in pending if not np.isin(sets, first).any()]
        second = meeting[0] if meeting else first
        if len(meeting) > 1 or not _matchable(first, second):
            return None
        found += _matchings(first, second)
    return found


def _distinct(constraints: Sequence[Sets]) -> list[Sets]:
    return list({(sets.shape, np.sort(sets, 1).tobytes()): sets for sets in constraints}.values())


def _is_even(sets: Sets) -> bool:
    """Whether every channel stands equally often in each set already."""
    return all(np.array_equal(np.sort(one), np.sort(sets[0])) for one in sets[1:])


def _matchable(first: Sets, second: Sets) -> bool:
    """Whether each channel stands once in both, and the sets are as many, and of more than one channel."""
    once = np.sort(first.ravel())
    unique = (once[1:] != once[:-1]).all()
    return bool(first.shape == second.shape and first.shape[1] > 1 and unique) and np.array_equal(
        once, np.sort(second.ravel())
    )


def _matchings(first: Sets, second: Sets) -> list[NDArray[np.int64]]:
    set_of = {int(channel): index for index, channels in enumerate(second) for channel in channels}
    edges: list[list[list[int]]] = [[[] for _ in second] for _ in first]
    for index, channels in enumerate(first):
        for channel in channels.tolist():
            edges[index][set_of[channel]].append(channel)
    return [
        np.array(sorted(edges[a][b].pop(0) for b, a in _perfect_matching(edges).items())) for _ in range(first.shape[1])
    ]


def _perfect_matching(edges: list[list[list[int]]]) -> dict[int, int]:
    """One edge at every vertex, right to left, by augmenting paths (Kuhn 1955)."""
    left_of: dict[int, int] = {}

    def place(a: int, tried: set[int]) -> bool:
        for b, channels in enumerate(edges[a]):
            if channels and b not in tried:
                tried.add(b)
                if b not in left_of or place(left_of[b], tried):
                    left_of[b] = a
                    return True
        return False

    for a in range(len(edges)):
        place(a, set())
    return left_of
