"""Operations over windows of their source: convolution, with all that its weights may be, and pooling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

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
    require_same_storage,
    require_shape,
    require_vector,
)
from automc.network.graph import is_depthwise

Encoding = Literal["dense", "codebook", "sparse", "blocks"]
BLOCK_INPUTS, BLOCK_OUTPUTS = 4, 16  # of a block of weights, at one tap of the kernel


@dataclass(frozen=True, eq=False)
class Convolve(Operation):
    """Convolution, and the dense layer as the one whose kernel covers its input.

    `acc = bias[o] + sum weight[o] * source`, over stored values: the bias holds `-zero_point * sum(weight[o])`.
    `v = float32(acc) * multiplier[o]`, plus, with a residual, `float32(residual - its zero_point) *
    residual_multiplier`, each operation rounded to binary32. The target is `rint(clamp(v, low - z, high - z)) + z` with
    the target's zero-point `z`. As a program's last operation it writes `v` itself, of 1 x 1 pixel.

    weight: `out x in/groups x kh x kw` int8 in +-(2^(weight_bits-1) - 1), or of {-1, +1} in one bit; bias: `out` int32,
    multiplier: `out` float32.

    Where the `gate`, a tensor `out x 1 x 1` of one bit, is 0, the output channel is the target's zero-point, which
    must lie in [low, high], and its products need not be computed (Gao et al. 2019, section 3.2).

    `encoding` and `huffman` say how the weights are stored, and change no result: each one ("dense"), as an index
    into the layer's distinct values ("codebook"), without the zeros ("sparse"), or without the blocks of
    `BLOCK_INPUTS x BLOCK_OUTPUTS` zeros ("blocks"); and whether what is stored is Huffman coded.
    """

    source: str
    weight: NDArray[np.int8]
    weight_bits: int
    bias: NDArray[np.int32]
    multiplier: NDArray[np.float32]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    low: int
    high: int
    residual: str | None = None
    residual_multiplier: float = 0.0
    gate: str | None = None
    encoding: Encoding = "dense"
    huffman: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "residual_multiplier", binary32(self.residual_multiplier))

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source, *(name for name in (self.residual, self.gate) if name is not None))

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[0])

    @property
    def kernel(self) -> tuple[int, int]:
        return int(self.weight.shape[2]), int(self.weight.shape[3])

    @property
    def is_depthwise(self) -> bool:
        return is_depthwise(self.weight.shape, self.groups)

    @property
    def leaves_out_zeros(self) -> bool:
        """Whether its zeros are left out where it is stored; which kernels then skip is a target's own matter."""
        return self.encoding in ("sparse", "blocks")

    @property
    def multiplied_weights(self) -> int:
        """How many weights take part: all, or those of the blocks that are not zero."""
        if self.encoding != "blocks":
            return int(self.weight.size)
        present = self.weight != 0
        for axis, length in ((0, BLOCK_OUTPUTS), (1, BLOCK_INPUTS)):
            starts = np.arange(0, present.shape[axis], length)
            blocks = np.logical_or.reduceat(present, starts, axis)
            present = np.repeat(blocks, np.diff([*starts, present.shape[axis]]), axis)
        return int(present.sum())

    def accumulator_steps(self, tensors: Mapping[str, Tensor]) -> NDArray[np.float64]:
        """What one unit of each output channel's accumulator is worth in real numbers, `out`."""
        target = tensors.get(self.target)
        return self.multiplier.astype(np.float64) * (1.0 if target is None else target.scale)

    def centred_bias(self, tensors: Mapping[str, Tensor]) -> NDArray[np.int64]:
        """The bias for a source of which the zero-point has been taken away, `out`."""
        sums: NDArray[np.int64] = self.weight.sum((1, 2, 3), dtype=np.int64)
        return self.bias + tensors[self.source].zero_point * sums

    def results(self, tensors: Mapping[str, Tensor]) -> int:
        return self.outputs

    def largest_value(self, tensors: Mapping[str, Tensor], largest: Mapping[str, int]) -> int:
        return self.high

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        source = tensors[self.source]
        self._check_weights(source)
        size = window_counts(source, self.kernel, self.stride, self.padding, self.dilation)
        if self.target in tensors:
            require_shape(tensors[self.target], (self.outputs, *size))
            require_bounds(tensors[self.target], self.low, self.high)
        else:
            require(size == (1, 1), f"logits must be of 1 x 1 pixel. Got {size} instead.")
            require(self.residual is None and self.gate is None, "logits cannot have a residual or a gate")
        if self.residual is not None:
            require_shape(tensors[self.residual], (self.outputs, *size))
            require_multipliers([self.residual_multiplier])
            require(self.gate is None, "a residual cannot be gated")
        if self.gate is not None:
            gate = tensors[self.gate]
            require_vector(gate, self.outputs)
            plain = (gate.bits, gate.zero_point) == (1, 0)
            require(plain, f"the gate {gate.name} must be of 1 bit with the zero-point 0")
            through = self.low <= tensors[self.target].zero_point <= self.high
            require(through, "the clamp of a gated convolution must let its zero-point through")

    def _check_weights(self, source: Tensor) -> None:
        require(self.weight.ndim == 4 and self.weight.size > 0, f"the weight's shape is {self.weight.shape}")
        outputs = self.outputs
        fits = self.groups >= 1 and outputs % self.groups == 0 and self.weight.shape[1] * self.groups == source.channels
        require(
            fits, f"a weight of {self.weight.shape} in {self.groups} groups does not fit {source.channels} channels"
        )
        require_array("weight", self.weight, np.int8, self.weight.shape)
        require_array("bias", self.bias, np.int32, (outputs,))
        require_array("multiplier", self.multiplier, np.float32, (outputs,))
        require_multipliers(self.multiplier.tolist())
        require(1 <= self.weight_bits <= 8, f"weight_bits must be 1 to 8. Got {self.weight_bits} instead.")
        magnitude = np.abs(self.weight.astype(np.int64))
        least, largest = weight_magnitudes(self.weight_bits)
        inside = least <= int(magnitude.min()) and int(magnitude.max()) <= largest
        wanted = f"{self.weight_bits} bits must be within +-{largest}" if least == 0 else "1 bit must be -1 or +1"
        require(inside, f"weights of {wanted}")
        known = get_args(Encoding)
        require(self.encoding in known, f"encoding must be one of {', '.join(known)}. Got {self.encoding!r} instead.")
        require(self.weight_bits > 1 or not self.leaves_out_zeros, "weights of 1 bit have no zeros to leave out")
        require(self.groups == 1 or self.encoding != "blocks", "only an ungrouped convolution can be stored in blocks")
        reach = int((np.abs(self.bias.astype(np.int64)) + magnitude.sum((1, 2, 3)) * source.limit).max())
        require(reach < 2**31, f"an accumulator may reach {reach}, which is beyond int32")


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
        object.__setattr__(self, "multiplier", binary32(self.multiplier))

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    def largest_value(self, tensors: Mapping[str, Tensor], largest: Mapping[str, int]) -> int:
        return self.high if self.kind == "mean" else largest[self.source]

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        source, target = tensors[self.source], tensors[self.target]
        # With more padding than half a window, a window may lie outside the source, and has no maximum.
        halves = all(2 * padding <= kernel for padding, kernel in zip(self.padding, self.kernel, strict=True))
        require(halves, f"padding {self.padding} is more than half of the window {self.kernel}")
        size = window_counts(source, self.kernel, self.stride, self.padding)
        require_shape(target, (source.channels, *size))
        if self.kind == "max":
            require_same_storage(target, source)
            return
        require(self.kind == "mean", f"kind must be mean or max. Got {self.kind} instead.")
        reach = self.kernel[0] * self.kernel[1] * source.limit
        require(reach < 2**31, f"an accumulator may reach {reach}, which is beyond int32")
        require_multipliers([self.multiplier])
        require_bounds(target, self.low, self.high)


def weight_magnitudes(bits: int) -> tuple[int, int]:
    """The least and the largest magnitude of a weight: one bit is a sign, and has no zero."""
    return (1, 1) if bits == 1 else (0, (1 << (bits - 1)) - 1)


def window_counts(
    source: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> tuple[int, int]:
    """How many windows there are along height and width. Raises `InvalidProgram` where there are none."""
    positive = min(*kernel, *stride, *dilation) >= 1 and min(padding) >= 0
    require(positive, "kernel, stride and dilation must be positive, padding not negative")
    height, width = (
        (length + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis, length in enumerate((source.height, source.width))
    )
    require(min(height, width) >= 1, f"the window is larger than {source.name}, which is {source.shape}")
    return height, width
