"""`Preparation`: a dense network and calibration images, from which any policy becomes a Program without training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automc.choices import Choice, Gated
from automc.compression.cache import ByteCache
from automc.compression.coded import Coded
from automc.compression.delivery import Batches, Delivery
from automc.compression.gating import Responses, gate_of, responses
from automc.compression.lower import Channels, Lowering
from automc.compression.methods import couples_outputs, encode
from automc.compression.operations import Operation
from automc.compression.policy import Policy, kept_slots
from automc.compression.program import Program
from automc.compression.quantize import Grid, activation_grid
from automc.compression.reconstruct import as_matrix, columns_of, mean_output, repair, rows_of
from automc.compression.removal import removal_orders
from automc.compression.statistics import BATCH, MomentSum, collect, dense_targets, patches, pick, sample_positions
from automc.compression.steps import step_of
from automc.errors import DataError, PolicyError, WeightsError
from automc.network.graph import Conv, Network
from automc.schema import Removal

_CACHE_BYTES = 512 << 20  # of prepared layers, and of what the last policy's layers deliver


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is decided before any layer is prepared: bits, and the channels that remain of each tensor."""

    policy: Policy
    kept: Mapping[str, Channels]
    lowering: Lowering
    keys: tuple[Hashable, ...]  # for each layer, all that was decided about it


