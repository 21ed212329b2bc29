"""The integers of one layer, as methods leave them and lowering takes them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.compression.quantize import Grid
from automc.compression.reconstruct import mean_output
from automc.compression.windows import Encoding

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class IntegerWeights:
    """A convolution's weights on their grid: `scale[o] * codes[o]`, and its bias in real numbers.

    codes: `out x in/groups x kh x kw` int8, scale: `out` float64 (0 for a channel of zeros), bias: `out` float64;
    levels: the codes that may occur, ascending, where those are not all that `bits` allow. How they are stored is as in
    `Convolve`.
    """

    codes: NDArray[np.int8]
    bits: int
    scale: Values
    bias: Values
    levels: NDArray[np.int8] | None = None
    encoding: Encoding = "dense"
    huffman: bool = False

    def rows(self, outputs: NDArray[np.int64]) -> IntegerWeights:
        """Some of the output channels alone."""
        return dataclasses.replace(self, codes=self.codes[outputs], scale=self.scale[outputs], bias=self.bias[outputs])

    def with_means(self, inputs: Values, outputs: Values) -> IntegerWeights:
        """With the bias that makes of the mean inputs, `groups x d`, the mean outputs, `out`."""
        return dataclasses.replace(self, bias=outputs - self.scale * mean_output(self.codes, inputs))


@dataclass(frozen=True, eq=False)
class Gate:
    """Which output channels are computed for an input: the `active` ones of which most is expected.

    pooled: the grid of the mean of each input channel; expected: what those make of each output channel's magnitude,
    and its grid.
    """

    pooled: Grid
    expected: IntegerWeights
    saliency: Grid
    active: int


@dataclass(frozen=True, eq=False)
class Coded:
    """The integers of one layer: of one convolution, or of two with a tensor on the grid `between` them."""

    weights: IntegerWeights
    before: IntegerWeights | None = None
    between: Grid | None = None
    gate: Gate | None = None

    def rows(self, outputs: NDArray[np.int64]) -> Coded:
        """Some of the output channels alone."""
        return dataclasses.replace(self, weights=self.weights.rows(outputs))

    def with_means(self, inputs: Values, outputs: Values) -> Coded:
        """With the biases that make of the mean inputs, `groups x d`, the mean outputs, `out`."""
        if self.before is None:
            return dataclasses.replace(self, weights=self.weights.with_means(inputs, outputs))
        centred = self.before.with_means(inputs, np.zeros(len(self.before.scale)))
        return dataclasses.replace(self, before=centred, weights=dataclasses.replace(self.weights, bias=outputs))
