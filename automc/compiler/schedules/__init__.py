"""One schedule for each kind of computation; `schedule` finds the one of an operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from automc.compiler.kernel import Context, Kernel
from automc.compiler.schedules.binary import binary, is_binary
from automc.compiler.schedules.blocks import block_sparse
from automc.compiler.schedules.convolution import convolution
from automc.compiler.schedules.depthwise import depthwise
from automc.compiler.schedules.elementwise import addition, dequantisation, gains, look_up
from automc.compiler.schedules.moves import concatenation, ranking, selection, shuffling
from automc.compiler.schedules.pixels import quantisation
from automc.compiler.schedules.pooling import maximum, mean
from automc.compiler.schedules.sparse import skips_zeros, sparse_convolution
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
    if operation.encoding == "blocks":
        return block_sparse(operation, context)
    if skips_zeros(operation, context.target):
        return sparse_convolution(operation, context)
    return convolution(operation, context)


def _pool(operation: Pool, context: Context) -> Kernel:
    return (mean if operation.kind == "mean" else maximum)(operation, context)


_SCHEDULES: Mapping[type[Operation], Callable[..., Kernel]] = {
    Quantise: quantisation,
    Convolve: _convolve,
    Pool: _pool,
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
