"""One schedule for each kind of computation; `schedule` finds the one of an operation."""

from __future__ import annotations

from automc.compiler.kernel import Context, Kernel
from automc.compiler.schedules.convolution import convolution
from automc.compiler.schedules.depthwise import depthwise
from automc.compiler.schedules.elementwise import addition, concatenation, selection
from automc.compiler.schedules.pixels import quantisation
from automc.compiler.schedules.pooling import maximum, mean
from automc.compression.operations import Convolve, Join, Operation, Pool, Quantise, Select, Sum


def is_depthwise(weight_shape: tuple[int, ...], groups: int) -> bool:
    """Whether every output channel has one input channel of its own."""
    return weight_shape[1] == 1 and weight_shape[0] == groups > 1


def schedule(operation: Operation, context: Context) -> Kernel:
    """The kernel of an operation."""
    match operation:
        case Quantise():
            return quantisation(operation, context)
        case Convolve():
            if is_depthwise(operation.weight.shape, operation.groups):
                return depthwise(operation, context)
            return convolution(operation, context)
        case Sum():
            return addition(operation, context)
        case Join():
            return concatenation(operation, context)
        case Select():
            return selection(operation, context)
        case Pool(kind="mean"):
            return mean(operation, context)
        case Pool():
            return maximum(operation, context)
    raise TypeError(f"{type(operation).__name__} has no schedule")
