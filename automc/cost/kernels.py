"""The kernels that a compressed network calls, from its shapes alone: what a latency table has rows for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from automc.choices import Choice, Codebook, Gated, LowRank, Sparse, Uniform
from automc.compression.policy import Policy
from automc.compression.windows import Encoding
from automc.network.graph import Add, Concat, Conv, Curve, Gather, Input, Layer, Multiply, Network, Pool, Shuffle

OperationName = Literal[
    "quantise",
    "convolve",
    "depthwise",
    "sum",
    "join",
    "select",
    "pool_mean",
    "pool_max",
    "lookup",
    "scale",
    "shuffle",
    "rank",
    "dequantise",
]
OPERATIONS: tuple[str, ...] = get_args(OperationName)
ENCODINGS: tuple[str, ...] = get_args(Encoding)


class Axis(NamedTuple):
    """A kernel along height or width: how many pixels a window takes, from end to end how many, and `stride` apart how
    many `windows` there are. What does not follow from them, the padding, is as usual.
    """

    taps: int
    span: int
    stride: int
    windows: int

    @property
    def padding(self) -> int:
        """Half of the window; none where windows do not overlap, or where one window is the whole source."""
        return 0 if self.span == self.stride or self.windows == 1 else (self.span - 1) // 2

    @property
    def source(self) -> int:
        """`stride` pixels for each window where they fit so, else as few as give that many windows."""
        full, least = self.windows * self.stride, (self.windows - 1) * self.stride + self.span - 2 * self.padding
        return full if least <= full < least + self.stride else least

    @property
    def read(self) -> int:
        """How many of the source's pixels some window takes."""
        return min(self.source, self.windows * self.taps)


