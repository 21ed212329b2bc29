"""How many bytes a layer's weights take in a library."""

from __future__ import annotations

import math

from automc.compiler.isa import LANES, STEP
from automc.compiler.schedules.depthwise import is_depthwise
from automc.compiler.schedules.products import Window
from automc.compiler.storage import stored_bits

_BYTES_OF_CONSTANTS = 8  # an int32 bias and a float32 multiplier for every output channel


def stored_bytes(
    weight_shape: tuple[int, ...], weight_bits: float, groups: int = 1, dilation: tuple[int, int] = (1, 1)
) -> int:
    """The stored weights, biases and multipliers of a convolution, weight: `out x in/groups x kh x kw`.

    Output channels are padded to whole vectors, runs of neighbouring values to whole steps; the same on every target.
    `weight_bits` are those that a weight takes on average.
    """
    outputs = weight_shape[0]
    if is_depthwise(weight_shape, groups):
        run = weight_shape[2] * weight_shape[3]
        values, lanes = -(-run // STEP) * STEP, -(-outputs // LANES) * LANES
    else:
        window = Window.of(weight_shape, dilation, groups)
        run, values = window.run, window.runs * window.steps * STEP
        lanes = groups * (-(-outputs // groups // LANES) * LANES)
    bits = stored_bits(1, run) if weight_bits == 1 else weight_bits
    return math.ceil(lanes * values * bits / 8) + lanes * _BYTES_OF_CONSTANTS
