"""What the operations of an integer program have in common: the tensors between them, and the rules that they check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automc.errors import InvalidProgram

MULTIPLIER_RANGE = (2.0**-30, 2.0**8)  # so that no product is subnormal, and flushing subnormals changes nothing


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
        require(min(self.shape) >= 1, f"the shape {self.shape} has no elements")
        require(1 <= self.bits <= 8, f"bits must be 1 to 8. Got {self.bits} instead.")
        require(0 < self.scale < np.inf, f"the scale must be positive and finite. Got {self.scale} instead.")
        require(0 <= self.zero_point <= self.limit, f"the zero-point {self.zero_point} is outside [0, {self.limit}]")


@dataclass(frozen=True, eq=False)
class Operation:
    """One step; it writes the tensor `target`, or as the program's last one float32 results of that name."""

    target: str

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensors that it reads."""
        raise NotImplementedError

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise `InvalidProgram` where the operation breaks a rule; its sources are known to exist."""
        raise NotImplementedError

    def results(self, tensors: Mapping[str, Tensor]) -> int:
        """How many float32 values it writes as the program's last operation."""
        raise NotImplementedError

    def largest_value(self, tensors: Mapping[str, Tensor], largest: Mapping[str, int]) -> int:
        """The largest value that it can store, given the `largest` value of each tensor before it."""
        return tensors[self.target].limit


def require(holds: bool, fault: str) -> None:
    """Raise `InvalidProgram` with the fault unless the rule holds."""
    if not holds:
        raise InvalidProgram(fault)


def require_array(name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """The array must have this type and shape."""
    right = array.dtype == dtype and array.shape == shape
    require(right, f"{name} must be {dtype.__name__} of {shape}. Got {array.dtype} of {array.shape} instead.")


def require_multipliers(values: Iterable[float]) -> None:
    """Every value must be a multiplier that all targets multiply by alike."""
    low, high = MULTIPLIER_RANGE
    for value in values:
        require(low <= value <= high, f"the multiplier {value} is outside [2^-30, 2^8]")


def require_shape(tensor: Tensor, shape: tuple[int, ...]) -> None:
    """The tensor must have the shape that is written to it."""
    require(tensor.shape == shape, f"{tensor.name} is {tensor.shape}, but {shape} is written")


def require_bounds(target: Tensor, low: int, high: int) -> None:
    """The clamp must lie in what the target stores."""
    require(0 <= low <= high <= target.limit, f"low {low} and high {high} must be ascending in [0, {target.limit}]")


def require_vector(tensor: Tensor, channels: int) -> None:
    """The tensor must hold one value for each of so many channels."""
    require(tensor.shape == (channels, 1, 1), f"{tensor.name} must be {channels} x 1 x 1. Got {tensor.shape} instead.")


def require_same_storage(target: Tensor, source: Tensor) -> None:
    """Values that are moved as they are must mean the same in both tensors."""
    same = (target.bits, target.scale, target.zero_point) == (source.bits, source.scale, source.zero_point)
    require(same, f"{target.name} must have the bits, scale and zero-point of {source.name}")


def binary32(value: float) -> float:
    """The nearest binary32 number."""
    return float(np.float32(value))
