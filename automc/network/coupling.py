"""Which channels can only be removed together: identities ("slots") handed from layer to layer and united by sums.

The idea of a dependency graph over layers is DepGraph's (Fang et al. 2023, section 3); here the unit is the single
channel, so that zero-padded shortcuts, concatenations and shuffles are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from automc.network.graph import Add, Concat, Conv, Gather, Group, Input, Layer

Slots = NDArray[np.int64]


def couple(layers: Sequence[Layer]) -> tuple[tuple[Group, ...], dict[str, Slots]]:
    """The channel groups of `layers` and, for every tensor, the pair (group index, slot) of each channel, `n x 2`.

    A group holds all convolutions that share a slot, directly or through others; groups stand in the order of their
    first convolution. Channels that belong to no convolution have the pair (-1, -1).
    """
    slots = _Slots()
    channels: dict[str, Slots] = {}
    fixed: list[tuple[Slots, str]] = []  # slots that must stay, and why
    for layer in layers:
        sources = [channels[name] for name in layer.inputs]
        channels[layer.name] = _hand_on(layer, sources, slots)
        fixed += _fixed(layer, sources, channels[layer.name], layer is layers[-1])

    roots = {name: slots.roots(mine) for name, mine in channels.items()}
    producers = [layer.name for layer in layers if isinstance(layer, Conv)]
    families = _Slots(slots.count)  # a convolution's slots are one family: it has one keep ratio
    for name in producers:
        families.unite(roots[name][:1].repeat(len(roots[name])), roots[name])

    families_in_order = list(dict.fromkeys(int(families.roots(roots[name])[0]) for name in producers))
    reasons: dict[int, list[str]] = {family: [] for family in families_in_order}
    for mine, reason in fixed:
        for family in dict.fromkeys(families.roots(slots.roots(mine)).tolist()):
            if reason not in reasons.setdefault(family, []):
                reasons[family].append(reason)

    groups: list[Group] = []
    pairs = np.full((slots.count, 2), -1, np.int64)  # by root
    for position, family in enumerate(families_in_order):
        members = [name for name in producers if families.roots(roots[name])[0] == family]
        own = np.array(list(dict.fromkeys(np.concatenate([roots[name] for name in members]).tolist())), np.int64)
        pairs[own, 0], pairs[own, 1] = position, np.arange(len(own))
        mapping = {name: pairs[roots[name], 1] for name in members}
        groups.append(Group(members[0], len(own), mapping, "; ".join(reasons[family])))
    return tuple(groups), {name: pairs[mine] for name, mine in roots.items()}


def _hand_on(layer: Layer, sources: list[Slots], slots: _Slots) -> Slots:
    """The slots of the channels that `layer` writes, given those that it reads."""
    match layer:
        case Conv() if layer.is_depthwise:
            return sources[0]
        case Input() | Conv():
            return slots.fresh(layer.shape[0])
        case Add():
            slots.unite(sources[0], sources[1])
            return sources[0]
        case Concat():
            return np.concatenate(sources)
        case Gather() if -1 in layer.index:
            # A channel of zeros must not couple its neighbours: the stage behind a padded shortcut is free of the one
            # before it, and a source channel that was removed becomes a channel of zeros.
            return slots.fresh(layer.shape[0])
        case Gather():
            return sources[0][list(layer.index)]
        case _:
            return sources[0]


def _fixed(layer: Layer, sources: list[Slots], written: Slots, is_output: bool) -> list[tuple[Slots, str]]:
    if isinstance(layer, Input):
        return [(written, "its channels meet those of the image one by one")]
    if isinstance(layer, Conv) and layer.groups > 1 and not layer.is_depthwise:
        reason = f"{layer.name} computes {layer.groups} separate sets of channels, which must stay equally large"
        return [(sources[0], reason), (written, reason)]
    return [(written, "its outputs are the network's result")] if is_output else []


class _Slots:
    """Disjoint sets of slots (union-find); a set's root is its oldest slot."""

    def __init__(self, count: int = 0) -> None:
        self._parents = list(range(count))

    @property
    def count(self) -> int:
        return len(self._parents)

    def fresh(self, count: int) -> Slots:
        start = self.count
        self._parents.extend(range(start, start + count))
        return np.arange(start, start + count)

    def unite(self, first: Slots, second: Slots) -> None:
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            low, high = sorted((self._root(a), self._root(b)))
            self._parents[high] = low

    def roots(self, members: Slots) -> Slots:
        return np.array([self._root(member) for member in members.tolist()], np.int64)

    def _root(self, member: int) -> int:
        while self._parents[member] != member:
            self._parents[member] = self._parents[self._parents[member]]
            member = self._parents[member]
        return member
