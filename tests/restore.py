"""From a Program back to float weights, so that a fine-tuned network can go through a further stage of compression."""

from __future__ import annotations

import dataclasses

import numpy as np

from automc.compression.operations import Convolve
from automc.compression.program import Program
from automc.errors import PolicyError
from automc.network.graph import Conv, Network


def restored(network: Network, program: Program) -> Network:
    """`network` with the weights and biases that `program`'s integers stand for.

    Raises `PolicyError` where the program is not one convolution for each of the network's, of the same shape and of
    what that layer reads.
    """
    total_of = {conv: total for total, conv in network.fused_sums.items()}
    written = {each.target: each for each in program.operations if isinstance(each, Convolve)}
    layers = tuple(
        _restored(layer, written.get(total_of.get(layer.name, layer.name)), program)
        if isinstance(layer, Conv)
        else layer
        for layer in network.layers
    )
    return dataclasses.replace(network, layers=layers)


def _restored(layer: Conv, operation: Convolve | None, program: Program) -> Conv:
    # Of a full rank, the second of two factors may have the layer's own shape; it reads what the first one writes.
    if operation is None or (operation.weight.shape, operation.source) != (layer.weight.shape, layer.inputs[0]):
        raise PolicyError(f"'{layer.name}' was pruned or factorised; only whole layers have float weights again")
    steps = operation.accumulator_steps(program.tensors)
    scale = steps / program.tensors[operation.source].scale
    return dataclasses.replace(
        layer,
        weight=(operation.weight * scale[:, None, None, None]).astype(np.float32),
        bias=(operation.centred_bias(program.tensors) * steps).astype(np.float32),
    )
