"""The reference interpreter: what a `Program` means, in plain NumPy. Every faster form must return the same bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    Tensor,
)
from automc.compression.program import Program
from automc.errors import DataError

Pixels = NDArray[np.uint8]
Stored = NDArray[np.uint8]  # `n x height x width x channels`
Accumulators = NDArray[np.int32]
Values = NDArray[np.float32]
Tensors = Mapping[str, Tensor]
Known = Mapping[str, Stored]  # what has been computed, by name

_BATCH = 8  # images at once, so that the copied windows stay near the processor


def interpret(program: Program, pixels: Pixels) -> Values:
    """The results, `n x outputs`, of the images `pixels`, `n x height x width x channels`.

    Raises `DataError` for images of another shape or type than the program's input.
    """
    check_pixels(program, pixels)  # also where there are none
    results = np.empty((len(pixels), program.outputs), np.float32)
    for start in range(0, len(pixels), _BATCH):
        batch = pixels[start : start + _BATCH]
        results[start : start + _BATCH] = interpret_all(program, batch)[program.result.target].reshape(len(batch), -1)
    return results


def interpret_all(program: Program, pixels: Pixels) -> dict[str, NDArray[Any]]:
    """What every operation writes, by name: stored tensors, and last the results as float32.

    All are `n x height x width x channels`, for the images `pixels` at once. Raises as `interpret`.
    """
    check_pixels(program, pixels)
    first, *others = program.operations
    assert isinstance(first, Quantise)
    computed: dict[str, NDArray[Any]] = {first.target: first.table[np.arange(program.input.channels), pixels]}
    for operation in others:
        computed[operation.target] = _MEANINGS[type(operation)](operation, program.tensors, computed)
    return computed


def check_pixels(program: Program, pixels: Pixels) -> None:
    """Raise `DataError` unless `pixels` are images of the program's input."""
    if pixels.dtype != np.uint8 or pixels.shape[1:] != program.image_shape:
        wanted = " x ".join(map(str, program.image_shape))
        raise DataError(f"{program.name} takes n x {wanted} uint8 images. Got {pixels.dtype} {pixels.shape} instead.")


def _convolved(operation: Convolve, tensors: Tensors, stored: Known) -> Stored | Values:
    source = tensors[operation.source]
    accumulators = _accumulators(operation, stored[operation.source], source.zero_point)
    values = accumulators.astype(np.float32) * operation.multiplier
    if operation.target not in tensors:
        return values
    target = tensors[operation.target]
    if operation.residual is not None:
        values = values + _scaled(operation.residual, operation.residual_multiplier, tensors, stored)
    written = _requantised(values, target, operation.low, operation.high)
    if operation.gate is not None:
        written = np.where(stored[operation.gate] == 1, written, np.uint8(target.zero_point))
    return written


def _accumulators(operation: Convolve, source: Stored, zero_point: int) -> Accumulators:
    # Sums of integers below 2^53 are exact in binary64 in any order; the program's own bound is 2^31.
    windows = _windows(source, zero_point, operation.kernel, operation.stride, operation.padding, operation.dilation)
    count, height, width, taps, _ = windows.shape
    groups = operation.groups
    # One matrix product a group: group x (images and pixels) x (taps and channels) by its transposed weights.
    rows = windows.reshape(count * height * width, taps, groups, -1).transpose(2, 0, 1, 3).astype(np.float64)
    weight = operation.weight.reshape(groups, -1, operation.weight.shape[1], taps).astype(np.float64)
    columns = weight.transpose(0, 3, 2, 1)
    reduction = taps * operation.weight.shape[1]
    sums = rows.reshape(groups, -1, reduction) @ columns.reshape(groups, reduction, -1)
    accumulators = sums.transpose(1, 0, 2).reshape(count, height, width, -1) + operation.bias
    assert np.abs(accumulators).max(initial=0) < 2**31  # what the program's validation promises
    return accumulators.astype(np.int32)


def _windows(
    source: Stored,
    filling: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> Stored:
    """What each tap of the kernel sees, `n x height x width x taps x channels`; padding holds `filling`."""
    around = ((0, 0), (padding[0], padding[0]), (padding[1], padding[1]), (0, 0))
    padded = np.pad(source, around, constant_values=filling)
    reach = tuple(dilation[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1))
    views = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2))
    views = views[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]
    count, height, width, channels = views.shape[:4]
    return np.moveaxis(views, 3, 5).reshape(count, height, width, kernel[0] * kernel[1], channels)


