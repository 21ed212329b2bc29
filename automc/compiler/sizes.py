"""How many bytes a layer's weights take in a library: from shapes alone, and exactly from the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

from automc.compiler.huffman import LONGEST
from automc.compiler.isa import LANES, STEP
from automc.compiler.kernel import Context
from automc.compiler.schedules import schedule
from automc.compiler.schedules.products import Window
from automc.compiler.targets.portable import PORTABLE
from automc.compression.operations import Convolve
from automc.compression.program import Program
from automc.compression.windows import BLOCK_OUTPUTS
from automc.network.graph import is_depthwise

BYTES_OF_CODE_LENGTHS = 2 * LONGEST  # before Huffman codes
_BYTES_OF_CONSTANTS = 8  # an int32 bias and a float32 multiplier for every output channel


def stored_bytes(
    weight_shape: tuple[int, ...], weight_bits: float, groups: int = 1, dilation: tuple[int, int] = (1, 1)
) -> int:
    """The stored weights, biases and multipliers of a convolution, weight: `out x in/groups x kh x kw`.

    Output channels are padded to whole vectors, runs of neighbouring values to whole steps; the same on every target.
    `weight_bits` are those that a weight takes on average. Exact for weights that are stored as they are, unless both
    they and the tensor that they meet have one bit.
    """
    outputs = weight_shape[0]
    if is_depthwise(weight_shape, groups):
        values, lanes = -(-weight_shape[2] * weight_shape[3] // STEP) * STEP, -(-outputs // LANES) * LANES
    else:
        window = Window.of(weight_shape, dilation, groups)
        values = window.runs * window.steps * STEP
        lanes = groups * (-(-outputs // groups // LANES) * LANES)
    return math.ceil(lanes * values * weight_bits / 8) + lanes * _BYTES_OF_CONSTANTS


def block_bytes(weight_shape: tuple[int, ...], weight_bits: float, density: float) -> int:
    """As `stored_bytes` for a convolution stored in blocks, a share `density` of which is not zero."""
    window = Window.of(weight_shape, (1, 1), 1, in_blocks=True)
    steps, panels = window.runs * window.steps, -(-weight_shape[0] // BLOCK_OUTPUTS)
    blocks = max(1, round(density * steps * panels)) * STEP * BLOCK_OUTPUTS
    each = -(-steps // 8) + BLOCK_OUTPUTS * _BYTES_OF_CONSTANTS  # a bit says of each block whether it is there
    return math.ceil(blocks * weight_bits / 8) + panels * each


def program_bytes(program: Program) -> Mapping[str, int]:
    """What each layer's weights take in a library of `program`, exactly, by the tensor that the layer writes.

    This is known only of the weights themselves, whatever their encoding, and is the same on every target.
    """
    context = Context(program, PORTABLE)
    return {
        operation.target: schedule(operation, context).choice.weight_bytes
        for operation in program.operations
        if isinstance(operation, Convolve)
    }
