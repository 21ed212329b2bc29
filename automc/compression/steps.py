"""Each operation of a program as a torch module, exact and with gradients.

Tensors hold `stored - zero_point` as float32. So padding is zero, and the bias loses the share of the zero-point that
it holds in the program; accumulators stay the same integers. Float32 sums of integers are exact, in any order, while no
partial sum can reach 2^24; each operation checks that for its own weights and sums in parts where it does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automc.compression.gradients import convolve
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
)
from automc.compression.operations import Tensor as Stored
from automc.compression.tensors import binary32

_EXACT = 2**24  # every integer up to here is a float32


class _StraightThrough(torch.autograd.Function):
    """Clamp and round; the gradient passes where nothing was clamped."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(values)
        ctx.bounds = (low, high)
        return values.clamp(low, high).round_()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (values,) = ctx.saved_tensors
        # Hard tanh is a clamp, and its gradient one pass over memory where a mask would take four.
        return torch.ops.aten.hardtanh_backward(gradient, values, *ctx.bounds), None, None


def clamp_and_round(values: Tensor, low: int, high: int) -> Tensor:
    """`values` within [low, high] and rounded, ties to even; they may be overwritten."""
    if values.requires_grad:
        rounded: Tensor = _StraightThrough.apply(values, low, high)  # type: ignore[no-untyped-call]
        return rounded
    return values.clamp_(low, high).round_()


def signs(values: Tensor) -> Tensor:
    """-1, or +1 also of 0; the gradient passes within [-1, +1] (Rastegari et al. 2016, section 3.1)."""
    return _with_gradient_of(values.clamp(-1, 1), torch.where(values >= 0, 1.0, -1.0))


def _with_gradient_of(smooth: Tensor, values: Tensor) -> Tensor:
    """`values`, exactly, with the gradient of `smooth`."""
    return (smooth - smooth.detach()) + values


class _Step(nn.Module):
    """What all steps share: the clamp of the tensor that they write."""

    def __init__(self, operation: Operation, tensors: Mapping[str, Stored], low: int = 0, high: int = 0) -> None:
        super().__init__()
        target = tensors.get(operation.target)  # the logits are no stored tensor
        self.zero_point = target.zero_point if target is not None else 0
        self.low, self.high = low - self.zero_point, high - self.zero_point


class _Quantise(_Step):
    table: Tensor
    offsets: Tensor

    def __init__(self, operation: Quantise, tensors: Mapping[str, Stored]) -> None:
        super().__init__(operation, tensors)
        self.register_buffer("table", torch.tensor(operation.table.ravel()).float().sub_(self.zero_point))
        self.register_buffer("offsets", torch.arange(0, operation.table.size, 256, dtype=torch.int32))

    def forward(self, pixels: Tensor) -> Tensor:
        positions = pixels.permute(0, 2, 3, 1).int().add_(self.offsets)
        return self.table[positions].permute(0, 3, 1, 2)


class ConvolveStep(_Step):
    """A convolution over integers; `weight` and `bias` may be replaced by others of the same types.

    `normalise` may stand between the sums, times `multiplier`, and what is written.

    weight: the program's as float32, bias: `out`, what the program's would be for zero-points of 0; in float64 where
    the sums go beyond what float32 holds.
    """

    weight: Tensor
    bias: Tensor
    multiplier: Tensor

    def __init__(self, operation: Convolve, tensors: Mapping[str, Stored]) -> None:
        super().__init__(operation, tensors, operation.low, operation.high)
        self.geometry = (operation.stride, operation.padding, operation.dilation, operation.groups)
        self.writes_logits = operation.target not in tensors
        self.gated = operation.gate is not None
        self.residual_multiplier = operation.residual_multiplier
        source = tensors[operation.source]
        weight = torch.tensor(operation.weight).float()
        bias = torch.from_numpy(operation.centred_bias(tensors)).double()
        reach = weight.double().abs_().flatten(1).mul_(max(source.zero_point, source.limit - source.zero_point))
        self.parts = 1
        if (reach.sum(1) + bias.abs()).max() < _EXACT:
            bias = bias.float()
        while max(float(part.sum(1).max()) for part in reach.chunk(self.parts, 1)) >= _EXACT:
            self.parts += 1
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias)
        self.register_buffer("multiplier", torch.tensor(operation.multiplier).view(-1, 1, 1))
        self.normalise: nn.Module = nn.Identity()

    def forward(self, source: Tensor, residual_or_gate: Tensor | None = None) -> Tensor:
        values: Tensor = self.normalise(self._accumulators(source).mul_(self.multiplier))
        if self.writes_logits:
            return values
        if residual_or_gate is None:
            return clamp_and_round(values, self.low, self.high)
        if self.gated:
            return clamp_and_round(values, self.low, self.high) * residual_or_gate
        return clamp_and_round(values.add_(residual_or_gate * self.residual_multiplier), self.low, self.high)

    def _accumulators(self, source: Tensor) -> Tensor:
        if self.bias.dtype == torch.float32:
            return convolve(source, self.weight, self.bias, self.geometry)
        # Each part is exact in float32, their sum in float64, and its rounding is that of the int32 to binary32.
        total = self.bias.view(-1, 1, 1)
        for part in self._weight_parts():
            total = total + F.conv2d(source, part, None, *self.geometry)
        return total.float()

    def _weight_parts(self) -> list[Tensor]:
        """The weights as a sum of tensors, each with a share of the taps and zeros elsewhere."""
        if self.parts == 1:
            return [self.weight]
        taps = self.weight.flatten(1)
        shares = torch.arange(taps.shape[1], device=taps.device).chunk(self.parts)
        masks = [taps.new_zeros(taps.shape[1]).index_fill_(0, share, 1) for share in shares]
        return [(taps * mask).view_as(self.weight) for mask in masks]


