"""Random integer programs for the tests of everything that runs them, and a builder for particular ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from automc.compression.operations import (
    MULTIPLIER_RANGE,
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
from automc.compression.program import Program

Pair = tuple[int, int]


class Builder:
    """Builds a program step by step; each method returns the name of the tensor that it writes.

    Weights, biases, tables, zero-points and bounds are drawn from `random`; multipliers are such that results spread
    over the stored range and some are clamped. With `wide`, biases are near the limits of int32, so that accumulators
    leave the integers that float32 holds.
    """

    def __init__(self, random: np.random.Generator, shape: tuple[int, int, int], bits: int = 8, wide: bool = False):
        self.random = random
        self.wide = wide
        self.tensors: dict[str, Tensor] = {}
        self.operations: list[Operation] = []
        self.input = self._tensor(shape, bits)
        table = random.integers(0, 2**bits, (shape[0], 256), dtype=np.uint8)
        self.operations.append(Quantise(self.input, table))

    def convolve(
        self,
        source: str,
        outputs: int,
        kernel: Pair = (3, 3),
        stride: Pair = (1, 1),
        padding: Pair = (1, 1),
        dilation: Pair = (1, 1),
        groups: int = 1,
        weight_bits: int = 8,
        bits: int = 8,
        residual: str | None = None,
        gate: str | None = None,
        encoding: str = "dense",
    ) -> str:
        """A convolution; a `residual` must have the shape of what it writes. Encodings that skip zeros get many."""
        given = self.tensors[source]
        height, width = (
            (length + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
            for axis, length in enumerate((given.height, given.width))
        )
        target = self._tensor((outputs, height, width), bits)
        low, high = self._bounds(target)
        if gate is not None:
            high = max(high, self.tensors[target].zero_point)
        weight, bias, multiplier = self._weights(given, outputs, kernel, groups, weight_bits, 2.0**bits)
        if encoding in ("sparse", "blocks"):
            weight[:, :: 2 if encoding == "sparse" else 1, ::2] = 0
            weight[: outputs // 2, : given.channels // 2] = 0
        residual_multiplier = 0.0
        if residual is not None:
            residual_multiplier = 2.0**bits / 2.0 ** self.tensors[residual].bits * self.random.uniform(0.3, 1.5)
        self.operations.append(
            Convolve(
                target, source, weight, weight_bits, bias, multiplier, stride, padding, dilation, groups,
                low, high, residual, residual_multiplier, gate, encoding,
            )
        )  # fmt: skip
        return target

    def sum(self, first: str, second: str, bits: int = 8) -> str:
        """Two tensors of one shape added."""
        target = self._tensor(self.tensors[first].shape, bits)
        factors = [
            2.0**bits / 2.0 ** self.tensors[name].bits * self.random.uniform(0.3, 1.2) for name in (first, second)
        ]
        self.operations.append(Sum(target, first, second, (factors[0], factors[1]), *self._bounds(target)))
        return target

    def lookup(self, source: str, bits: int = 8) -> str:
        """A function of each value that is no clamp."""
        given = self.tensors[source]
        target = self._tensor(given.shape, bits)
        table = self.random.integers(0, 2**bits, given.limit + 1, dtype=np.uint8)
        self.operations.append(Lookup(target, source, table))
        return target

    def scale(self, source: str, gains: str, bits: int = 8) -> str:
        """Channels times gains, a tensor `channels x 1 x 1`."""
        target = self._tensor(self.tensors[source].shape, bits)
        limits = self.tensors[source].limit * self.tensors[gains].limit
        multiplier = min(2.0**bits / limits * self.random.uniform(0.5, 2), 2.0**8)
        self.operations.append(Scale(target, source, gains, multiplier, *self._bounds(target)))
        return target

    def shuffle(self, source: str, factor: int) -> str:
        """Channels to pixels, `factor x factor` at a time."""
        given = self.tensors[source]
        shape = (given.channels // factor**2, given.height * factor, given.width * factor)
        target = self._tensor(shape, given.bits)
        self._store_alike(target, given)
        self.operations.append(Shuffle(target, source, factor))
        return target

    def rank(self, source: str, count: int) -> str:
        """A gate for the `count` greatest of a tensor `channels x 1 x 1`."""
        target = self._tensor(self.tensors[source].shape, 1)
        self.tensors[target] = Tensor(target, *self.tensors[source].shape, 1, 1.0, 0)
        self.operations.append(Rank(target, source, count))
        return target

    def join(self, parts: Sequence[str], bits: int = 8) -> str:
        """Tensors of one size concatenated; the first is copied, by the multiplier 1.0, if it has `bits`."""
        first = self.tensors[parts[0]]
        channels = sum(self.tensors[part].channels for part in parts)
        target = self._tensor((channels, first.height, first.width), bits)
        multipliers = [2.0**bits / 2.0 ** self.tensors[part].bits * self.random.uniform(0.5, 1.5) for part in parts]
        if first.bits == bits:
            self._store_alike(target, first)
            multipliers[0] = 1.0
        self.operations.append(Join(target, tuple(parts), tuple(multipliers)))
        return target

    def select(self, source: str, index: Sequence[int], stride: int = 1) -> str:
        """Channels by index, -1 for zeros, of every `stride`-th pixel."""
        given = self.tensors[source]
        target = self._tensor((len(index), -(-given.height // stride), -(-given.width // stride)), given.bits)
        self._store_alike(target, given)
        self.operations.append(Select(target, source, tuple(int(channel) for channel in index), stride))
        return target

    def pool(
        self, source: str, kind: str, kernel: Pair, stride: Pair = (1, 1), padding: Pair = (0, 0), bits: int = 8
    ) -> str:
        """A mean, into `bits`, or a maximum, in the source's."""
        given = self.tensors[source]
        height, width = (
            (length + 2 * padding[axis] - kernel[axis]) // stride[axis] + 1
            for axis, length in enumerate((given.height, given.width))
        )
        target = self._tensor((given.channels, height, width), given.bits if kind == "max" else bits)
        if kind == "max":
            self._store_alike(target, given)
        multiplier = 2.0**bits / 2.0**given.bits / (kernel[0] * kernel[1]) * self.random.uniform(0.7, 1.5)
        low, high = self._bounds(self.tensors[target])
        self.operations.append(
            Pool(target, source, "max" if kind == "max" else "mean", kernel, stride, padding, multiplier, low, high)
        )
        return target

    def finish(self, source: str, outputs: int = 10, weight_bits: int = 8) -> Program:
        """The program that ends with a dense layer over all of `source`."""
        given = self.tensors[source]
        kernel = (given.height, given.width)
        weight, bias, multiplier = self._weights(given, outputs, kernel, 1, weight_bits, 10.0)
        self.operations.append(
            Convolve("logits", source, weight, weight_bits, bias, multiplier, (1, 1), (0, 0), (1, 1), 1, 0, 0)
        )
        return Program("random", self.tensors, tuple(self.operations))

    def finish_map(self, source: str) -> Program:
        """The program whose results are all values of `source`."""
        self.operations.append(Dequantise("map", source))
        return Program("random", self.tensors, tuple(self.operations))

    def mean(self, source: str, channels: int, bits: int = 8) -> str:
        """A vector of `channels`, from the mean of every channel of `source`."""
        given = self.tensors[source]
        vector = self.pool(source, "mean", (given.height, given.width))
        return self.convolve(vector, channels, (1, 1), padding=(0, 0), bits=bits)

    def _tensor(self, shape: tuple[int, int, int], bits: int) -> str:
        name = f"tensor{len(self.tensors)}"
        zero_point = int(self.random.integers(0, 2**bits)) if self.random.random() < 0.5 else 0
        self.tensors[name] = Tensor(name, *shape, bits, float(self.random.uniform(0.01, 0.1)), zero_point)
        return name

    def _store_alike(self, name: str, source: Tensor) -> None:
        shape = self.tensors[name].shape
        self.tensors[name] = Tensor(name, *shape, source.bits, source.scale, source.zero_point)

    def _bounds(self, target: Tensor | str) -> Pair:
        """All that can be stored, from the zero-point as after ReLU, or with an upper clamp as after ReLU6."""
        tensor = self.tensors[target] if isinstance(target, str) else target
        low = tensor.zero_point if self.random.random() < 0.5 else 0
        high = int(self.random.integers(max(low, tensor.limit // 2), tensor.limit + 1))
        return low, high if self.random.random() < 0.3 else tensor.limit

    def _weights(
        self, source: Tensor, outputs: int, kernel: Pair, groups: int, bits: int, spread: float
    ) -> tuple[NDArray[np.int8], NDArray[np.int32], NDArray[np.float32]]:
        largest = 2 ** (bits - 1) - 1
        shape = (outputs, source.channels // groups, *kernel)
        weight = self.random.integers(-largest, largest + 1, shape, dtype=np.int8)
        if bits == 1:
            weight = self.random.choice(np.array([-1, 1], np.int8), shape)
        elif outputs > 4:
            weight[self.random.integers(0, outputs)] = 0  # a channel of zeros occurs in pruned networks
        deviation = np.sqrt(np.square(weight.astype(np.float64)).sum((1, 2, 3)) + 1) * 2.0**source.bits / 5
        bias = np.rint(self.random.normal(0, 0.5, outputs) * deviation)
        usual = (source.zero_point + source.limit // 2) // 2  # about the mean of what is stored
        bias -= usual * weight.sum((1, 2, 3), dtype=np.int64)
        if self.wide:
            bias = self.random.choice([-1, 1], outputs) * self.random.uniform(2**20, 2**30, outputs)
            deviation = np.abs(bias)
        multiplier = np.clip(spread / 4 / deviation * self.random.uniform(0.3, 3.0, outputs), *MULTIPLIER_RANGE)
        return weight, bias.astype(np.int32), multiplier.astype(np.float32)


def random_program(random: np.random.Generator, steps: int = 6, wide: bool = False) -> Program:
    """A small program that begins with a convolution and goes on with `steps` random operations of every kind.

    Of four one ends in a map, the others in logits.
    """
    shape = (int(random.integers(1, 5)), int(random.integers(6, 14)), int(random.integers(6, 14)))
    builder = Builder(random, shape, _bits(random), wide)
    current = _convolution(builder, builder.input)
    for _ in range(steps):
        kind = random.choice(list(_STEPS))
        current = _STEPS[str(kind)](builder, current)
    if random.random() < 0.25:
        return builder.finish_map(current)
    return builder.finish(current, int(random.integers(5, 12)), _bits(random))


def random_pixels(random: np.random.Generator, program: Program, count: int) -> NDArray[np.uint8]:
    """Images for `program`: noise, and the two that are all black and all white."""
    shape = (count, *program.image_shape)
    pixels = random.integers(0, 256, shape, dtype=np.uint8)
    pixels[0] = 0
    pixels[-1] = 255
    return pixels


def _bits(random: np.random.Generator) -> int:
    """Few bits are rare, since little is left to be seen behind a tensor of one bit."""
    return int(random.choice([1, 2, 3, 4, 5, 6, 7, *[8] * 13]))


def _convolution(builder: Builder, source: str, groups: int = 1, outputs: int | None = None) -> str:
    random, given = builder.random, builder.tensors[source]
    kernel = (int(random.integers(1, 9)), int(random.integers(1, 6)))
    padding = (int(random.integers(0, 3)), int(random.integers(0, 3)))
    dilation = (int(random.integers(1, 3)), int(random.integers(1, 3)))
    if any(
        length + 2 * around < step * (taps - 1) + 1
        for length, around, step, taps in zip(given.shape[1:], padding, dilation, kernel, strict=True)
    ):
        kernel, padding, dilation = (3, 3), (1, 1), (1, 1)
    stride = (int(random.integers(1, 3)), int(random.integers(1, 3)))
    count = outputs if outputs is not None else int(random.integers(3, 20))
    return builder.convolve(source, count, kernel, stride, padding, dilation, groups, _bits(random), _bits(random))


def _depthwise(builder: Builder, source: str) -> str:
    channels = builder.tensors[source].channels
    return _convolution(builder, source, channels, channels * int(builder.random.integers(1, 3)))


def _grouped(builder: Builder, source: str) -> str:
    even = builder.convolve(source, 4, (1, 1), padding=(0, 0), bits=_bits(builder.random))
    return _convolution(builder, even, 2, 2 * int(builder.random.integers(1, 7)))


def _residual(builder: Builder, source: str) -> str:
    channels = builder.tensors[source].channels
    inner = builder.convolve(source, channels + 1, weight_bits=_bits(builder.random), bits=_bits(builder.random))
    return builder.convolve(inner, channels, bits=_bits(builder.random), residual=source)


def _sum(builder: Builder, source: str) -> str:
    channels = builder.tensors[source].channels
    other = builder.convolve(source, channels, (1, 1), padding=(0, 0), bits=_bits(builder.random))
    return builder.sum(source, other, _bits(builder.random))


def _join(builder: Builder, source: str) -> str:
    other = builder.convolve(source, int(builder.random.integers(1, 5)), bits=_bits(builder.random))
    keeps = builder.random.random() < 0.5
    return builder.join([source, other], builder.tensors[source].bits if keeps else _bits(builder.random))


def _select(builder: Builder, source: str) -> str:
    index = builder.random.integers(-1, builder.tensors[source].channels, int(builder.random.integers(4, 20)))
    return builder.select(source, index.tolist(), int(builder.random.integers(1, 3)))


def _pool(builder: Builder, source: str) -> str:
    random, given = builder.random, builder.tensors[source]
    kernel = (int(random.integers(1, min(4, given.height) + 1)), int(random.integers(1, min(4, given.width) + 1)))
    padding = (int(random.integers(0, kernel[0] // 2 + 1)), int(random.integers(0, kernel[1] // 2 + 1)))
    stride = (int(random.integers(1, 3)), int(random.integers(1, 3)))
    return builder.pool(source, str(random.choice(["mean", "max"])), kernel, stride, padding, _bits(random))


def _lookup(builder: Builder, source: str) -> str:
    return builder.lookup(source, _bits(builder.random))


def _scale(builder: Builder, source: str) -> str:
    gains = builder.mean(source, builder.tensors[source].channels, _bits(builder.random))
    return builder.scale(source, gains, _bits(builder.random))


def _shuffle(builder: Builder, source: str) -> str:
    if max(builder.tensors[source].shape[1:]) > 16:  # lest the program grows with every step
        return _pool(builder, source)
    factor = int(builder.random.integers(2, 4))
    channels = factor**2 * int(builder.random.integers(1, 12 // factor))
    wide = builder.convolve(source, channels, (1, 1), padding=(0, 0), bits=_bits(builder.random))
    return builder.shuffle(wide, factor)


def _gated(builder: Builder, source: str) -> str:
    random = builder.random
    depthwise = random.random() < 0.3
    outputs = builder.tensors[source].channels if depthwise else int(random.integers(2, 40))
    gate = builder.rank(builder.mean(source, outputs, _bits(random)), int(random.integers(1, outputs + 1)))
    groups = outputs if depthwise else 1
    return builder.convolve(source, outputs, groups=groups, weight_bits=_bits(random), bits=_bits(random), gate=gate)


def _encoded(builder: Builder, source: str) -> str:
    random = builder.random
    encoding, groups = str(random.choice(["codebook", "sparse", "blocks"])), 1
    if encoding != "blocks" and random.random() < 0.5:
        groups = int(random.integers(2, 5))
        source = builder.convolve(source, groups * int(random.integers(1, 9)), (1, 1), padding=(0, 0))
    outputs, bits = groups * int(random.integers(8, 40) // groups), int(random.integers(2, 9))
    return builder.convolve(source, outputs, groups=groups, weight_bits=bits, encoding=encoding)


_STEPS = {
    "convolve": _convolution,
    "depthwise": _depthwise,
    "grouped": _grouped,
    "residual": _residual,
    "sum": _sum,
    "join": _join,
    "select": _select,
    "pool": _pool,
    "lookup": _lookup,
    "scale": _scale,
    "shuffle": _shuffle,
    "gated": _gated,
    "encoded": _encoded,
}
