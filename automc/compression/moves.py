"""Operations that move stored values or compare them; only a concatenation may have to bring them to another scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from automc.compression.tensors import (
    Operation,
    Tensor,
    binary32,
    require,
    require_multipliers,
    require_same_storage,
    require_shape,
    require_vector,
)


@dataclass(frozen=True, eq=False)
class Join(Operation):
    """Concatenation: each source is requantised by its multiplier, `rint(clamp(float32(a - za) * m, ...)) + z`.

    The clamp is to the target's stored range. A source of the target's scale, zero-point and bits has the multiplier
    1.0 and is copied.
    """

    parts: tuple[str, ...]
    multipliers: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "multipliers", tuple(map(binary32, self.multipliers)))

    @property
    def sources(self) -> tuple[str, ...]:
        return self.parts

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        counts = len(self.parts), len(self.multipliers)
        require(counts[0] == counts[1] >= 1, f"{counts[0]} parts but {counts[1]} multipliers")
        parts = [tensors[name] for name in self.parts]
        for part in parts:
            require_shape(tensors[self.target], (sum(one.channels for one in parts), part.height, part.width))
        require_multipliers(self.multipliers)


@dataclass(frozen=True, eq=False)
class Select(Operation):
    """Channels by `index`, -1 for the zero-point, of every `stride`-th pixel. Values are stored as the source's are."""

    source: str
    index: tuple[int, ...]
    stride: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    def largest_value(self, tensors: Mapping[str, Tensor], largest: Mapping[str, int]) -> int:
        return largest[self.source]

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        source = tensors[self.source]
        require(self.stride >= 1, f"the stride must be positive. Got {self.stride} instead.")
        inside = all(-1 <= channel < source.channels for channel in self.index)
        require(inside, f"the index leaves the source's {source.channels} channels")
        size = (-(-length // self.stride) for length in (source.height, source.width))
        require_shape(tensors[self.target], (len(self.index), *size))
        require_same_storage(tensors[self.target], source)


@dataclass(frozen=True, eq=False)
class Shuffle(Operation):
    """Channels become pixels (Shi et al. 2016, section 3.2); values are stored as the source's are.

    `target[c, y * factor + i, x * factor + j] = source[(c * factor + i) * factor + j, y, x]`
    """

    source: str
    factor: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    def largest_value(self, tensors: Mapping[str, Tensor], largest: Mapping[str, int]) -> int:
        return largest[self.source]

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        source, target, factor = tensors[self.source], tensors[self.target], self.factor
        require(factor >= 1, f"the factor must be positive. Got {factor} instead.")
        fits = source.channels % factor**2 == 0
        require(fits, f"{source.channels} channels cannot become pixels {factor} x {factor} at a time")
        require_shape(target, (source.channels // factor**2, source.height * factor, source.width * factor))
        require_same_storage(target, source)


@dataclass(frozen=True, eq=False)
class Rank(Operation):
    """1 for the `count` greatest of `channels x 1 x 1` values, 0 for the others; of equals, the lower channel first."""

    source: str
    count: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        source, target = tensors[self.source], tensors[self.target]
        require_vector(source, source.channels)
        require_shape(target, source.shape)
        possible = 1 <= self.count <= source.channels
        require(possible, f"count must be 1 to {source.channels}. Got {self.count} instead.")
        plain = (target.bits, target.scale, target.zero_point) == (1, 1.0, 0)
        require(plain, f"{target.name} must have 1 bit, the scale 1 and the zero-point 0")
