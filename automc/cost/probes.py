"""Programs made for timing: each runs many kernels side by side, on weights and images of no meaning."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from automc.choices import Choice, Codebook, Gated, Sparse, Uniform
from automc.compression.coded import Coded, IntegerWeights
from automc.compression.gating import Responses, gate_of
from automc.compression.lower import Lowering
from automc.compression.methods import encode
from automc.compression.operations import (
    Convolve,
    Dequantise,
    Join,
    Lookup,
    Operation,
    Pool,
    Quantise,
    Rank,
    Scale,
    Select,
    Shuffle,
    Sum,
    Tensor,
)
from automc.compression.policy import Policy, kept_slots
from automc.compression.program import Program
from automc.compression.quantize import Grid, levels_of, nearest, weight_scales
from automc.cost.kernels import Kernel
from automc.network.graph import Conv, Network

_MULTIPLIER = 2.0**-10
_ENDS = ("quantise", "dequantise")
_IMAGES = 64  # that a gate of no meaning has seen
_NO_BITS = 8  # of the tensors of kernels whose time does not depend on bits


@dataclass(frozen=True, eq=False)
class Probe:
    """A Program, and which of its operations (by target) is which kernel."""

    program: Program
    kernels: dict[str, Kernel]

    @property
    def by_position(self) -> dict[int, Kernel]:
        """The kernels by the positions of their operations in the Program."""
        found = ((position, self.kernels.get(each.target)) for position, each in enumerate(self.program.operations))
        return {position: kernel for position, kernel in found if kernel is not None}


def probes_of(kernels: Iterable[Kernel], most: int) -> list[Probe]:
    """Programs that run all `kernels`, each at least once and at most `most` of them in one Program.

    Kernels share a Program if their sources have one size and one number of bits; 8 bits, which the dense network has,
    come first. A convolution with a residual brings the one without it along, whose output is its residual.
    """
    alike: dict[tuple[int, tuple[int, int]], list[Kernel]] = defaultdict(list)
    for kernel in sorted(set(kernels)):
        alike[kernel.activation_bits or _NO_BITS, kernel.source_size].append(kernel)
    probes = []
    for (bits, size), members in sorted(alike.items(), reverse=True):
        for start in range(0, len(members), most):
            part = members[start : start + most]
            inputs, results = ([kernel for kernel in part if kernel.operation == end] for end in _ENDS)
            firsts: list[Kernel | None] = [*inputs] or [None]
            inner = [kernel for kernel in part if kernel.operation not in _ENDS]
            # A Program reads one image and gives one result, so every further one needs a Program of its own.
            for first, last in zip_longest(firsts, results):
                probes.append(_Builder(size, bits, first).build(inner, last))
                inner = []
    return probes


def random_weights(
    random: np.random.Generator, shape: tuple[int, ...], bits: int
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Codes of `shape`, and the scale of each output channel, of Gaussian weights rounded as trained ones are.

    Which instructions a convolution gets follows from how large neighbouring weights are together.
    """
    drawn = torch.from_numpy(random.normal(size=shape).reshape(shape[0], -1))
    scale = weight_scales(drawn, bits)
    return nearest(drawn, scale, levels_of(bits)).to(torch.int8).numpy().reshape(shape), scale.numpy()


def random_program(network: Network, policy: Policy, seed: int) -> Program:
    """The Program of `policy` with random weights: it takes as long as one of trained weights, and says nothing."""
    random = np.random.default_rng(seed)
    slots = kept_slots(policy, network, {group.name: np.arange(group.slots) for group in network.groups})
    kept = {layer.name: network.kept_channels(layer.name, slots) for layer in network.layers}
    grids = {name: Grid(policy.bits_of(name), 1 / (1 << policy.bits_of(name)), 0) for name in network.stored_tensors}
    lowering = Lowering(network, kept, grids)
    for layer in network.layers:
        weights = None
        if isinstance(layer, Conv):
            outputs = len(kept[layer.name])
            groups = outputs if layer.is_depthwise else layer.groups
            shape = outputs, len(kept[layer.inputs[0]]) // groups, *layer.kernel
            weights = _random_layer(random, shape, groups, policy.choice(layer.name))
        lowering.add(layer, weights)
    return lowering.program()


def _random_layer(random: np.random.Generator, shape: tuple[int, ...], groups: int, choice: Choice) -> Coded:
    """A layer of Gaussian weights of about the length of trained ones, as `choice` leaves it."""
    if isinstance(choice, Uniform):
        codes, scale = random_weights(random, shape, choice.weight_bits)
        return Coded(IntegerWeights(codes, choice.weight_bits, scale / np.sqrt(codes[0].size), np.zeros(len(scale))))
    weight = torch.from_numpy(random.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)).reshape(groups, -1, *shape[1:])
    weight = weight.flatten(2)
    gram = torch.eye(weight.shape[2], dtype=torch.float64).expand(groups, -1, -1)
    coded = encode(weight, gram, (shape[2], shape[3]), choice)
    if isinstance(choice, Gated):
        seen = (torch.from_numpy(random.random((_IMAGES, count))) for count in (groups * shape[1], shape[0]))
        coded = replace(coded, gate=gate_of(Responses(*seen), choice.active(shape[0])))
    return coded


