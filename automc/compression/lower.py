"""From prepared layers to a Program: integer biases, multipliers, clamps, and channels counted anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automc.compression.coded import Coded, Gate, IntegerWeights
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
from automc.compression.quantize import Grid
from automc.network import graph
from automc.network.curves import CURVES
from automc.network.graph import Activation, Add, Concat, Conv, Curve, Gather, Input, Layer, Multiply, Network

# An integer bias keeps at most this many bits, so that a channel of nearly dead weights does not overflow the
# accumulator, nor the 2^24 below which float32 sums are exact.
_BIAS_BITS = 22
# Where no code is 0, dead weights keep codes, and more bits of the bias make their sum vanish beside it.
_BIAS_BITS_WITHOUT_ZERO = 29

Channels = NDArray[np.int64]


class Lowering:
    """A Program under construction, one layer at a time in the order of computation.

    kept: the channels that remain of each layer's tensor; grids: of each stored tensor.
    """

    def __init__(self, network: Network, kept: Mapping[str, Channels], grids: Mapping[str, Grid]) -> None:
        self._network = network
        self._kept = kept
        self._grids = grids
        self._sum_of = {conv: total for total, conv in network.fused_sums.items()}
        self._tensors: dict[str, Tensor] = {}
        self._operations: list[Operation] = []

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """What has been written so far, but for the result."""
        return self._tensors

    def add(self, layer: Layer, coded: Coded | None = None) -> tuple[Operation, ...]:
        """The next layer's operations; none for a sum that the convolution before it computes."""
        if isinstance(layer, Conv):
            assert coded is not None, f"{layer.name} has not been prepared"
            added = self._layer(layer, coded)
        elif layer.name in self._network.fused_sums:
            added = ()
        else:
            added = (_WITHOUT_WEIGHTS[type(layer)](self, layer),)
        self._operations += added
        return added

    def other_operand(self, layer: Conv) -> Tensor | None:
        """The tensor that is added to what `layer` computes, where it computes a sum."""
        fused = self._fused_sum(layer)
        if fused is None:
            return None
        (other,) = (name for name in fused.inputs if name != layer.name)
        return self._tensors[other]

    def program(self) -> Program:
        """The whole Program, after the last layer."""
        operations, result = tuple(self._operations), self._network.output.name
        if not self._network.writes_logits:
            operations += (Dequantise(f"{result}.real", result),)
        return Program(self._network.name, self._tensors, operations)

    def _quantise(self, layer: Input) -> Quantise:
        self._write(layer)
        mean, std = np.array(self._network.mean)[:, None], np.array(self._network.std)[:, None]
        return Quantise(layer.name, self._grids[layer.name].store((np.arange(256) / 255 - mean) / std))

    def _layer(self, layer: Conv, coded: Coded) -> tuple[Operation, ...]:
        """A convolution, after what makes its gate, or after the first of two between which the rank is low."""
        source = self._tensors[layer.inputs[0]]
        groups = source.channels if layer.is_depthwise else layer.groups
        geometry = _Geometry(layer.stride, layer.padding, layer.dilation, groups)
        before: tuple[Operation, ...] = ()
        gate = None
        if coded.gate is not None:
            before = self._gate(layer, source, coded.gate)
            gate = before[-1].target
        if coded.before is not None:
            assert coded.between is not None
            _, height, width = layer.shape
            between = self._store(f"{layer.name}.rank", (len(coded.before.scale), height, width), coded.between)
            before = (_convolve(between.name, source, coded.before, geometry, between, (0, between.limit)),)
            source, geometry = between, _Geometry()
        fused, residual = self._fused_sum(layer), self.other_operand(layer)
        activation = layer.activation if fused is None else fused.activation
        name = layer.name if fused is None else fused.name
        writes_logits = layer is self._network.output and self._network.writes_logits
        target = None if writes_logits else self._write(fused or layer)
        bounds = (0, 0) if target is None else _clamps(target, activation)
        return (*before, _convolve(name, source, coded.weights, geometry, target, bounds, residual, gate))

    def _gate(self, layer: Conv, source: Tensor, gate: Gate) -> tuple[Operation, ...]:
        """What decides which output channels are computed: one bit for each."""
        size = (source.height, source.width)
        outputs = (len(gate.expected.scale), 1, 1)
        pooled = self._store(f"{layer.name}.pooled", (source.channels, 1, 1), gate.pooled)
        saliency = self._store(f"{layer.name}.saliency", outputs, gate.saliency)
        open_channels = self._store(f"{layer.name}.gate", outputs, Grid(1, 1.0, 0))
        multiplier = _ratio(source.scale, pooled.scale * size[0] * size[1])
        return (
            Pool(pooled.name, source.name, "mean", size, (1, 1), (0, 0), multiplier, 0, pooled.limit),
            _convolve(saliency.name, pooled, gate.expected, _Geometry(), saliency, (0, saliency.limit)),
            Rank(open_channels.name, saliency.name, gate.active),
        )

    def _fused_sum(self, layer: Conv) -> Add | None:
        total = self._network[self._sum_of[layer.name]] if layer.name in self._sum_of else None
        return total if isinstance(total, Add) else None

    def _sum(self, layer: Add) -> Sum:
        target = self._write(layer)
        first, second = (self._tensors[name] for name in layer.inputs)
        multipliers = (_ratio(first.scale, target.scale), _ratio(second.scale, target.scale))
        return Sum(layer.name, first.name, second.name, multipliers, *_clamps(target, layer.activation))

    def _join(self, layer: Concat) -> Join:
        target = self._write(layer)
        multipliers = tuple(_ratio(self._tensors[name].scale, target.scale) for name in layer.inputs)
        return Join(layer.name, layer.inputs, multipliers)

    def _select(self, layer: Gather) -> Select:
        source = self._tensors[layer.inputs[0]]
        self._write(layer, source)
        place = {int(channel): position for position, channel in enumerate(self._kept[source.name])}
        # A channel whose source was removed is one of zeros now.
        index = tuple(place.get(layer.index[channel], -1) for channel in self._kept[layer.name])
        return Select(layer.name, source.name, index, layer.stride)

    def _pool(self, layer: graph.Pool) -> Pool:
        source = self._tensors[layer.inputs[0]]
        target = self._write(layer, source if layer.kind == "max" else None)
        window = layer.kernel[0] * layer.kernel[1] if layer.kind == "mean" else 1
        multiplier = _ratio(source.scale, target.scale * window)
        limits = _clamps(target, "none")
        return Pool(layer.name, source.name, layer.kind, layer.kernel, layer.stride, layer.padding, multiplier, *limits)

    def _lookup(self, layer: Curve) -> Lookup:
        source = self._tensors[layer.inputs[0]]
        self._write(layer)
        stored = np.arange(source.limit + 1, dtype=np.uint8)
        values = torch.from_numpy(Grid(source.bits, source.scale, source.zero_point).read(stored))
        return Lookup(layer.name, source.name, self._grids[layer.name].store(CURVES[layer.kind](values).numpy()))

    def _scale(self, layer: Multiply) -> Scale:
        target = self._write(layer)
        source, gains = (self._tensors[name] for name in layer.inputs)
        multiplier = _ratio(source.scale * gains.scale, target.scale)
        return Scale(layer.name, source.name, gains.name, multiplier, *_clamps(target, "none"))

    def _shuffle(self, layer: graph.Shuffle) -> Shuffle:
        source = self._tensors[layer.inputs[0]]
        self._write(layer, source)
        return Shuffle(layer.name, source.name, layer.factor)

    def _write(self, layer: Layer, stored_as: Tensor | None = None) -> Tensor:
        """The tensor that `layer` writes, on a grid of its own or stored as another one is."""
        _, height, width = layer.shape
        grid = self._grids[layer.name] if stored_as is None else stored_as
        return self._store(layer.name, (len(self._kept[layer.name]), height, width), grid)

    def _store(self, name: str, shape: tuple[int, int, int], grid: Grid | Tensor) -> Tensor:
        self._tensors[name] = Tensor(name, *shape, grid.bits, grid.scale, grid.zero_point)
        return self._tensors[name]