class _Sum(_Step):
    def __init__(self, operation: Sum, tensors: Mapping[str, Stored]) -> None:
        super().__init__(operation, tensors, operation.low, operation.high)
        self.multipliers = operation.multipliers

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        # Two products and a sum, each rounded: torch's `alpha` would contract them.
        values = (first * self.multipliers[0]).add_(second * self.multipliers[1])
        return clamp_and_round(values, self.low, self.high)


class _Join(_Step):
    def __init__(self, operation: Join, tensors: Mapping[str, Stored]) -> None:
        super().__init__(operation, tensors, 0, tensors[operation.target].limit)
        self.multipliers = operation.multipliers

    def forward(self, *parts: Tensor) -> Tensor:
        scaled = [part * multiplier for part, multiplier in zip(parts, self.multipliers, strict=True)]
        return clamp_and_round(torch.cat(scaled, 1), self.low, self.high)


class _Select(_Step):
    index: Tensor
    mask: Tensor

    def __init__(self, operation: Select, tensors: Mapping[str, Stored]) -> None:
        super().__init__(operation, tensors)
        self.stride = operation.stride
        index = torch.tensor(operation.index)
        self.register_buffer("index", index.clamp(min=0))
        self.register_buffer("mask", (index >= 0).float())

    def forward(self, source: Tensor) -> Tensor:
        pixels = source.permute(0, 2, 3, 1)[:, :: self.stride, :: self.stride]
        return pixels[..., self.index].mul_(self.mask).permute(0, 3, 1, 2)


class _Pool(_Step):
    def __init__(self, operation: Pool, tensors: Mapping[str, Stored]) -> None:
        super().__init__(operation, tensors, operation.low, operation.high)
        self.kind, self.multiplier = operation.kind, operation.multiplier
        self.geometry = (operation.kernel, operation.stride, operation.padding)
        self.exact = operation.kernel[0] * operation.kernel[1] * tensors[operation.source].limit < _EXACT

    def forward(self, source: Tensor) -> Tensor:
        if self.kind == "max":
            return F.max_pool2d(source, *self.geometry)
        summed = F.avg_pool2d(source if self.exact else source.double(), *self.geometry, divisor_override=1).float()
        return clamp_and_round(summed.mul_(self.multiplier), self.low, self.high)


class _Lookup(_Step):
    table: Tensor
    slope: Tensor

    def __init__(self, operation: Lookup, tensors: Mapping[str, Stored]) -> None:
        super().__init__(operation, tensors)
        self.source_zero_point = tensors[operation.source].zero_point
        table = torch.tensor(operation.table).float()
        self.register_buffer("table", table - self.zero_point)
        self.register_buffer("slope", torch.gradient(table)[0])

    def forward(self, source: Tensor) -> Tensor:
        pixels = source.permute(0, 2, 3, 1)
        positions = pixels.detach().add(self.source_zero_point).int().flatten()
        values = self.table.index_select(0, positions).view(pixels.shape)
        if source.requires_grad:
            values = _with_gradient_of(self.slope.index_select(0, positions).view(pixels.shape) * pixels, values)
        return values.permute(0, 3, 1, 2)


class _Scale(_Step):
    def __init__(self, operation: Scale, tensors: Mapping[str, Stored]) -> None:
        super().__init__(operation, tensors, operation.low, operation.high)
        self.multiplier = operation.multiplier

    def forward(self, source: Tensor, gains: Tensor) -> Tensor:
        return clamp_and_round((source * gains).mul_(self.multiplier), self.low, self.high)


class _Shuffle(_Step):
    def __init__(self, operation: Shuffle, tensors: Mapping[str, Stored]) -> None:
        super().__init__(operation, tensors)
        self.factor = operation.factor

    def forward(self, source: Tensor) -> Tensor:
        return F.pixel_shuffle(source, self.factor)


class _Rank(_Step):
    def __init__(self, operation: Rank, tensors: Mapping[str, Stored]) -> None:
        super().__init__(operation, tensors)
        self.count, self.limit = operation.count, tensors[operation.source].limit

    def forward(self, source: Tensor) -> Tensor:
        # As integers, since a rounded float may be the other zero.
        order = source.detach().int().sort(dim=1, descending=True, stable=True).indices
        chosen = torch.zeros_like(source).scatter_(1, order[:, : self.count], 1.0)
        # As if the gate opened evenly over the range of what is ranked.
        return _with_gradient_of(source / self.limit, chosen) if source.requires_grad else chosen


class _Dequantise(_Step):
    def __init__(self, operation: Dequantise, tensors: Mapping[str, Stored]) -> None:
        super().__init__(operation, tensors)
        self.scale = binary32(tensors[operation.source].scale)

    def forward(self, source: Tensor) -> Tensor:
        return (source + 0.0) * self.scale  # the sum of both zeros is the positive one, which the integer is


_STEPS: dict[type[Operation], Callable[..., nn.Module]] = {
    Quantise: _Quantise,
    Convolve: ConvolveStep,
    Pool: _Pool,
    Sum: _Sum,
    Lookup: _Lookup,
    Scale: _Scale,
    Join: _Join,
    Select: _Select,
    Shuffle: _Shuffle,
    Rank: _Rank,
    Dequantise: _Dequantise,
}


def step_of(operation: Operation, tensors: Mapping[str, Stored]) -> nn.Module:
    """One operation as a module from what it reads, `stored - zero_point` as float32, to what it writes."""
    return _STEPS[type(operation)](operation, tensors)
