"""Folding: batch norms go into the convolution before them, activations into what computes their input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from automc.network.graph import Activation, Add, Concat, Conv, Gather, Layer, Pool


@dataclass(frozen=True, eq=False)
class Normalise(Layer):
    """A batch norm in evaluation: `scale * x + shift` for each channel."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Activate(Layer):
    """An activation function by itself."""

    activation: Activation


def used(layers: Sequence[Layer], output: str) -> list[Layer]:
    """The layers that the result needs, and the input."""
    needed = {output, layers[0].name}
    for layer in reversed(layers):
        if layer.name in needed:
            needed.update(layer.inputs)
    return [layer for layer in layers if layer.name in needed]


def fold(layers: Sequence[Layer]) -> tuple[list[Layer], list[str]]:
    """`layers` without `Normalise` and `Activate`, and notes on those that found no place in another layer.

    These become depthwise 1x1 convolutions, which compute exactly the same.
    """
    notes: list[str] = []
    done: dict[str, Layer] = {}
    renamed: dict[str, str] = {}  # a folded layer's tensor is that of the layer which took it in
    readers = Counter(name for layer in layers for name in layer.inputs)
    for original in layers:
        layer = replace(original, inputs=tuple(renamed.get(name, name) for name in original.inputs))
        if isinstance(layer, Normalise | Activate):
            producer = layer.inputs[0]
            if isinstance(layer, Activate):
                home = _take_activation(producer, layer.activation, done, readers)
            else:
                home = _take_normalisation(producer, layer, done, readers)
            if home:
                done.update(home)
                renamed[layer.name] = producer
                readers[producer] = readers[layer.name]
                continue
            notes.append(
                f"{layer.name}: no convolution before it can take it in (its input is read elsewhere, too, or joined "
                "from others); it is computed as a depthwise 1x1 convolution"
            )
            layer = _depthwise(layer)
        done[layer.name] = layer
    return list(done.values()), notes


def _take_normalisation(
    producer: str, norm: Normalise, done: dict[str, Layer], readers: Counter[str]
) -> dict[str, Layer]:
    conv = done[producer]
    if not isinstance(conv, Conv) or conv.activation != "none" or readers[producer] > 1:
        return {}
    weight = conv.weight * norm.scale[:, None, None, None]
    bias = conv.bias * norm.scale + norm.shift
    return {producer: replace(conv, weight=weight.astype(np.float32), bias=bias.astype(np.float32))}


def _take_activation(
    producer: str, activation: Activation, done: dict[str, Layer], readers: Counter[str]
) -> dict[str, Layer]:
    """The layers that change when `producer`'s tensor is activated where it is computed; none where it cannot be.

    Activations commute with maxima, moves and concatenations.
    """
    layer = done[producer]
    if readers[producer] > 1:
        return {}
    if isinstance(layer, Conv | Add):
        bounded = "relu6" in (activation, layer.activation)
        return {producer: replace(layer, activation="relu6" if bounded else "relu")}
    if isinstance(layer, Gather | Concat) or (isinstance(layer, Pool) and layer.kind == "max"):
        before = [_take_activation(name, activation, done, readers) for name in layer.inputs]
        if all(before):
            return {producer: layer} | {name: changed for part in before for name, changed in part.items()}
    return {}


def _depthwise(layer: Normalise | Activate) -> Conv:
    channels = layer.shape[0]
    scale = layer.scale if isinstance(layer, Normalise) else np.ones(channels)
    shift = layer.shift if isinstance(layer, Normalise) else np.zeros(channels)
    return Conv(
        layer.name,
        layer.inputs,
        layer.shape,
        scale.astype(np.float32).reshape(channels, 1, 1, 1),
        shift.astype(np.float32),
        groups=channels,
        activation=layer.activation if isinstance(layer, Activate) else "none",
    )