_WITHOUT_WEIGHTS: Mapping[type[Layer], Callable[[Lowering, Any], Operation]] = {
    Input: Lowering._quantise,
    Add: Lowering._sum,
    Concat: Lowering._join,
    Gather: Lowering._select,
    graph.Pool: Lowering._pool,
    Curve: Lowering._lookup,
    Multiply: Lowering._scale,
    graph.Shuffle: Lowering._shuffle,
}


@dataclass(frozen=True)
class _Geometry:
    """How a convolution walks over its source; of a dense layer, not at all."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def _convolve(
    name: str,
    source: Tensor,
    weights: IntegerWeights,
    geometry: _Geometry,
    target: Tensor | None,
    bounds: tuple[int, int],
    residual: Tensor | None = None,
    gate: str | None = None,
) -> Convolve:
    """The convolution that writes `target`, or the result in real numbers where there is none."""
    step = 1.0 if target is None else target.scale
    codes, scale = _coarser(weights, source.scale, step)
    accumulator_step = source.scale * scale
    folded = source.zero_point * codes.sum((1, 2, 3), dtype=np.int64)
    return Convolve(
        target=name,
        source=source.name,
        weight=codes,
        weight_bits=weights.bits,
        bias=(np.rint(weights.bias / accumulator_step) - folded).astype(np.int32),
        multiplier=(accumulator_step if target is None else _in_range(accumulator_step / step)).astype(np.float32),
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=geometry.groups,
        low=bounds[0],
        high=bounds[1],
        residual=None if residual is None else residual.name,
        residual_multiplier=0.0 if residual is None else _ratio(residual.scale, step),
        gate=gate,
        encoding=weights.encoding,
        huffman=weights.huffman,
    )


def _clamps(target: Tensor, activation: Activation) -> tuple[int, int]:
    """The least and the largest stored value that the activation lets through."""
    low = 0 if activation == "none" else target.zero_point
    six = target.zero_point + round(6 / target.scale)
    return low, min(target.limit, six) if activation == "relu6" else target.limit


def _coarser(
    weights: IntegerWeights, source_step: float, target_step: float
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Codes and scales, coarser where a channel's weights are too small for its bias or for its target."""
    bits = _BIAS_BITS if weights.levels is None or 0 in weights.levels else _BIAS_BITS_WITHOUT_ZERO
    least = np.maximum(np.abs(weights.bias) * 2.0**-bits, target_step * MULTIPLIER_RANGE[0]) / source_step
    scale = np.maximum(weights.scale, least)
    if (scale == weights.scale).all():
        return weights.codes, scale
    smaller = weights.codes * (weights.scale / scale)[:, None, None, None]
    if weights.levels is None:
        return np.rint(smaller).astype(np.int8), scale
    levels = weights.levels.astype(np.float64)
    return weights.levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, smaller)], scale


def _in_range(multiplier: NDArray[np.float64]) -> NDArray[np.float64]:
    """Below the range a product is lost in rounding; above it one step already saturates the target's 8 bits."""
    return np.clip(multiplier, *MULTIPLIER_RANGE)


def _ratio(source_step: float, target_step: float) -> float:
    return float(_in_range(np.array(source_step / target_step)))
