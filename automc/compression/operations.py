"""The operations of an integer program, the tensors between them, and the rules that make their arithmetic one meaning.

Arithmetic, the same on every target: an int32 accumulator (bias included) becomes binary32, is multiplied once by a
binary32 number, clamped, rounded to the nearest even integer, and the zero-point is added. Stored values are unsigned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from automc.errors import InvalidProgram

MULTIPLIER_RANGE = (2.0**-30, 2.0**8)  # so that no product is subnormal, and flushing subnormals changes nothing

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Tensor:
    """A stored tensor: values in [0, 2^bits - 1]; the real value is `scale * (stored - zero_point)`.

    Padding around it holds the zero-point.
    """

    name: str
    channels: int
    height: int
    width: int
    bits: int
    scale: float
    zero_point: int

    @property
    def size(self) -> int:
        return self.channels * self.height * self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def limit(self) -> int:
        """The largest value that can be stored."""
        return (1 << self.bits) - 1

    def check(self) -> None:
        """Raise `InvalidProgram` where the tensor cannot exist."""
        _require(min(self.shape) >= 1, f"the shape {self.shape} has no elements")
        _require(1 <= self.bits <= 8, f"bits must be 1 to 8. Got {self.bits} instead.")
        _require(0 < self.scale < np.inf, f"the scale must be positive and finite. Got {self.scale} instead.")
        _require(0 <= self.zero_point <= self.limit, f"the zero-point {self.zero_point} is outside [0, {self.limit}]")


@dataclass(frozen=True, eq=False)
class Operation:
    """One step; it writes the tensor `target`."""

    target: str

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensors that it reads."""
        raise NotImplementedError

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise `InvalidProgram` where the operation breaks a rule; its sources are known to exist."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Quantise(Operation):
    """uint8 pixels to the first tensor: `target[c] = table[c][pixel[c]]`. table: `channels x 256` uint8."""

    table: NDArray[np.uint8]

    @property
    def sources(self) -> tuple[str, ...]:
        return ()

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        target = tensors[self.target]
        _array("table", self.table, np.uint8, (target.channels, 256))
        _require(int(self.table.max()) <= target.limit, f"the table has values above {target.limit}")


@dataclass(frozen=True, eq=False)
class Convolve(Operation):
    """Convolution, and the dense layer as the one whose kernel covers its input.

    `acc = bias[o] + sum weight[o] * source`, over stored values: the bias holds `-zero_point * sum(weight[o])`.
    `v = float32(acc) * multiplier[o]`, plus, with a residual, `float32(residual - its zero_point) *
    residual_multiplier`, each operation rounded to binary32. The target is `rint(clamp(v, low - z, high - z)) + z` with
    the target's zero-point `z`. The program's last convolution writes `v` itself: its target is no stored tensor.

    weight: `out x in/groups x kh x kw` int8 in +-(2^(weight_bits-1) - 1), bias: `out` int32, multiplier: `out` float32.
    """

    source: str
    weight: Int8
    weight_bits: int
    bias: Int32
    multiplier: Float32
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    low: int
    high: int
    residual: str | None = None
    residual_multiplier: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "residual_multiplier", _binary32(self.residual_multiplier))

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,) if self.residual is None else (self.source, self.residual)

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[0])

    @property
    def kernel(self) -> tuple[int, int]:
        return int(self.weight.shape[2]), int(self.weight.shape[3])

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        source = tensors[self.source]
        _require(self.weight.ndim == 4 and self.weight.size > 0, f"the weight's shape is {self.weight.shape}")
        outputs = self.outputs
        fits = self.groups >= 1 and outputs % self.groups == 0 and self.weight.shape[1] * self.groups == source.channels
        _require(
            fits, f"a weight of {self.weight.shape} in {self.groups} groups does not fit {source.channels} channels"
        )
        _array("weight", self.weight, np.int8, self.weight.shape)
        _array("bias", self.bias, np.int32, (outputs,))
        _array("multiplier", self.multiplier, np.float32, (outputs,))
        _multipliers(self.multiplier.tolist())
        _require(2 <= self.weight_bits <= 8, f"weight_bits must be 2 to 8. Got {self.weight_bits} instead.")
        magnitude, largest = np.abs(self.weight.astype(np.int64)), (1 << (self.weight_bits - 1)) - 1
        _require(int(magnitude.max()) <= largest, f"weights of {self.weight_bits} bits must be within +-{largest}")
        reach = int((np.abs(self.bias.astype(np.int64)) + magnitude.sum((1, 2, 3)) * source.limit).max())
        _require(reach < 2**31, f"an accumulator may reach {reach}, which is beyond int32")
        size = window_counts(source, self.kernel, self.stride, self.padding, self.dilation)
        if self.target in tensors:
            _shape(tensors[self.target], (outputs, *size))
            _bounds(tensors[self.target], self.low, self.high)
        else:
            _require(size == (1, 1), f"logits must be of 1 x 1 pixel. Got {size} instead.")
            _require(self.residual is None, "logits cannot have a residual")
        if self.residual is not None:
            _shape(tensors[self.residual], (outputs, *size))
            _multipliers([self.residual_multiplier])


