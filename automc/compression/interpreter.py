"""The reference interpreter: what a `Program` means, in plain NumPy. Every faster form must return the same bits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from automc.compression.operations import Convolve, Join, Operation, Pool, Quantise, Select, Sum, Tensor
from automc.compression.program import Program
from automc.errors import DataError

Pixels = NDArray[np.uint8]
Stored = NDArray[np.uint8]  # `n x height x width x channels`
Accumulators = NDArray[np.int32]
Logits = NDArray[np.float32]

_BATCH = 8  # images at once, so that the copied windows stay near the processor


def interpret(program: Program, pixels: Pixels) -> Logits:
    """The logits, `n x outputs`, of the images `pixels`, `n x height x width x channels`.

    Raises `DataError` for images of another shape or type than the program's input.
    """
    check_pixels(program, pixels)
    logits = np.empty((len(pixels), program.outputs), np.float32)
    for start in range(0, len(pixels), _BATCH):
        batch = pixels[start : start + _BATCH]
        stored = _stored_tensors(program, batch)
        logits[start : start + _BATCH] = _products(program.result, program.tensors, stored).reshape(len(batch), -1)
    return logits


def interpret_all(program: Program, pixels: Pixels) -> dict[str, Stored]:
    """Every stored tensor by name, `n x height x width x channels`, for the images `pixels`."""
    check_pixels(program, pixels)
    return _stored_tensors(program, pixels)


def check_pixels(program: Program, pixels: Pixels) -> None:
    """Raise `DataError` unless `pixels` are images of the program's input."""
    shape = (program.input.height, program.input.width, program.input.channels)
    if pixels.dtype != np.uint8 or pixels.shape[1:] != shape:
        wanted = " x ".join(map(str, shape))
        raise DataError(f"{program.name} takes n x {wanted} uint8 images. Got {pixels.dtype} {pixels.shape} instead.")


def _stored_tensors(program: Program, pixels: Pixels) -> dict[str, Stored]:
    stored: dict[str, Stored] = {}
    for operation in program.operations[:-1]:
        if isinstance(operation, Quantise):
            stored[operation.target] = operation.table[np.arange(program.input.channels), pixels]
        else:
            stored[operation.target] = _step(operation, program.tensors, stored)
    return stored


def _step(operation: Operation, tensors: Mapping[str, Tensor], stored: Mapping[str, Stored]) -> Stored:
    target = tensors[operation.target]
    if isinstance(operation, Convolve):
        return _requantised(_products(operation, tensors, stored), target, operation.low, operation.high)
    if isinstance(operation, Sum):
        first, second = (
            _centred(tensors[name], stored).astype(np.float32) * np.float32(multiplier)
            for name, multiplier in zip(operation.sources, operation.multipliers, strict=True)
        )
        return _requantised(first + second, target, operation.low, operation.high)
    if isinstance(operation, Join):
        scaled = [
            _centred(tensors[name], stored).astype(np.float32) * np.float32(multiplier)
            for name, multiplier in zip(operation.parts, operation.multipliers, strict=True)
        ]
        return _requantised(np.concatenate(scaled, axis=3), target, 0, target.limit)
    if isinstance(operation, Select):
        return _selected(operation, target, stored[operation.source])
    if isinstance(operation, Pool):
        return _pooled(operation, tensors, stored)
    raise TypeError(f"{type(operation).__name__} is not an operation")


def _products(operation: Convolve, tensors: Mapping[str, Tensor], stored: Mapping[str, Stored]) -> Logits:
    """`v` of a convolution: the scaled accumulator, plus the scaled residual."""
    source = tensors[operation.source]
    accumulators = _accumulators(operation, stored[operation.source], source.zero_point)
    values = accumulators.astype(np.float32) * operation.multiplier
    if operation.residual is not None:
        residual = _centred(tensors[operation.residual], stored).astype(np.float32)
        values = values + residual * np.float32(operation.residual_multiplier)
    return values


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


def _selected(operation: Select, target: Tensor, source: Stored) -> Stored:
    picked = source[:, :: operation.stride, :: operation.stride][..., list(operation.index)]
    picked[..., np.array(operation.index) < 0] = target.zero_point
    return picked


def _pooled(operation: Pool, tensors: Mapping[str, Tensor], stored: Mapping[str, Stored]) -> Stored:
    source, target = tensors[operation.source], tensors[operation.target]
    geometry = operation.kernel, operation.stride, operation.padding
    if operation.kind == "max":
        largest: Stored = _windows(stored[operation.source], 0, *geometry).max(axis=3)
        return largest
    windows = _windows(stored[operation.source], source.zero_point, *geometry)
    taps = operation.kernel[0] * operation.kernel[1]
    accumulators = windows.sum(axis=3, dtype=np.int32) - np.int32(taps * source.zero_point)
    values = accumulators.astype(np.float32) * np.float32(operation.multiplier)
    return _requantised(values, target, operation.low, operation.high)


def _centred(tensor: Tensor, stored: Mapping[str, Stored]) -> Accumulators:
    return stored[tensor.name].astype(np.int32) - np.int32(tensor.zero_point)


def _requantised(values: Logits, target: Tensor, low: int, high: int) -> Stored:
    """Clamped to binary32 bounds first, since targets convert values out of range differently; ties go to even."""
    zero_point = target.zero_point
    clamped = np.clip(values, np.float32(low - zero_point), np.float32(high - zero_point))
    return (np.rint(clamped).astype(np.int32) + zero_point).astype(np.uint8)
