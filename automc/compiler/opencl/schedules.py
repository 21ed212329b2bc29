"""The kernel in OpenCL C of every operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from automc.compiler.kernel import Context, Kernel
from automc.compiler.opencl.binary import binary
from automc.compiler.opencl.blocks import block_sparse
from automc.compiler.opencl.channels import concatenation, ranking, selection, shuffling
from automc.compiler.opencl.convolution import convolution, depthwise
from automc.compiler.opencl.pooling import pooling
from automc.compiler.opencl.values import addition, dequantisation, gains, look_up, quantisation
from automc.compiler.schedules.binary import is_binary
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


def _convolve(operation: Convolve, context: Context) -> Kernel:
    if operation.is_depthwise:
        return depthwise(operation, context)
    if is_binary(operation.weight_bits, context.program.tensors[operation.source].bits, operation.groups):
        return binary(operation, context)
    return (block_sparse if operation.encoding == "blocks" else convolution)(operation, context)


_SCHEDULES: Mapping[type[Operation], Callable[..., Kernel]] = {
    Quantise: quantisation,
    Convolve: _convolve,
    Pool: pooling,
    Sum: addition,
    Lookup: look_up,
    Scale: gains,
    Join: concatenation,
    Select: selection,
    Shuffle: shuffling,
    Rank: ranking,
    Dequantise: dequantisation,
}


def schedule(operation: Operation, context: Context) -> Kernel:
    """The kernel of an operation."""
    return _SCHEDULES[type(operation)](operation, context)