class _Builder:
    def __init__(self, size: tuple[int, int], bits: int, first: Kernel | None) -> None:
        self._random = np.random.default_rng(0)
        self._size = size
        self._bits = bits
        self._tensors: dict[str, Tensor] = {}
        self._operations: list[Operation] = []
        self._kernels: dict[str, Kernel] = {}
        self._sources: dict[int, str] = {}  # by their number of channels
        channels = first.inputs if first else 1
        name = self._tensor("image", channels, *size)
        table = np.tile(np.arange(256) >> (8 - bits), (channels, 1)).astype(np.uint8)
        self._operations.append(Quantise(name, table))
        if first:
            self._kernels[name] = first

    def build(self, kernels: Iterable[Kernel], last: Kernel | None) -> Probe:
        for kernel in kernels:
            self._add(kernel)
        if last:
            self._operations.append(Dequantise("result", self._source(last.inputs)))
            self._kernels["result"] = last
        else:
            weight = np.ones((1, self._tensors["image"].channels, 1, 1), np.int8)
            self._operations.append(self._convolution("result", "image", weight, self._size, (0, 0), 8, None))
        program = Program(f"probe of {len(self._kernels)} kernels", self._tensors, tuple(self._operations))
        return Probe(program, self._kernels)

    def _add(self, kernel: Kernel) -> str:
        for name, known in self._kernels.items():
            if known == kernel:
                return name
        residual = self._add(kernel._replace(residual=False)) if kernel.residual else None
        source = self._source(kernel.inputs // 2 if kernel.operation == "join" else kernel.inputs)
        bits = 1 if kernel.operation == "rank" else self._bits
        name = self._tensor(f"kernel{len(self._kernels)}", kernel.outputs, kernel.height, kernel.width, bits)
        self._operations.append(self._operation(kernel, name, source, residual))
        self._kernels[name] = kernel
        return name

    def _operation(self, kernel: Kernel, target: str, source: str, residual: str | None) -> Operation:
        window, stride = _window(kernel), (kernel.stride_height, kernel.stride_width)
        rows, columns = kernel.axes
        padding = rows.padding, columns.padding
        high = self._tensors[target].limit
        match kernel.operation:
            case "convolve" | "depthwise":
                inputs = 1 if kernel.operation == "depthwise" else kernel.inputs
                shape = kernel.outputs, inputs, *window
                weights = _random_layer(self._random, shape, 1, _choice_of(kernel)).weights
                made = self._convolution(target, source, weights.codes, stride, padding, kernel.weight_bits, residual)
                dilation = (kernel.dilation_height, kernel.dilation_width)
                return replace(made, dilation=dilation, encoding=weights.encoding)
            case "sum":
                return Sum(target, source, source, (_MULTIPLIER, _MULTIPLIER), 0, high)
            case "select":
                index = tuple(range(min(kernel.inputs, kernel.outputs)))
                return Select(target, source, (*index, *[-1] * (kernel.outputs - len(index))), kernel.stride_height)
            case "join":
                rest = self._source(kernel.inputs - kernel.inputs // 2)
                return Join(target, (source, rest), (_MULTIPLIER, _MULTIPLIER))
            case "pool_mean" | "pool_max":
                kind: Literal["mean", "max"] = "mean" if kernel.operation == "pool_mean" else "max"
                return Pool(target, source, kind, window, stride, padding, _MULTIPLIER, 0, high)
            case "lookup":
                return Lookup(target, source, np.arange(high + 1, dtype=np.uint8))
            case "scale":
                return Scale(target, source, self._gains(source), _MULTIPLIER, 0, high)
            case "shuffle":
                return Shuffle(target, source, kernel.kernel_height)
            case "rank":
                return Rank(target, source, -(-kernel.outputs // 2))
        raise AssertionError(kernel.operation)

    def _convolution(
        self,
        target: str,
        source: str,
        weight: NDArray[np.int8],
        stride: tuple[int, int],
        padding: tuple[int, int],
        bits: int,
        residual: str | None,
    ) -> Convolve:
        outputs = len(weight)
        groups = self._tensors[source].channels // weight.shape[1]
        return Convolve(
            target=target,
            source=source,
            weight=weight,
            weight_bits=bits,
            bias=np.zeros(outputs, np.int32),
            multiplier=np.full(outputs, _MULTIPLIER, np.float32),
            stride=stride,
            padding=padding,
            dilation=(1, 1),
            groups=groups,
            low=0,
            high=(1 << self._bits) - 1,
            residual=residual,
            residual_multiplier=_MULTIPLIER if residual else 0.0,
        )

    def _source(self, channels: int) -> str:
        if channels == self._tensors["image"].channels:
            return "image"
        if channels not in self._sources:
            name = self._tensor(f"source{channels}", channels, *self._size)
            self._operations.append(Select(name, "image", (0,) * channels, 1))
            self._sources[channels] = name
        return self._sources[channels]

    def _gains(self, source: str) -> str:
        """The mean of each channel."""
        name = self._tensor(f"{source} gains", self._tensors[source].channels, 1, 1)
        if all(operation.target != name for operation in self._operations):
            high = self._tensors[name].limit
            self._operations.append(Pool(name, source, "mean", self._size, (1, 1), (0, 0), _MULTIPLIER, 0, high))
        return name

    def _tensor(self, name: str, channels: int, height: int, width: int, bits: int | None = None) -> str:
        self._tensors[name] = Tensor(name, channels, height, width, bits or self._bits, 1.0, 0)
        return name


def _choice_of(kernel: Kernel) -> Choice:
    """A choice that makes the kernel; how many entries a codebook has hardly matters to its time."""
    match kernel.encoding:
        case "codebook":
            return Codebook()
        case "sparse":
            return Sparse(density=kernel.density_percent / 100, weight_bits=kernel.weight_bits)
        case "blocks":
            return Sparse(density=kernel.density_percent / 100, pattern="blocks", weight_bits=kernel.weight_bits)
    return Uniform(weight_bits=kernel.weight_bits)


def _window(kernel: Kernel) -> tuple[int, int]:
    return kernel.kernel_height, kernel.kernel_width