class Kernel(NamedTuple):
    """One piece of compiled work, as far as its time depends on it.

    `height` and `width` are the output's, `inputs` and `outputs` count channels, `activation_bits` are the source's.
    What does not matter to an operation is 0 (bits of a sum) or 1 (kernel, stride and dilation of a sum). `encoding` is
    how weights are stored, `density_percent` how many of them are not zero where that is known in advance.
    """

    operation: OperationName
    height: int
    width: int
    inputs: int
    outputs: int
    kernel_height: int = 1
    kernel_width: int = 1
    stride_height: int = 1
    stride_width: int = 1
    weight_bits: int = 0
    activation_bits: int = 0
    residual: bool = False
    encoding: Encoding = "dense"
    density_percent: int = 100
    dilation_height: int = 1
    dilation_width: int = 1

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from others: its fields, the dilation only where it has one, as tables began without."""
        return self if self.dilation_height > 1 or self.dilation_width > 1 else self[:-2]

    @property
    def weights(self) -> int:
        """How many weights it has."""
        if self.weight_bits == 0:
            return 0
        inputs = 1 if self.operation == "depthwise" else self.inputs
        return self.outputs * inputs * self.kernel_height * self.kernel_width

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Its windows along height and width."""
        rows, columns = self.kernel_height, self.kernel_width
        return (
            Axis(rows, self.dilation_height * (rows - 1) + 1, self.stride_height, self.height),
            Axis(columns, self.dilation_width * (columns - 1) + 1, self.stride_width, self.width),
        )

    @property
    def source_size(self) -> tuple[int, int]:
        """Height and width of what it reads."""
        if self.operation == "shuffle":
            return self.height // self.kernel_height, self.width // self.kernel_width
        rows, columns = self.axes
        return rows.source, columns.source

    @property
    def source_pixels(self) -> int:
        """How many pixels of what it reads are looked at, each counted once."""
        (height, width), (rows, columns) = self.source_size, self.axes
        return min(height, rows.read) * min(width, columns.read)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image, as `Program.macs_of` counts them."""
        return self.weights * self.height * self.width * self.multiplied_percent // 100

    @property
    def multiplied_percent(self) -> int:
        """How many of its weights are multiplied by; single zeros, which only targets without vectors skip, count."""
        return self.density_percent if self.encoding == "blocks" else 100

    @property
    def dense(self) -> Kernel:
        """The kernel whose weights are stored as they are."""
        return self._replace(encoding="dense", density_percent=100)

    @property
    def geometry(self) -> Kernel:
        """The kernel without its channels, bits and residual; how weights are stored is part of it."""
        return self._replace(inputs=0, outputs=0, weight_bits=0, activation_bits=0, residual=False)

    @property
    def work(self) -> int:
        """What its time is roughly proportional to: MACs, or elements touched where there are no weights."""
        return self.macs or self.height * self.width * self.outputs * self.kernel_height * self.kernel_width


def partial_sum_growth(weight_bits: int, activation_bits: int) -> int:
    """How fast sums of products grow, in bits: what decides which instructions a convolution gets.

    At 11 bits and below, 16-bit partial sums take all the products of a window's row, and nothing changes any more.
    """
    return max(weight_bits + activation_bits, 11)


class Step(NamedTuple):
    """What one layer calls: `kernel`, `times` in a row (once for each group of a grouped convolution).

    `choice` is what was done to its weights beyond rounding them, of which `kernel` tells the bits.
    """

    layer: str
    kernel: Kernel
    times: int
    choice: Choice | None = None


class Part(NamedTuple):
    """One layer's `steps`, and what they depend on.

    That is how many slots the channel `groups` keep that it reads and writes, the choice for its own weights, and the
    bits of the `tensor` that it reads, which is empty where they do not matter.
    """

    layer: str
    groups: tuple[str, ...]
    tensor: str
    steps: _StepsOf


class KernelPlan:
    """Everything about a network's kernels that no policy changes, so that one policy takes microseconds.

    Slots leave a group in the `order` that pruning uses (first leaves first). Without it they leave from slot 0 up,
    which gives the same kernels unless the network splits the channels of a group.
    """

    def __init__(self, network: Network, order: Mapping[str, NDArray[np.int64]] | None = None) -> None:
        self.network = network
        self._slots = {group.name: group.slots for group in network.groups if group.prunable}
        self._kept = _KeptChannels(network, order or {})
        absorbed = set(network.fused_sums.values())
        parts = [
            self._part(layer, residual=layer.name in absorbed)
            for layer in network.layers
            if layer.name not in network.fused_sums
        ]
        if not network.writes_logits:
            parts.append(self._plain(network.output, "dequantise"))
        self.parts = tuple(parts)  # in the order of computation; a fused sum belongs to its convolution

    def steps(self, policy: Policy) -> tuple[Step, ...]:
        """What each layer calls under `policy`, in the order of computation."""
        counts = self.counts(policy)
        return tuple(chain.from_iterable([part.steps(policy, counts) for part in self.parts]))

    def counts(self, policy: Policy) -> dict[str, int]:
        """How many slots each prunable group keeps under `policy`."""
        return {name: policy.kept_count(name, slots) for name, slots in self._slots.items()}

    def steps_of(self, part: Part, policy: Policy) -> tuple[Step, ...]:
        """What one part calls under `policy`, of which only what the part depends on is looked at."""
        return part.steps(policy, {name: policy.kept_count(name, self._slots[name]) for name in part.groups})

    def _part(self, layer: Layer, residual: bool) -> Part:
        if isinstance(layer, Conv):
            return self._convolution(layer, residual)
        return self._plain(layer, *_without_weights(layer))

    def _plain(self, layer: Layer, operation: OperationName, kernel: Pair = (1, 1), stride: Pair = (1, 1)) -> Part:
        """One kernel without weights."""
        _, height, width = layer.shape
        read = layer.inputs[0] if layer.inputs and not isinstance(layer, Concat) else layer.name
        source, outputs = self._kept.of(read), self._kept.of(layer.name)

        def steps(policy: Policy, counts: Mapping[str, int]) -> tuple[Step, ...]:
            one = Kernel(operation, height, width, source(counts), outputs(counts), *kernel, *stride)
            return (Step(layer.name, one, 1),)

        return Part(layer.name, self._kept.groups_of(read, layer.name), "", steps)

    def _convolution(self, layer: Conv, residual: bool) -> Part:
        _, height, width = layer.shape
        source, outputs = self._kept.of(layer.inputs[0]), self._kept.of(layer.name)
        name, stored, kernel, stride = layer.name, self.network.storage[layer.inputs[0]], layer.kernel, layer.stride
        times = 1 if layer.is_depthwise else layer.groups
        map_size = self.network[layer.inputs[0]].shape[1:]

        def steps(policy: Policy, counts: Mapping[str, int]) -> tuple[Step, ...]:
            choice, written = policy.choice(name), outputs(counts) // times
            # A depthwise layer of one channel is like any other.
            operation: OperationName = "depthwise" if layer.is_depthwise and written > 1 else "convolve"
            whole = Kernel(
                operation,
                height,
                width,
                source(counts) // times,
                written,
                *kernel,
                *stride,
                choice.weight_bits,
                policy.bits_of(stored),
                residual,
                dilation_height=layer.dilation[0],
                dilation_width=layer.dilation[1],
            )
            if isinstance(choice, Uniform) and not choice.huffman:
                return (Step(name, whole, times),)
            return tuple(Step(name, *part, choice) for part in _parts(choice, whole, times, map_size))

        return Part(name, self._kept.groups_of(layer.inputs[0], name), stored, steps)


Pair = tuple[int, int]
_StepsOf = Callable[[Policy, Mapping[str, int]], tuple[Step, ...]]


def _parts(choice: Choice, whole: Kernel, times: int, map_size: tuple[int, int]) -> Iterator[tuple[Kernel, int]]:
    """The kernels of a layer whose weights are not simply rounded, each with how often it is called."""
    match choice:
        case Codebook():
            yield whole._replace(encoding="codebook"), times
        case Sparse():
            percent = max(1, round(100 * choice.density))
            encoding: Encoding = "blocks" if choice.pattern == "blocks" else "sparse"
            yield whole._replace(encoding=encoding, density_percent=percent), times
        case LowRank():
            rank = choice.rank(whole.outputs, whole.inputs * whole.kernel_height * whole.kernel_width)
            yield whole._replace(outputs=rank, residual=False), times
            last = Kernel("convolve", whole.height, whole.width, rank, whole.outputs, weight_bits=whole.weight_bits)
            yield last._replace(activation_bits=8, residual=whole.residual), times
        case Gated():
            # A whole vector of output channels is seldom closed, so that the layer counts as if all were open.
            inputs, outputs = whole.inputs * times, whole.outputs * times
            yield Kernel("pool_mean", 1, 1, inputs, inputs, *map_size), 1
            yield Kernel("convolve", 1, 1, inputs, outputs, weight_bits=8, activation_bits=8), 1
            yield Kernel("rank", 1, 1, outputs, outputs), 1
            yield whole, times
        case _:
            yield whole, times


class _KeptChannels:
    """How many channels of each tensor remain when the groups keep given numbers of slots."""

    def __init__(self, network: Network, order: Mapping[str, NDArray[np.int64]]) -> None:
        self._network = network
        self._age = {}  # per group: the position of each slot counted from the last to leave
        for group in network.groups:
            leaving = order.get(group.name, np.arange(group.slots))
            age = np.empty(group.slots, np.int64)
            age[leaving] = group.slots - 1 - np.arange(group.slots)
            self._age[group.name] = age

    def groups_of(self, *tensors: str) -> tuple[str, ...]:
        """The prunable groups that the channels of `tensors` belong to."""
        positions = np.unique(np.concatenate([self._network.channel_slots[tensor][:, 0] for tensor in tensors]))
        groups = [self._network.groups[position] for position in positions if position >= 0]
        return tuple(group.name for group in groups if group.prunable)

    def of(self, tensor: str) -> Callable[[Mapping[str, int]], int]:
        """The function from kept slots per group to the channels of `tensor`."""
        slots = self._network.channel_slots[tensor]
        fixed, parts = 0, []
        for position in np.unique(slots[:, 0]):
            mine = slots[slots[:, 0] == position, 1]
            group = self._network.groups[position] if position >= 0 else None
            if group is None or not group.prunable:
                fixed += len(mine)
                continue
            ages = np.bincount(self._age[group.name][mine], minlength=group.slots)
            parts.append((group.name, [0, *np.cumsum(ages).tolist()]))
        if fixed == 0 and len(parts) == 1:
            name, remaining = parts[0]
            return lambda counts: remaining[counts[name]]
        return lambda counts: fixed + sum(remaining[counts[name]] for name, remaining in parts)


def _without_weights(layer: Layer) -> tuple[OperationName, Pair, Pair]:
    match layer:
        case Input():
            return "quantise", (1, 1), (1, 1)
        case Add():
            return "sum", (1, 1), (1, 1)
        case Concat():
            return "join", (1, 1), (1, 1)
        case Gather():
            return "select", (1, 1), (layer.stride, layer.stride)
        case Pool():
            return ("pool_mean" if layer.kind == "mean" else "pool_max"), layer.kernel, layer.stride
        case Curve():
            return "lookup", (1, 1), (1, 1)
        case Multiply():
            return "scale", (1, 1), (1, 1)
        case Shuffle():
            return "shuffle", (layer.factor, layer.factor), (1, 1)
    raise TypeError(f"no kernel is known for a {type(layer).__name__}")