def _pooled(operation: Pool, tensors: Tensors, stored: Known) -> Stored:
    source = tensors[operation.source]
    geometry = operation.kernel, operation.stride, operation.padding
    if operation.kind == "max":
        largest: Stored = _windows(stored[operation.source], 0, *geometry).max(axis=3)
        return largest
    windows = _windows(stored[operation.source], source.zero_point, *geometry)
    taps = operation.kernel[0] * operation.kernel[1]
    accumulators = windows.sum(axis=3, dtype=np.int32) - np.int32(taps * source.zero_point)
    values = accumulators.astype(np.float32) * np.float32(operation.multiplier)
    return _requantised(values, tensors[operation.target], operation.low, operation.high)


def _added(operation: Sum, tensors: Tensors, stored: Known) -> Stored:
    first, second = (
        _scaled(name, multiplier, tensors, stored)
        for name, multiplier in zip(operation.sources, operation.multipliers, strict=True)
    )
    return _requantised(first + second, tensors[operation.target], operation.low, operation.high)


def _looked_up(operation: Lookup, tensors: Tensors, stored: Known) -> Stored:
    return operation.table[stored[operation.source]]


def _gained(operation: Scale, tensors: Tensors, stored: Known) -> Stored:
    products = _centred(operation.source, tensors, stored) * _centred(operation.gains, tensors, stored)
    values = products.astype(np.float32) * np.float32(operation.multiplier)
    return _requantised(values, tensors[operation.target], operation.low, operation.high)


def _joined(operation: Join, tensors: Tensors, stored: Known) -> Stored:
    target = tensors[operation.target]
    parts = zip(operation.parts, operation.multipliers, strict=True)
    scaled = [_scaled(name, multiplier, tensors, stored) for name, multiplier in parts]
    return _requantised(np.concatenate(scaled, axis=3), target, 0, target.limit)


def _selected(operation: Select, tensors: Tensors, stored: Known) -> Stored:
    picked = stored[operation.source][:, :: operation.stride, :: operation.stride][..., list(operation.index)]
    picked[..., np.array(operation.index) < 0] = tensors[operation.target].zero_point
    return picked


def _shuffled(operation: Shuffle, tensors: Tensors, stored: Known) -> Stored:
    source, factor = stored[operation.source], operation.factor
    count, height, width, _ = source.shape
    pieces = source.reshape(count, height, width, -1, factor, factor).transpose(0, 1, 4, 2, 5, 3)
    return pieces.reshape(count, height * factor, width * factor, -1)


def _ranked(operation: Rank, tensors: Tensors, stored: Known) -> Stored:
    source = stored[operation.source]
    order = np.argsort(-source.astype(np.int32), axis=3, kind="stable")  # of equals the lower channel first
    ones = np.zeros_like(source)
    np.put_along_axis(ones, order[..., : operation.count], 1, axis=3)
    return ones


def _dequantised(operation: Dequantise, tensors: Tensors, stored: Known) -> Values:
    return _scaled(operation.source, tensors[operation.source].scale, tensors, stored)


_MEANINGS: dict[type[Operation], Callable[..., NDArray[Any]]] = {  # of all but Quantise, which reads pixels
    Convolve: _convolved,
    Pool: _pooled,
    Sum: _added,
    Lookup: _looked_up,
    Scale: _gained,
    Join: _joined,
    Select: _selected,
    Shuffle: _shuffled,
    Rank: _ranked,
    Dequantise: _dequantised,
}


def _centred(name: str, tensors: Tensors, stored: Known) -> Accumulators:
    return stored[name].astype(np.int32) - np.int32(tensors[name].zero_point)


def _scaled(name: str, multiplier: float, tensors: Tensors, stored: Known) -> Values:
    return _centred(name, tensors, stored).astype(np.float32) * np.float32(multiplier)


def _requantised(values: Values, target: Tensor, low: int, high: int) -> Stored:
    """Clamped to binary32 bounds first, since targets convert values out of range differently; ties go to even."""
    zero_point = target.zero_point
    clamped = np.clip(values, np.float32(low - zero_point), np.float32(high - zero_point))
    return (np.rint(clamped).astype(np.int32) + zero_point).astype(np.uint8)