@dataclass(frozen=True, eq=False)
class Sum(Operation):
    """Two tensors added: `v = float32(a - za) * ma + float32(b - zb) * mb`, then as in `Convolve`."""

    first: str
    second: str
    multipliers: tuple[float, float]
    low: int
    high: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "multipliers", tuple(map(_binary32, self.multipliers)))

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.first, self.second)

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        target = tensors[self.target]
        for name in self.sources:
            _shape(target, tensors[name].shape)
        _multipliers(self.multipliers)
        _bounds(target, self.low, self.high)


@dataclass(frozen=True, eq=False)
class Join(Operation):
    """Concatenation: each source is requantised by its multiplier, `rint(clamp(float32(a - za) * m, ...)) + z`.

    The clamp is to the target's stored range. A source of the target's scale, zero-point and bits has the multiplier
    1.0 and is copied.
    """

    parts: tuple[str, ...]
    multipliers: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "multipliers", tuple(map(_binary32, self.multipliers)))

    @property
    def sources(self) -> tuple[str, ...]:
        return self.parts

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        counts = len(self.parts), len(self.multipliers)
        _require(counts[0] == counts[1] >= 1, f"{counts[0]} parts but {counts[1]} multipliers")
        parts = [tensors[name] for name in self.parts]
        for part in parts:
            _shape(tensors[self.target], (sum(one.channels for one in parts), part.height, part.width))
        _multipliers(self.multipliers)


@dataclass(frozen=True, eq=False)
class Select(Operation):
    """Channels by `index`, -1 for the zero-point, of every `stride`-th pixel. Values are stored as the source's are."""

    source: str
    index: tuple[int, ...]
    stride: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        source = tensors[self.source]
        _require(self.stride >= 1, f"the stride must be positive. Got {self.stride} instead.")
        inside = all(-1 <= channel < source.channels for channel in self.index)
        _require(inside, f"the index leaves the source's {source.channels} channels")
        size = (-(-length // self.stride) for length in (source.height, source.width))
        _shape(tensors[self.target], (len(self.index), *size))
        _same_storage(tensors[self.target], source)


@dataclass(frozen=True, eq=False)
class Pool(Operation):
    """Windows of the source: their maximum, or `acc = sum (source - zero_point)`, then as in `Convolve`.

    In a mean, padding counts as zeros and the division is part of the multiplier. In a maximum it is left out, values
    are stored as the source's are, and `multiplier`, `low` and `high` have no meaning.
    """

    source: str
    kind: Literal["mean", "max"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    multiplier: float
    low: int
    high: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "multiplier", _binary32(self.multiplier))

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        source, target = tensors[self.source], tensors[self.target]
        # With more padding than half a window, a window may lie outside the source, and has no maximum.
        halves = all(2 * padding <= kernel for padding, kernel in zip(self.padding, self.kernel, strict=True))
        _require(halves, f"padding {self.padding} is more than half of the window {self.kernel}")
        size = window_counts(source, self.kernel, self.stride, self.padding)
        _shape(target, (source.channels, *size))
        if self.kind == "max":
            _same_storage(target, source)
            return
        _require(self.kind == "mean", f"kind must be mean or max. Got {self.kind} instead.")
        reach = self.kernel[0] * self.kernel[1] * source.limit
        _require(reach < 2**31, f"an accumulator may reach {reach}, which is beyond int32")
        _multipliers([self.multiplier])
        _bounds(target, self.low, self.high)


def window_counts(
    source: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> tuple[int, int]:
    """How many windows there are along height and width. Raises `InvalidProgram` where there are none."""
    positive = min(*kernel, *stride, *dilation) >= 1 and min(padding) >= 0
    _require(positive, "kernel, stride and dilation must be positive, padding not negative")
    height, width = (
        (length + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis, length in enumerate((source.height, source.width))
    )
    _require(min(height, width) >= 1, f"the window is larger than {source.name}, which is {source.shape}")
    return height, width


def _binary32(value: float) -> float:
    return float(np.float32(value))


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise InvalidProgram(fault)


def _array(name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    right = array.dtype == dtype and array.shape == shape
    _require(right, f"{name} must be {dtype.__name__} of {shape}. Got {array.dtype} of {array.shape} instead.")


def _multipliers(values: Iterable[float]) -> None:
    low, high = MULTIPLIER_RANGE
    for value in values:
        _require(low <= value <= high, f"the multiplier {value} is outside [2^-30, 2^8]")


def _shape(tensor: Tensor, shape: tuple[int, ...]) -> None:
    _require(tensor.shape == shape, f"{tensor.name} is {tensor.shape}, but {shape} is written")


def _bounds(target: Tensor, low: int, high: int) -> None:
    _require(0 <= low <= high <= target.limit, f"low {low} and high {high} must be ascending in [0, {target.limit}]")


def _same_storage(target: Tensor, source: Tensor) -> None:
    same = (target.bits, target.scale, target.zero_point) == (source.bits, source.scale, source.zero_point)
    _require(same, f"{target.name} must have the bits, scale and zero-point of {source.name}")
