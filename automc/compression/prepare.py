"""`Preparation`: a dense network and calibration images, from which any policy becomes a Program without training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automc.choices import Uniform
from automc.compression.lower import Channels, IntegerWeights, Lowering
from automc.compression.policy import Policy, kept_slots
from automc.compression.program import Program
from automc.compression.prune import removal_order
from automc.compression.quantize import Grid, activation_grid, round_compensated, weight_scales
from automc.compression.reconstruct import as_matrix, columns_of, mean_output, repair
from automc.compression.statistics import BATCH, MomentSum, collect, dense_targets, patches, pick, sample_positions
from automc.compression.steps import step_of
from automc.errors import DataError, PolicyError
from automc.network.graph import Conv, Network

Codes = tuple[NDArray[np.int8], NDArray[np.float64]]  # `out x in/groups x kh x kw`, and their scales `out`


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is decided before any layer is prepared: bits, and the channels that remain of each tensor."""

    policy: Policy
    kept: Mapping[str, Channels]
    lowering: Lowering


class Preparation:
    """Prepares compressed networks from calibration images, deterministically for given images and seed.

    network: the dense one; pixels: `n x h x w x c` uint8, a few hundred training images without labels.
    Raises `DataError` for images that do not fit the network.
    """

    def __init__(self, network: Network, pixels: NDArray[np.uint8], seed: int = 0) -> None:
        channels, height, width = network.input.shape
        if len(pixels) == 0:
            raise DataError("calibration needs at least one image")
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (height, width, channels):
            raise DataError(
                f"calibration images for {network.name} must be n x {height} x {width} x {channels} of uint8, "
                f"got {pixels.dtype} {pixels.shape}"
            )
        self.network = network
        self._pixels = pixels
        self._positions = sample_positions(network, seed)
        self._statistics = collect(network, pixels, self._positions)
        self.removal_order = removal_order(network, self._statistics.moments)
        self._weights: dict[tuple[str, bytes, int], Codes] = {}
        self._grids: dict[tuple[str, int], Grid] = {}
        self._shifts: dict[tuple[str, int], NDArray[np.float64]] = {}

    def program(self, policy: Policy) -> Program:
        """Independent preparation: each layer is repaired on what the dense network gives it.

        So a layer is prepared once for each set of input channels and each choice, and a policy is assembled from what
        is already there. Raises `PolicyError` for a policy that does not fit the network.
        """
        plan = self._plan(policy)
        for layer in self.network.layers:
            plan.lowering.add(layer, self._independent(layer, plan) if isinstance(layer, Conv) else None)
        return plan.lowering.program()

    @torch.inference_mode()
    def sequential(self, policy: Policy) -> Program:
        """Sequential preparation: each layer is repaired on what the compressed layers before it deliver.

        Towards what the dense layer writes; a convolution that computes a sum makes up for the error of the other
        operand, too. Slower, and several points better where much is pruned. Raises `PolicyError` for a policy that
        does not fit the network.
        """
        plan = self._plan(policy)
        pixels = torch.tensor(self._pixels).permute(0, 3, 1, 2)
        images = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
        delivered: dict[str, list[Tensor]] = {}  # batches of each tensor, stored - zero_point
        for layer in self.network.layers:
            weights = self._sequential(layer, plan, delivered) if isinstance(layer, Conv) else None
            operation = plan.lowering.add(layer, weights)
            if operation is not None and layer is not self.network.output:
                step = step_of(operation, plan.lowering.tensors)
                sources = [delivered[name] for name in operation.sources] or [images]
                delivered[operation.target] = [step(*batch) for batch in zip(*sources, strict=True)]
            for name in layer.inputs:
                if self.network.consumers[name][-1] is layer:
                    delivered.pop(name, None)
        return plan.lowering.program()

    @cached_property
    def _targets(self) -> dict[str, list[Tensor]]:
        return dense_targets(self.network, self._pixels, self._positions)

    def _plan(self, policy: Policy) -> _Plan:
        policy = policy.normalised(self.network)
        for name, choice in policy.weights.items():
            if not isinstance(choice, Uniform) or choice.weight_bits == 1:
                raise PolicyError(f"weights: {name}: {choice!r} cannot be prepared yet")
        slots = kept_slots(policy, self.network, self.removal_order)
        kept = {layer.name: self.network.kept_channels(layer.name, slots) for layer in self.network.layers}
        for name, channels in kept.items():
            if len(channels) == 0:
                raise PolicyError(f"keep_ratio: no channel of {name} would remain")
        grids = {name: self._grid(name, policy.bits_of(name)) for name in self.network.quantised_tensors}
        return _Plan(policy, kept, Lowering(self.network, kept, grids))

    def _grid(self, tensor: str, bits: int) -> Grid:
        if (tensor, bits) not in self._grids:
            self._grids[tensor, bits] = activation_grid(self._statistics.samples[tensor], bits)
        return self._grids[tensor, bits]

    def _shift(self, tensor: str, bits: int) -> NDArray[np.float64]:
        """`channels`: by how much storing `tensor` in so many bits moves its mean."""
        if (tensor, bits) not in self._shifts:
            samples, grid = self._statistics.samples[tensor], self._grid(self.network.storage[tensor], bits)
            self._shifts[tensor, bits] = (grid.read(grid.store(samples)) - samples).mean(1, dtype=np.float64)
        return self._shifts[tensor, bits]

    def _independent(self, layer: Conv, plan: _Plan) -> IntegerWeights:
        """The layer's weights for dense inputs, and a bias that keeps the mean of what it writes."""
        source = layer.inputs[0]
        inputs, outputs = plan.kept[source], plan.kept[layer.name]
        bits = plan.policy.choice(layer.name).weight_bits
        codes, scale = self._rounded(layer, inputs, bits)
        dense_mean = self._statistics.moments[layer.name].mean.numpy()
        shift = self._shift(source, plan.policy.bits_of(self.network.storage[source]))
        mean = dense_mean + shift.reshape(layer.groups, -1).repeat(math.prod(layer.kernel), 1)
        if layer.groups == 1:
            mean = mean[:, columns_of(layer, inputs)]
        missing = mean_output(layer.weight, dense_mean) - scale * mean_output(codes, mean)
        return IntegerWeights(codes[outputs], bits, scale[outputs], (layer.bias + missing)[outputs])

    def _sequential(self, layer: Conv, plan: _Plan, delivered: Mapping[str, list[Tensor]]) -> IntegerWeights:
        """The layer's weights for what is delivered to it."""
        positions = self._positions[layer.name]
        source = plan.lowering.tensors[layer.inputs[0]]
        inputs, outputs = plan.kept[source.name], plan.kept[layer.name]
        other = plan.lowering.other_operand(layer)
        moments = MomentSum()
        for index, dense in enumerate(self._targets[layer.name]):
            targets = dense[..., outputs]
            if other is not None:
                targets = targets - pick(delivered[other.name][index], positions) * other.scale
            moments.add(patches(delivered[source.name][index], layer, positions) * source.scale, targets)
        weight = as_matrix(layer)
        if layer.groups == 1:
            weight = weight[:, outputs][:, :, columns_of(layer, inputs)]
        elif layer.is_depthwise:
            weight = weight[outputs]
        read, (cross, mean_target) = moments.inputs(), moments.targets()
        bits = plan.policy.choice(layer.name).weight_bits
        codes, scale = _integer(repair(weight, read.gram, cross), read.gram, layer, bits)
        return IntegerWeights(codes, bits, scale, mean_target.numpy() - scale * mean_output(codes, read.mean.numpy()))

    @torch.inference_mode()
    def _rounded(self, layer: Conv, inputs: Channels, bits: int) -> Codes:
        """All rows' codes `out x in/groups x kh x kw` and scales `out` for the input channels that remain.

        A grouped layer is prepared whole: its groups know nothing of one another, and leave with their inputs.
        """
        whole = layer.groups > 1 or len(inputs) == layer.weight.shape[1]
        key = (layer.name, b"" if whole else inputs.tobytes(), bits)
        if key not in self._weights:
            weight, gram = as_matrix(layer), self._statistics.moments[layer.name].gram
            if not whole:
                columns = columns_of(layer, inputs)
                rows = gram[:, columns]
                gram = rows[:, :, columns]
                weight = repair(weight[:, :, columns], gram, rows @ weight.mT)
            self._weights[key] = _integer(weight, gram, layer, bits)
        return self._weights[key]


def _integer(weight: Tensor, gram: Tensor, layer: Conv, bits: int) -> Codes:
    """Codes of `groups x out/groups x d` weights, in the shape of the layer's own, and their scales."""
    scale = weight_scales(weight, bits)
    codes = round_compensated(weight, scale, gram, bits).to(torch.int8)
    return codes.reshape(-1, codes.shape[2] // math.prod(layer.kernel), *layer.kernel).numpy(), scale.flatten().numpy()
