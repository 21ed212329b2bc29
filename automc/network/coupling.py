"""Which channels can only be removed together: identities ("slots") handed from layer to layer and united by sums.

The idea of a dependency graph over layers is DepGraph's (Fang et al. 2023, section 3); here the unit is the single
channel, so that zero-padded shortcuts, concatenations, splits and shuffles are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from automc.network.evenly import bundles
from automc.network.graph import Add, Concat, Conv, Gather, Group, Input, Layer, Multiply, Shuffle

Slots = NDArray[np.int64]


def couple(layers: Sequence[Layer]) -> tuple[tuple[Group, ...], dict[str, Slots]]:
    """The channel groups of `layers` and, for every tensor, the pair (group index, slot) of each channel, `n x 2`.

    A group holds all convolutions that share a slot, directly or through others; groups stand in the order of their
    first convolution. Channels that belong to no convolution have the pair (-1, -1).
    """
    walk = _Walk()
    for layer in layers:
        walk.take(layer)
    walk.fixed.append((walk.channels[layers[-1].name], "its outputs are the network's result"))
    families = _families(walk)
    _keep_sets_even(walk, families)

    roots = {name: walk.slots.roots(mine) for name, mine in walk.channels.items()}
    members: dict[int, list[str]] = {}
    for layer in layers:
        if isinstance(layer, Conv) and len(owners := set(families.roots(roots[layer.name]).tolist())) == 1:
            members.setdefault(owners.pop(), []).append(layer.name)
    reasons = _reasons(walk, families)
    groups: list[Group] = []
    pairs = np.full((walk.slots.count, 2), -1, np.int64)  # by root
    for position, (family, names) in enumerate(members.items()):
        own = np.array(list(dict.fromkeys(np.concatenate([roots[name] for name in names]).tolist())), np.int64)
        pairs[own, 0], pairs[own, 1] = position, np.arange(len(own))
        mapping = {name: pairs[roots[name], 1] for name in names}
        groups.append(Group(names[0], len(own), mapping, "; ".join(reasons.get(family, ()))))
    return tuple(groups), {name: pairs[mine] for name, mine in roots.items()}


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

    def unite_all(self, members: Slots) -> None:
        self.unite(members[:1].repeat(len(members)), members)

    def roots(self, members: Slots) -> Slots:
        return np.array([self._root(member) for member in members.tolist()], np.int64)

    def _root(self, member: int) -> int:
        while self._parents[member] != member:
            self._parents[member] = self._parents[self._parents[member]]
            member = self._parents[member]
        return member


@dataclass
class _Walk:
    """The slots of every tensor's channels, collected layer by layer.

    `births`: slots that came to be in one layer; `fixed`: slots that must stay, and why; `sets`: for grouped
    convolutions, by name, the slots of each of their sets of channels, `groups x n`.
    """

    slots: _Slots = field(default_factory=_Slots)
    channels: dict[str, Slots] = field(default_factory=dict)
    births: list[Slots] = field(default_factory=list)
    fixed: list[tuple[Slots, str]] = field(default_factory=list)
    sets: list[tuple[str, Slots]] = field(default_factory=list)

    def take(self, layer: Layer) -> None:
        """Hand the slots of what `layer` reads on to what it writes."""
        sources = [self.channels[name] for name in layer.inputs]
        written = self.channels[layer.name] = self._hand_on(layer, sources)
        if isinstance(layer, Input):
            self.fixed.append((written, "its channels meet those of the image one by one"))
        elif isinstance(layer, Conv) and layer.groups > 1 and not layer.is_depthwise:
            self.sets += [(layer.name, slots.reshape(layer.groups, -1)) for slots in (sources[0], written)]

    def _hand_on(self, layer: Layer, sources: list[Slots]) -> Slots:
        match layer:
            case Conv() if layer.is_depthwise:
                return sources[0]
            case Input() | Conv():
                return self._fresh(layer.shape[0])
            case Add() | Multiply():
                self.slots.unite(sources[0], sources[1])
                return sources[0]
            case Concat():
                return np.concatenate(sources)
            case Gather() if -1 in layer.index:
                # A channel of zeros must not couple its neighbours: the stage behind a padded shortcut is free of the
                # one before it, and a source channel that was removed becomes a channel of zeros.
                return self._fresh(layer.shape[0])
            case Gather():
                return sources[0][list(layer.index)]
            case Shuffle():
                pixels = sources[0].reshape(layer.shape[0], -1)  # the channels that one channel is made of
                for of_one in pixels:
                    self.slots.unite_all(of_one)
                return pixels[:, 0]
            case _:
                return sources[0]

    def _fresh(self, count: int) -> Slots:
        self.births.append(self.slots.fresh(count))
        return self.births[-1]


def _families(walk: _Walk) -> _Slots:
    """Sets of roots that have one keep ratio: those of a convolution, and of what must stay even."""
    families = _Slots(walk.slots.count)
    for mine in (*walk.births, *(slots.ravel() for _, slots in walk.sets)):
        families.unite_all(walk.slots.roots(mine))
    return families


def _keep_sets_even(walk: _Walk, families: _Slots) -> None:
    """Unite slots across the sets of grouped convolutions, so that each set loses as many channels as the others."""
    by_family: dict[int, list[tuple[str, Slots]]] = {}
    for name, slots in walk.sets:
        roots = walk.slots.roots(slots.ravel()).reshape(slots.shape)
        by_family.setdefault(int(families.roots(roots[0, :1])[0]), []).append((name, roots))
    for sets in by_family.values():
        found = bundles([roots for _, roots in sets])
        for bundle in found or ():
            walk.slots.unite_all(bundle)
        if found is None:
            for name, roots in sets:
                reason = f"{name} computes {len(roots)} separate sets of channels, which cannot be made smaller evenly"
                walk.fixed.append((roots.ravel(), reason))


def _reasons(walk: _Walk, families: _Slots) -> Mapping[int, list[str]]:
    """By family, why its channels must stay."""
    reasons: dict[int, list[str]] = {}
    for mine, reason in walk.fixed:
        for family in dict.fromkeys(families.roots(walk.slots.roots(mine)).tolist()):
            if reason not in reasons.setdefault(family, []):
                reasons[family].append(reason)
    return reasons
