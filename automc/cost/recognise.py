"""The kernel that an operation of a Program calls: what a table's row says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

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
from automc.cost.kernels import Kernel, OperationName, Pair


def kernel_of(operation: Operation, program: Program) -> Kernel:
    """The kernel of one operation; of a grouped convolution that of a group, see `calls_of`."""
    return _KINDS[type(operation)](operation, program)


def calls_of(operation: Operation) -> int:
    """How often an operation calls its kernel: a grouped convolution once for each group."""
    return operation.groups if isinstance(operation, Convolve) and not operation.is_depthwise else 1


def _convolve(operation: Convolve, program: Program) -> Kernel:
    height, width = program.output_size(operation)
    source = program.tensors[operation.source]
    groups = calls_of(operation)
    sparse = operation.encoding == "sparse"
    present = np.count_nonzero(operation.weight) if sparse else operation.multiplied_weights
    return Kernel(
        "depthwise" if operation.is_depthwise else "convolve",
        height,
        width,
        source.channels // groups,
        operation.outputs // groups,
        *operation.kernel,
        *operation.stride,
        operation.weight_bits,
        source.bits,
        operation.residual is not None,
        operation.encoding,
        max(1, round(100 * present / operation.weight.size)),
        *operation.dilation,
    )


def _pool(operation: Pool, program: Program) -> Kernel:
    name: OperationName = "pool_mean" if operation.kind == "mean" else "pool_max"
    return _moved(name, program.tensors[operation.source], program, operation, operation.kernel, operation.stride)


def _moved(
    name: OperationName,
    source: Tensor,
    program: Program,
    operation: Operation,
    kernel: Pair = (1, 1),
    stride: Pair = (1, 1),
) -> Kernel:
    target = program.tensors[operation.target]
    return Kernel(name, target.height, target.width, source.channels, target.channels, *kernel, *stride)


def _plain(name: OperationName) -> Callable[[Operation, Program], Kernel]:
    """Of operations that read as many channels as they write."""

    def kernel(operation: Operation, program: Program) -> Kernel:
        return _moved(name, program.tensors[operation.target], program, operation)

    return kernel


def _select(operation: Select, program: Program) -> Kernel:
    stride = (operation.stride, operation.stride)
    return _moved("select", program.tensors[operation.source], program, operation, (1, 1), stride)


def _shuffle(operation: Shuffle, program: Program) -> Kernel:
    factor = (operation.factor, operation.factor)
    return _moved("shuffle", program.tensors[operation.source], program, operation, factor)


def _dequantise(operation: Dequantise, program: Program) -> Kernel:
    source = program.tensors[operation.source]
    return Kernel("dequantise", source.height, source.width, source.channels, source.channels)


_KINDS: dict[type[Operation], Callable[[Any, Program], Kernel]] = {
    Quantise: _plain("quantise"),
    Convolve: _convolve,
    Sum: _plain("sum"),
    Join: _plain("join"),
    Select: _select,
    Pool: _pool,
    Lookup: _plain("lookup"),
    Scale: _plain("scale"),
    Shuffle: _shuffle,
    Rank: _plain("rank"),
    Dequantise: _dequantise,
}
