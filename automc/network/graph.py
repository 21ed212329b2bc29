"""`Network`: what automc understood of a torch module, as layers with float weights, shapes and channel groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]  # channels, height, width
Activation = Literal["none", "relu", "relu6"]
CurveKind = Literal["hardswish", "hardsigmoid", "sigmoid", "silu", "tanh", "gelu"]


@dataclass(frozen=True, eq=False)
class Layer:
    """One step of the network. It writes one tensor, which bears the layer's name; `inputs` are names of layers."""

    name: str
    inputs: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True, eq=False)
class Input(Layer):
    """The image, normalised as the network was trained."""


@dataclass(frozen=True, eq=False)
class Conv(Layer):
    """A convolution with batch norm folded in; a dense layer is the convolution whose kernel covers its whole input.

    weight: `out x in/groups x kh x kw` float32, bias: `out` float32; `padding` is the same on both sides.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    activation: Activation = "none"

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return int(self.weight.size) * self.shape[1] * self.shape[2]

    @property
    def is_dense(self) -> bool:
        """Whether it is a matrix times a vector."""
        return self.shape[1:] == (1, 1)

    @property
    def is_depthwise(self) -> bool:
        return is_depthwise(self.weight.shape, self.groups)

    @property
    def kind(self) -> Literal["convolution", "depthwise", "dense"]:
        """What it is called."""
        return "depthwise" if self.is_depthwise else "dense" if self.is_dense else "convolution"


@dataclass(frozen=True, eq=False)
class Add(Layer):
    """The sum of two tensors of one shape."""

    activation: Activation = "none"


@dataclass(frozen=True, eq=False)
class Concat(Layer):
    """The channels of its inputs, one input after the other."""


@dataclass(frozen=True, eq=False)
class Gather(Layer):
    """Channels picked by `index`, -1 for a channel of zeros, of every `stride`-th pixel.

    The zero-padded, subsampled shortcut of CIFAR ResNets, and every split, slice and reordering of channels.
    """

    index: tuple[int, ...] = ()
    stride: int = 1


@dataclass(frozen=True, eq=False)
class Pool(Layer):
    """Average (`mean`, padding counted as zeros) or maximum over windows."""

    kind: Literal["mean", "max"] = "mean"
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Curve(Layer):
    """A function of each value by itself that is no clamp; `curves.py` has them by `kind`."""

    kind: CurveKind = "sigmoid"


@dataclass(frozen=True, eq=False)
class Multiply(Layer):
    """A map times gains, `channels x 1 x 1`, its inputs in this order: the second half of squeeze-and-excitation."""


@dataclass(frozen=True, eq=False)
class Shuffle(Layer):
    """Pixels out of channels: `c * factor^2 x h x w` to `c x h * factor x w * factor`, as `torch.pixel_shuffle`."""

    factor: int = 2


@dataclass(frozen=True, eq=False)
class Group:
    """Channels of several layers that can only be removed together.

    `members` maps each producing convolution to the slot of each of its output channels: removing slot `s` removes
    every channel that maps to `s`. A depthwise convolution over channels of several groups is a member of none, and
    loses those that leave. A group that cannot be pruned says why in `reason`.
    """

    name: str  # of its first producer
    slots: int
    members: Mapping[str, NDArray[np.int64]]
    reason: str = ""

    @property
    def prunable(self) -> bool:
        return not self.reason


@dataclass(frozen=True, eq=False)
class Network:
    """A traced network: layers in the order of computation, first the input, last the result.

    `channel_slots` gives for every tensor the pair (group index, slot) of each of its channels, `n x 2`, with group -1
    for channels that belong to no convolution (the image, zeros). `notes` say what was kept as it is, and why.
    """

    name: str
    layers: tuple[Layer, ...]
    groups: tuple[Group, ...]
    channel_slots: Mapping[str, NDArray[np.int64]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()
    _by_name: Mapping[str, Layer] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {layer.name: layer for layer in self.layers})

    def __getitem__(self, name: str) -> Layer:
        return self._by_name[name]

    @property
    def input(self) -> Layer:
        return self.layers[0]

    @property
    def output(self) -> Layer:
        return self.layers[-1]

    @cached_property
    def convs(self) -> tuple[Conv, ...]:
        """The layers that have weights, in the order of computation."""
        return tuple(layer for layer in self.layers if isinstance(layer, Conv))

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Layer, ...]]:
        """The layers that read each tensor."""
        return {
            producer.name: tuple(layer for layer in self.layers if producer.name in layer.inputs)
            for producer in self.layers
        }

    @cached_property
    def fused_sums(self) -> Mapping[str, str]:
        """For each sum that a convolution computes as it writes: the sum's name to that convolution's name.

        It is the operand computed last, if it is a convolution without activation that nothing else reads.
        """
        order = {layer.name: position for position, layer in enumerate(self.layers)}
        fused: dict[str, str] = {}
        for layer in self.layers:
            if isinstance(layer, Add):
                last = self[max(layer.inputs, key=order.__getitem__)]
                read_once = layer.inputs.count(last.name) == 1 and self.consumers[last.name] == (layer,)
                if isinstance(last, Conv) and last.activation == "none" and read_once:
                    fused[layer.name] = last.name
        return fused

    @property
    def writes_logits(self) -> bool:
        """Whether the result is float32 as a dense layer computes it; others are stored as integers before."""
        last = self.output
        return isinstance(last, Conv) and last.is_dense and last.activation == "none"

    @cached_property
    def stored_tensors(self) -> tuple[str, ...]:
        """The tensors that have a grid of their own, in the order of computation.

        Not the logits (float32), nor what a sum absorbs, nor what only moves values (gathers, maxima, pixel shuffles).
        """
        absent = set(self.fused_sums.values()) | ({self.output.name} if self.writes_logits else set())
        return tuple(layer.name for layer in self.layers if layer.name not in absent and not _only_moves(layer))

    @cached_property
    def quantised_tensors(self) -> tuple[str, ...]:
        """The stored tensors whose bits may be chosen.

        The gains of a multiplication keep 8: they are few, and an error of one is one of a whole channel.
        """
        gains = {self.storage[layer.inputs[1]] for layer in self.layers if isinstance(layer, Multiply)}
        return tuple(name for name in self.stored_tensors if name not in gains)

    @cached_property
    def storage(self) -> Mapping[str, str]:
        """For each tensor the one whose bits and grid it is stored in."""
        storage: dict[str, str] = {}
        for layer in self.layers:
            storage[layer.name] = storage[layer.inputs[0]] if _only_moves(layer) else layer.name
        return storage

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers for one image."""
        return sum(layer.macs for layer in self.convs)

    @property
    def parameters(self) -> int:
        return sum(layer.weight.size + layer.bias.size for layer in self.convs)

    def kept_channels(self, tensor: str, kept_slots: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
        """Which channels of `tensor` remain when each group (by name) keeps only `kept_slots`; others keep all."""
        slots = self.channel_slots[tensor]
        remains = np.ones(len(slots), bool)
        for position in set(slots[:, 0].tolist()) - {-1}:
            name = self.groups[position].name
            if name in kept_slots:
                mine = slots[:, 0] == position
                remains[mine] = np.isin(slots[mine, 1], kept_slots[name])
        return np.flatnonzero(remains)

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.convs)} layers with weights, {self.macs / 1e6:.2f} M MACs, "
            f"{self.parameters} parameters, {sum(group.prunable for group in self.groups)} prunable channel groups"
        )


def is_depthwise(weight_shape: tuple[int, ...], groups: int) -> bool:
    """Whether every output channel has one input channel of its own; weight: `out x in/groups x kh x kw`."""
    return weight_shape[1] == 1 and weight_shape[0] == groups > 1


def _only_moves(layer: Layer) -> bool:
    """Whether every value that the layer writes is one that it reads."""
    return isinstance(layer, Gather | Shuffle) or (isinstance(layer, Pool) and layer.kind == "max")
