"""Operations that compute each value from those at its own place: tables, sums, products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.compression.tensors import (
    Operation,
    Tensor,
    binary32,
    require,
    require_array,
    require_bounds,
    require_multipliers,
    require_shape,
    require_vector,
)


@dataclass(frozen=True, eq=False)
class Quantise(Operation):
    """uint8 pixels to the first tensor: `target[c] = table[c][pixel[c]]`. table: `channels x 256` uint8."""

    table: NDArray[np.uint8]

    @property
    def sources(self) -> tuple[str, ...]:
        return ()

    def largest_value(self, tensors: Mapping[str, Tensor], largest: Mapping[str, int]) -> int:
        return int(self.table.max())

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        target = tensors[self.target]
        require_array("table", self.table, np.uint8, (target.channels, 256))
        _require_stored(self.table, target)


@dataclass(frozen=True, eq=False)
class Lookup(Operation):
    """Any function of one value: `target = table[source]`. table: `source.limit + 1` uint8."""

    source: str
    table: NDArray[np.uint8]

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    def largest_value(self, tensors: Mapping[str, Tensor], largest: Mapping[str, int]) -> int:
        return int(self.table[: largest[self.source] + 1].max())

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        source, target = tensors[self.source], tensors[self.target]
        require_array("table", self.table, np.uint8, (source.limit + 1,))
        _require_stored(self.table, target)
        require_shape(target, source.shape)


@dataclass(frozen=True, eq=False)
class Sum(Operation):
    """Two tensors added: `v = float32(a - za) * ma + float32(b - zb) * mb`, then as in `Convolve`."""

    first: str
    second: str
    multipliers: tuple[float, float]
    low: int
    high: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "multipliers", tuple(map(binary32, self.multipliers)))

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.first, self.second)

    def largest_value(self, tensors: Mapping[str, Tensor], largest: Mapping[str, int]) -> int:
        return self.high

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        target = tensors[self.target]
        for name in self.sources:
            require_shape(target, tensors[name].shape)
        require_multipliers(self.multipliers)
        require_bounds(target, self.low, self.high)


@dataclass(frozen=True, eq=False)
class Scale(Operation):
    """Every channel times its gain (Hu et al. 2018, squeeze and excitation). gains: a tensor `channels x 1 x 1`.

    `acc = (source - zs) * (gain[c] - zg)`, `v = float32(acc) * multiplier`, then as in `Convolve`.
    """

    source: str
    gains: str
    multiplier: float
    low: int
    high: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "multiplier", binary32(self.multiplier))

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source, self.gains)

    def largest_value(self, tensors: Mapping[str, Tensor], largest: Mapping[str, int]) -> int:
        return self.high

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        source, target = tensors[self.source], tensors[self.target]
        require_shape(target, source.shape)
        require_vector(tensors[self.gains], source.channels)
        require_multipliers([self.multiplier])
        require_bounds(target, self.low, self.high)


@dataclass(frozen=True, eq=False)
class Dequantise(Operation):
    """The results of a program whose answer is a map: `float32(source - zero_point) * float32(scale)`.

    They lie flat as `height x width x channels`, as pixels do. It can only be the last operation.
    """

    source: str

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    def results(self, tensors: Mapping[str, Tensor]) -> int:
        return tensors[self.source].size

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        require(self.target not in tensors, "only a program's last operation can give results")
        require_multipliers([binary32(tensors[self.source].scale)])


def _require_stored(table: NDArray[np.uint8], target: Tensor) -> None:
    require(int(table.max()) <= target.limit, f"the table has values above {target.limit}")