class Preparation:
    """Prepares compressed networks from calibration images, deterministically for given images and seed.

    network: the dense one; pixels: `n x h x w x c` uint8, a few hundred training images without labels; removal: the
    order in which channels leave. Raises `DataError` for images that do not fit the network, `WeightsError` for weights
    that are not finite, `NameNotFound` for an unknown order.
    """

    def __init__(
        self, network: Network, pixels: NDArray[np.uint8], seed: int = 0, removal: Removal = "second_order"
    ) -> None:
        channels, height, width = network.input.shape
        if len(pixels) == 0:
            raise DataError("calibration needs at least one image")
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (height, width, channels):
            raise DataError(
                f"calibration images for {network.name} must be n x {height} x {width} x {channels} of uint8, "
                f"got {pixels.dtype} {pixels.shape}"
            )
        for layer in network.convs:
            if not (np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all()):
                raise WeightsError(f"{network.name}: the weights of '{layer.name}' are not all finite numbers")
        self.network = network
        self._pixels = pixels
        self._positions = sample_positions(network, seed)
        self._statistics = collect(network, pixels, self._positions)
        self.removal_order = removal_orders(removal, network, pixels, self._statistics.moments)
        self._encoded = ByteCache[Coded](_CACHE_BYTES, _size_bytes)
        self._delivery = Delivery(_CACHE_BYTES)
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
        operand, too. Slower, and several points better where much is pruned. Where a policy begins as the last one did,
        those layers are not prepared again. Raises `PolicyError` for a policy that does not fit the network.
        """
        plan = self._plan(policy)
        layers, keys = self.network.layers, plan.keys
        shared = self._delivery.common(keys)
        for position in range(shared):
            plan.lowering.add(layers[position], self._delivery.coded(position))
        read = {name for layer in layers[shared:] for name in layer.inputs}
        delivered = self._delivery.delivered(plan.lowering.tensors, read)
        for position in range(shared, len(layers)):
            layer = layers[position]
            coded = self._sequential(layer, plan, delivered) if isinstance(layer, Conv) else None
            written = self._compute(plan.lowering.add(layer, coded), plan, delivered)
            delivered |= written
            self._delivery.remember(position, keys[position], coded, written, plan.lowering.tensors)
            for name in layer.inputs:
                if self.network.consumers[name][-1] is layer:
                    delivered.pop(name, None)
        return plan.lowering.program()

    def _compute(
        self, operations: tuple[Operation, ...], plan: _Plan, delivered: Mapping[str, Batches]
    ) -> dict[str, Batches]:
        """What a layer's operations write: the tensor of the last; nothing for the result, or a sum computed before."""
        known: dict[str, Batches] = dict(delivered)
        for operation in operations:
            if operation.target in plan.lowering.tensors:  # the result is none
                step = step_of(operation, plan.lowering.tensors)
                sources = [known[name] for name in operation.sources] or [self._images]
                known[operation.target] = [step(*batch) for batch in zip(*sources, strict=True)]
        return {each.target: known[each.target] for each in operations[-1:] if each.target in known}

    @cached_property
    def _images(self) -> Batches:
        pixels = torch.tensor(self._pixels).permute(0, 3, 1, 2)
        return [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]

    @cached_property
    def _responses(self) -> Mapping[str, Responses]:
        return responses(self.network, self._pixels)

    @cached_property
    def _targets(self) -> dict[str, list[Tensor]]:
        return dense_targets(self.network, self._pixels, self._positions)

    def _plan(self, policy: Policy) -> _Plan:
        policy = policy.normalised(self.network)
        slots = kept_slots(policy, self.network, self.removal_order)
        kept = {layer.name: self.network.kept_channels(layer.name, slots) for layer in self.network.layers}
        for name, channels in kept.items():
            if len(channels) == 0:
                raise PolicyError(f"keep_ratio: no channel of {name} would remain")
        grids = {name: self._grid(name, policy.bits_of(name)) for name in self.network.stored_tensors}
        sums = {conv: total for total, conv in self.network.fused_sums.items()}
        keys = tuple(
            (kept[layer.name].tobytes(), policy.weights.get(layer.name), grids.get(sums.get(layer.name, layer.name)))
            for layer in self.network.layers
        )
        return _Plan(policy, kept, Lowering(self.network, kept, grids), keys)

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

    def _independent(self, layer: Conv, plan: _Plan) -> Coded:
        """The layer's integers for dense inputs, and biases that keep the mean of what it writes."""
        source = layer.inputs[0]
        inputs, outputs = plan.kept[source], plan.kept[layer.name]
        dense_mean = self._statistics.moments[layer.name].mean.numpy()
        shift = self._shift(source, plan.policy.bits_of(self.network.storage[source]))
        mean = dense_mean + shift.reshape(layer.groups, -1).repeat(math.prod(layer.kernel), 1)
        wanted = (mean_output(layer.weight, dense_mean) + layer.bias)[outputs]
        mean = mean[outputs] if layer.is_depthwise else np.take_along_axis(mean, columns_of(layer, inputs), 1)
        choice = plan.policy.choice(layer.name)
        coded = self._for_dense_inputs(layer, inputs, outputs, choice).with_means(mean, wanted)
        return self._gated(coded, layer, plan)

    def _sequential(self, layer: Conv, plan: _Plan, delivered: Mapping[str, Batches]) -> Coded:
        """The layer's integers for what is delivered to it."""
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
        read, (cross, mean_target) = moments.inputs(), moments.targets()
        weight = repair(_restricted(layer, inputs, outputs), read.gram, cross)
        coded = encode(weight, read.gram, layer.kernel, plan.policy.choice(layer.name))
        coded = coded.with_means(read.mean.numpy(), mean_target.numpy())
        return self._gated(coded, layer, plan, delivered[source.name])

    @torch.inference_mode()
    def _for_dense_inputs(self, layer: Conv, inputs: Channels, outputs: Channels, choice: Choice) -> Coded:
        """The layer's integers, but for biases, repaired for the input channels that remain.

        Where the choice allows it, all rows are prepared at once. A depthwise layer is prepared whole: its channels
        know nothing of one another, and leave with their inputs.
        """
        rows = outputs if couples_outputs(choice) else np.arange(layer.shape[0])
        whole = layer.is_depthwise or len(inputs) == layer.groups * layer.weight.shape[1]

        def prepared() -> Coded:
            gram = self._statistics.moments[layer.name].gram
            weight = _restricted(layer, inputs, rows)
            if layer.is_depthwise:
                gram = gram[rows]
            elif not whole:
                columns = torch.from_numpy(columns_of(layer, inputs))
                read = torch.take_along_dim(gram, columns[:, :, None], 1)
                gram = torch.take_along_dim(read, columns[:, None, :], 2)
                weight = repair(weight, gram, read @ rows_of(layer, rows).mT)
            return encode(weight, gram, layer.kernel, choice)

        key = (layer.name, b"" if whole else inputs.tobytes(), rows.tobytes(), choice)
        coded = self._encoded.get(key, prepared)
        return coded if rows is outputs else coded.rows(outputs)

    def _gated(self, coded: Coded, layer: Conv, plan: _Plan, delivered: Batches | None = None) -> Coded:
        """With the gate that the policy may have chosen for it, fitted to what is delivered or to dense inputs."""
        choice = plan.policy.choice(layer.name)
        if not isinstance(choice, Gated):
            return coded
        inputs, outputs = plan.kept[layer.inputs[0]], plan.kept[layer.name]
        seen = self._responses[layer.name].of(inputs, outputs)
        if delivered is not None:
            scale = plan.lowering.tensors[layer.inputs[0]].scale
            seen = Responses(torch.cat([batch.mean((2, 3)) for batch in delivered]).double() * scale, seen.magnitudes)
        return dataclasses.replace(coded, gate=gate_of(seen, choice.active(len(outputs))))


def _restricted(layer: Conv, inputs: Channels, outputs: Channels) -> Tensor:
    """The dense weights, `groups x out x d`, between the channels that remain."""
    if layer.is_depthwise:
        return as_matrix(layer)[outputs]
    return torch.take_along_dim(rows_of(layer, outputs), torch.from_numpy(columns_of(layer, inputs))[:, None, :], 2)


def _size_bytes(coded: Coded) -> int:
    return coded.weights.codes.nbytes + (0 if coded.before is None else coded.before.codes.nbytes)
