"""`Preparation`: a dense network and calibration images, from which any policy becomes a Program without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automc.compression.lower import Channels, IntegerWeights, Lowering
from automc.compression.policy import Policy, kept_slots
from automc.compression.program import Program
from automc.compression.prune import removal_order
from automc.compression.quantize import Grid, activation_grid, round_compensated, weight_scales
from automc.compression.reconstruct import repair
from automc.compression.statistics import collect
from automc.errors import DataError, PolicyError
from automc.network.graph import Conv, Network


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
        self._seed = seed
        self._statistics = collect(network, pixels, seed)
        self.removal_order = removal_order(network, self._statistics.moments)
        self._weights: dict[tuple[str, bytes, int], tuple[NDArray[np.int8], NDArray[np.float64]]] = {}
        self._storage = _storage(network)
        self._grids: dict[tuple[str, int], Grid] = {}
        self._shifts: dict[tuple[str, int], NDArray[np.float64]] = {}

    def program(self, policy: Policy) -> Program:
        """Independent preparation: each layer is repaired on what the dense network gives it.

        So a layer is prepared once for each set of input channels and each choice, and a policy is assembled from what
        is already there. Raises `PolicyError` for a policy that does not fit the network.
        """
        policy = policy.normalised(self.network)
        kept = self._kept_channels(policy)
        lowering = Lowering(self.network, kept, self._grids_of(policy))
        for layer in self.network.layers:
            lowering.add(layer, self._independent(layer, policy, kept) if isinstance(layer, Conv) else None)
        return lowering.program()

    def _kept_channels(self, policy: Policy) -> dict[str, Channels]:
        slots = kept_slots(policy, self.network, self.removal_order)
        kept = {layer.name: self.network.kept_channels(layer.name, slots) for layer in self.network.layers}
        for name, channels in kept.items():
            if len(channels) == 0:
                raise PolicyError(f"keep_ratio: no channel of {name} would remain")
        return kept

    def _grids_of(self, policy: Policy) -> dict[str, Grid]:
        return {name: self._grid(name, policy.bits_of(name)) for name in self.network.quantised_tensors}

    def _grid(self, tensor: str, bits: int) -> Grid:
        if (tensor, bits) not in self._grids:
            self._grids[tensor, bits] = activation_grid(self._statistics.samples[tensor], bits)
        return self._grids[tensor, bits]

    def _shift(self, tensor: str, bits: int) -> NDArray[np.float64]:
        """`channels`: by how much storing `tensor` in so many bits moves its mean."""
        if (tensor, bits) not in self._shifts:
            samples, grid = self._statistics.samples[tensor], self._grid(self._storage[tensor], bits)
            self._shifts[tensor, bits] = (grid.read(grid.store(samples)) - samples).mean(1, dtype=np.float64)
        return self._shifts[tensor, bits]

    def _independent(self, layer: Conv, policy: Policy, kept: Mapping[str, Channels]) -> IntegerWeights:
        """The layer's weights for dense inputs, and a bias that keeps the mean of what it writes."""
        source = layer.inputs[0]
        inputs, outputs = kept[source], kept[layer.name]
        bits = policy.choice(layer.name).weight_bits
        codes, scale = self._rounded(layer, inputs, bits)
        dense_mean = self._statistics.moments[layer.name].mean.numpy()
        shift = self._shift(source, policy.bits_of(self._storage[source]))
        mean = dense_mean + shift.reshape(layer.groups, -1).repeat(_taps(layer), 1)
        if layer.groups == 1:
            mean = mean[:, _columns(layer, inputs)]
        missing = _applied(layer.weight, dense_mean) - scale * _applied(codes, mean)
        return IntegerWeights(codes[outputs], bits, scale[outputs], (layer.bias + missing)[outputs])

    @torch.inference_mode()
    def _rounded(self, layer: Conv, inputs: Channels, bits: int) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        """All rows' codes `out x in/groups x kh x kw` and scales `out` for the input channels that remain.

        A grouped layer is prepared whole: its groups know nothing of one another, and leave with their inputs.
        """
        whole = layer.groups > 1 or len(inputs) == layer.weight.shape[1]
        key = (layer.name, b"" if whole else inputs.tobytes(), bits)
        if key not in self._weights:
            weight, gram = _matrix(layer), self._statistics.moments[layer.name].gram
            if not whole:
                columns = _columns(layer, inputs)
                rows = gram[:, columns]
                gram = rows[:, :, columns]
                weight = repair(weight[:, :, columns], gram, rows @ weight.mT)
            self._weights[key] = _integer(weight, gram, layer, bits)
        return self._weights[key]


def _storage(network: Network) -> dict[str, str]:
    """For each tensor the one whose grid it is stored on: gathers and maxima only move values."""
    storage: dict[str, str] = {}
    for layer in network.layers:
        moves = layer.inputs and layer.name not in network.quantised_tensors
        storage[layer.name] = storage[layer.inputs[0]] if moves else layer.name
    return storage


def _taps(layer: Conv) -> int:
    return layer.kernel[0] * layer.kernel[1]


def _matrix(layer: Conv) -> Tensor:
    """The dense weights as `groups x out/groups x d` float64."""
    return torch.tensor(layer.weight, dtype=torch.float64).reshape(layer.groups, -1, layer.weight[0].size)


def _columns(layer: Conv, inputs: Channels) -> Channels:
    """Where the kernels of some input channels stand among the columns of `_matrix`."""
    taps = _taps(layer)
    return (inputs[:, None] * taps + np.arange(taps)).ravel()


def _integer(weight: Tensor, gram: Tensor, layer: Conv, bits: int) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    scale = weight_scales(weight, bits)
    codes = round_compensated(weight, scale, gram, bits).to(torch.int8)
    return codes.numpy().reshape(-1, weight.shape[2] // _taps(layer), *layer.kernel), scale.flatten().numpy()


def _applied(weight: NDArray[Any], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """`out`: what `weight` (`out x in/groups x kh x kw`) makes of the mean inputs `groups x d`."""
    rows = weight.reshape(len(mean), -1, mean.shape[1]).astype(np.float64)
    return (rows @ mean[:, :, None]).ravel()
