"""Larger networks that compute the same: from trained weights a search may also grow a layer (Chen et al. 2016)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from automc.errors import NameNotFound, PolicyError
from automc.files import suggest
from automc.network.coupling import couple
from automc.network.graph import Conv, Gather, Layer, Network, Shuffle


def widen(network: Network, group: str, slots: int, seed: int = 0) -> Network:
    """`network` with `slots` slots in the channel group `group`, some channels more than once (Net2WiderNet, 2.3).

    Copies stand beside their original. The convolutions that read them share its weights out among them, unequally, so
    that training tells them apart, where the paper has equal shares and noise. Results are the same but for rounding.

    Raises `NameNotFound` for an unknown group, `PolicyError` for one that cannot change or fewer slots than it has.
    """
    names = [each.name for each in network.groups]
    if group not in names:
        raise NameNotFound(f"{network.name} has no group '{group}'{suggest(group, names)}")
    position = names.index(group)
    old = network.groups[position]
    if not old.prunable:
        raise PolicyError(f"'{group}' cannot be widened: {old.reason}")
    if slots < old.slots:
        raise PolicyError(f"'{group}' has {old.slots} channels. Got {slots} instead, which are fewer.")
    random = np.random.default_rng(seed)
    counts = np.ones(old.slots, np.int64)  # of each slot
    np.add.at(counts, random.integers(0, old.slots, slots - old.slots), 1)
    copies = {}  # of each channel of each tensor
    for name, pairs in network.channel_slots.items():
        mine = pairs[:, 0] == position
        copies[name] = np.ones(len(pairs), np.int64)
        copies[name][mine] = counts[pairs[mine, 1]]
    return _rebuilt(network, [_widened(network, layer, copies, random) for layer in network.layers])


def deepen(network: Network, layer: str) -> Network:
    """`network` with a convolution after `layer` that computes the identity, `<layer>.deeper` (Net2DeeperNet, 2.4).

    It has the activation of `layer`, which changes nothing when it is applied twice, and a kernel of 3 x 3 over maps.
    Raises `NameNotFound` where `layer` is no convolution of the network.
    """
    names = [conv.name for conv in network.convs]
    if layer not in names:
        raise NameNotFound(f"{network.name} has no layer '{layer}'{suggest(layer, names)}")
    before = network[layer]
    assert isinstance(before, Conv)
    channels = before.shape[0]
    size = 1 if before.is_dense else 3
    weight = np.zeros((channels, channels, size, size), np.float32)
    weight[np.arange(channels), np.arange(channels), size // 2, size // 2] = 1
    deeper = Conv(
        f"{layer}.deeper",
        (layer,),
        before.shape,
        weight,
        np.zeros(channels, np.float32),
        padding=(size // 2, size // 2),
        activation=before.activation,
    )
    layers: list[Layer] = []
    for each in network.layers:
        layers.append(replace(each, inputs=tuple(deeper.name if name == layer else name for name in each.inputs)))
        if each.name == layer:
            layers.append(deeper)
    return _rebuilt(network, layers)


def _rebuilt(network: Network, layers: list[Layer]) -> Network:
    groups, channel_slots = couple(layers)
    return Network(network.name, tuple(layers), groups, channel_slots, network.mean, network.std, network.notes)


def _widened(
    network: Network, layer: Layer, copies: dict[str, NDArray[np.int64]], random: np.random.Generator
) -> Layer:
    written = copies[layer.name]
    shape = (int(written.sum()), *layer.shape[1:])
    if isinstance(layer, Shuffle) and (written > 1).any():
        raise PolicyError(f"'{layer.name}' makes pixels of these channels, which cannot be widened")
    if isinstance(layer, Gather):
        first = np.cumsum(copies[layer.inputs[0]]) - copies[layer.inputs[0]]  # of the copies of each source channel
        index = tuple(int(first[channel]) if channel >= 0 else -1 for channel in np.repeat(layer.index, written))
        return replace(layer, shape=shape, index=index)
    if not isinstance(layer, Conv):
        return replace(layer, shape=shape)
    weight, groups = layer.weight, layer.groups
    if layer.is_depthwise:
        groups = shape[0]
    else:
        weight = _shared_out(weight, copies[layer.inputs[0]].reshape(groups, -1), random)
    return replace(
        layer, shape=shape, weight=np.repeat(weight, written, 0), bias=np.repeat(layer.bias, written), groups=groups
    )


def _shared_out(
    weight: NDArray[np.float32], copies: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.float32]:
    """The weights `out x in/groups x kh x kw` with those of a copied input shared out; copies: `groups x in/groups`."""
    sets = np.split(weight, len(copies))
    return np.concatenate([_columns_shared_out(*pair, random) for pair in zip(sets, copies, strict=True)])


def _columns_shared_out(
    weight: NDArray[np.float32], copies: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.float32]:
    parts = [random.dirichlet(np.full(count, 4.0)) if count > 1 else np.ones(1) for count in copies.tolist()]
    shares = np.concatenate(parts).astype(np.float32)
    return np.repeat(weight, copies, 1) * shares[:, None, None]
