"""The arena: which bytes hold which tensor or scratch, such that what is alive at the same time never overlaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from automc.compiler.isa import ALIGNMENT
from automc.compiler.kernel import Own

Piece = tuple[int, str | Own]  # the position of the operation that writes it, and its name


@dataclass(frozen=True)
class Lifetime:
    """Something that needs `size_bytes` from operation `first` to operation `last`, both included."""

    size_bytes: int
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last


def plan(lifetimes: Mapping[Piece, Lifetime]) -> tuple[dict[Piece, int], int]:
    """The offset of everything, multiples of `ALIGNMENT`, and the bytes that they take together.

    Largest first, each at the lowest offset where nothing that lives at the same time lies: greedy by size
    (Pisarchyk and Lee 2020, section 5.2).
    """
    offsets: dict[Piece, int] = {}
    for name in sorted(lifetimes, key=lambda name: (-lifetimes[name].size_bytes, lifetimes[name].first, name[0])):
        mine = lifetimes[name]
        offset = 0
        for other in sorted(offsets, key=offsets.__getitem__):
            if mine.meets(lifetimes[other]):
                if offset + mine.size_bytes <= offsets[other]:
                    break
                offset = max(offset, aligned(offsets[other] + lifetimes[other].size_bytes))
        offsets[name] = offset
    total = max((aligned(offsets[name] + lifetimes[name].size_bytes) for name in offsets), default=0)
    return offsets, total


def aligned(offset: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-offset // ALIGNMENT) * ALIGNMENT
