"""A layer's weights in OpenCL: stored as on every target, decoded by the host when the library begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from automc.compiler.isa import LANES, Path
from automc.compiler.kernel import Constant, Context, Decoded
from automc.compiler.opencl.grid import Numbers
from automc.compiler.schedules.weights import Constants, Weights
from automc.compression.operations import Convolve


def path_of(operation: Convolve, context: Context) -> Path:
    """The target's only path, for kernels that leave out what lies outside of the source.

    They take the zero-point off every value, so that what is outside counts as zero, and the bias makes up for it.
    """
    (path,) = context.target.paths
    return dataclasses.replace(path, offset=context.program.tensors[operation.source].zero_point)


def decoded(constants: Constants, size_bytes: int, code: str, helpers: Mapping[str, str]) -> Decoded:
    """What `code` makes of a layer's stored weights."""
    form = constants.stored
    return Decoded(form.array, form, size_bytes, code, constants.extra, helpers)


def decoded_weights(weights: Weights, panels: int) -> Numbers:
    """The numbers by which a kernel finds the weights of its panel of `LANES` channels, the biases, the multipliers."""
    size = panels * LANES * weights.values
    code = weights.decode.replace("VECTORS", str(panels)) or f"memcpy(scratch, stored, {size});"
    return {
        "weights": decoded(weights.constants, size, code, weights.helpers),
        "panel_bytes": LANES * weights.values,
        **scales(weights.constants),
    }


def scales(constants: Constants) -> Numbers:
    """The biases and the multipliers."""
    return {"bias": Constant(constants.biases), "multipliers": Constant(constants.multipliers)}
