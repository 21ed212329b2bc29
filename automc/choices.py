"""What may be chosen for a layer's weights: one small frozen model for each method, told apart by `method`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Bits = Annotated[int, Field(ge=1, le=8)]
Ratio = Annotated[float, Field(gt=0, le=1)]
Pattern = Literal["unstructured", "blocks", "2:4", "1:4"]
Prior = Literal["k-means", "mixture"]

_DENSITIES = {"2:4": 0.5, "1:4": 0.25}


class _Choice(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def share(self) -> float:
        """About how much remains of the layer's 8-bit weights, for an order of choices and for what an agent sees."""
        raise NotImplementedError


class Uniform(_Choice):
    """Weights on a symmetric grid of equal steps with one scale an output channel; of 1 bit they are +-scale.

    `huffman` entropy codes what is stored (Han et al. 2016, section 4).
    """

    method: Literal["uniform"] = "uniform"
    weight_bits: Bits = 8
    huffman: bool = False

    @property
    def share(self) -> float:
        return self.weight_bits / 8

    def __str__(self) -> str:
        return f"{self.weight_bits} bits" + _coded(self.huffman)


class Codebook(_Choice):
    """All weights of a layer share `entries` values, times their channel's scale (Han et al. 2016, section 3).

    `prior` says how the values are found: by k-means, or as the means of a mixture of Gaussians with one at zero, which
    makes more weights zero. Ullrich et al. 2017 train that mixture with the network; here expectation maximisation fits
    it to the trained weights.
    """

    method: Literal["codebook"] = "codebook"
    entries: Annotated[int, Field(le=256)] = 16
    prior: Prior = "k-means"
    huffman: bool = False

    @field_validator("entries")
    @classmethod
    def _several(cls, entries: int) -> int:
        return _at_least_two(entries)

    @model_validator(mode="after")
    def _both_signs(self) -> Codebook:
        if self.prior == "mixture" and self.entries < 3:
            raise ValueError("a mixture needs at least 3 entries: zero, and one of either sign")
        return self

    @property
    def weight_bits(self) -> int:
        """Of the entries, which is what a layer computes with; what is stored are indices."""
        return 8

    @property
    def share(self) -> float:
        return math.log2(self.entries) / 8

    def __str__(self) -> str:
        mixture = " by a mixture" if self.prior == "mixture" else ""
        return f"codebook of {self.entries}{mixture}" + _coded(self.huffman)


class Sparse(_Choice):
    """Only a share `density` of the weights is not zero.

    `unstructured` removes single weights, `blocks` blocks of 4 inputs x 16 outputs, `2:4` and `1:4` all but 2 or 1 of 4
    neighbouring inputs, which says the density. With `entries` the others share so many values.
    """

    method: Literal["sparse"] = "sparse"
    density: Ratio
    pattern: Pattern = "unstructured"
    weight_bits: Annotated[int, Field(ge=2, le=8)] = 8
    entries: Annotated[int, Field(le=256)] | None = None
    huffman: bool = False

    @model_validator(mode="before")
    @classmethod
    def _density_of_pattern(cls, values: Any) -> Any:
        if isinstance(values, dict) and "density" not in values and values.get("pattern") in _DENSITIES:
            return values | {"density": _DENSITIES[values["pattern"]]}
        return values

    @field_validator("entries")
    @classmethod
    def _several(cls, entries: int | None) -> int | None:
        return entries if entries is None else _at_least_two(entries)

    @model_validator(mode="after")
    def _agree(self) -> Sparse:
        fixed = _DENSITIES.get(self.pattern, self.density)
        if self.density != fixed:
            raise ValueError(f"the pattern {self.pattern} has a density of {fixed}, not {self.density:g}; leave it out")
        if self.entries is not None and self.weight_bits != 8:
            raise ValueError("shared entries have 8 bits; leave weight_bits out")
        return self

    @property
    def share(self) -> float:
        bits = self.weight_bits if self.entries is None else math.log2(self.entries)
        return self.density * bits / 8

    def __str__(self) -> str:
        pattern = "" if self.pattern == "unstructured" else f" in {self.pattern}"
        values = f"{self.weight_bits} bits" if self.entries is None else f"codebook of {self.entries}"
        return f"{self.density:.0%} of the weights{pattern}, {values}" + _coded(self.huffman)


class LowRank(_Choice):
    """A dense layer as two, with a tensor of rank `rank_ratio` * min(inputs, outputs) between (Denton et al. 2014)."""

    method: Literal["low_rank"] = "low_rank"
    rank_ratio: Ratio
    weight_bits: Bits = 8

    def rank(self, outputs: int, inputs: int) -> int:
        """The values between the two layers, at least one."""
        return max(1, int(self.rank_ratio * min(outputs, inputs) + 0.5))

    @property
    def share(self) -> float:
        return self.rank_ratio * self.weight_bits / 8

    def __str__(self) -> str:
        return f"rank {self.rank_ratio:.0%}, {self.weight_bits} bits"


class Gated(_Choice):
    """For each input only the most promising share `active_ratio` of output channels is computed (Gao et al. 2019).

    The others are zero for that input.
    """

    method: Literal["gated"] = "gated"
    active_ratio: Ratio
    weight_bits: Bits = 8

    def active(self, outputs: int) -> int:
        """How many of the output channels are computed, at least one."""
        return max(1, int(self.active_ratio * outputs + 0.5))

    @property
    def share(self) -> float:
        return self.active_ratio * self.weight_bits / 8

    def __str__(self) -> str:
        return f"gated to {self.active_ratio:.0%}, {self.weight_bits} bits"


def _with_method(value: Any) -> Any:
    """A choice that does not name its method is a uniform one."""
    if isinstance(value, dict):
        return {"method": "uniform"} | value
    if isinstance(value, _Choice):
        return value
    raise ValueError("must be a method with its fields, as in {method: codebook, entries: 16}")


Choice = Annotated[
    Uniform | Codebook | Sparse | LowRank | Gated, Field(discriminator="method"), BeforeValidator(_with_method)
]


def _coded(huffman: bool) -> str:
    return ", Huffman coded" if huffman else ""


def _at_least_two(entries: int) -> int:
    if entries < 2:
        raise ValueError("a codebook needs at least 2 entries; with fewer all weights would be equal")
    return entries
