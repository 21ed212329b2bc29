"""What the dense network computes on the calibration images: moments of convolutions' inputs, samples of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from automc.network.forward import walk
from automc.network.graph import Conv, Network
from automc.network.training import normalise

BATCH = 64
POSITIONS = 24  # sampled output positions of each convolution, the same in every image
SAMPLES = 2048  # sampled values of each channel of a tensor

Positions = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Moments:
    """Of the inputs that a convolution's kernel meets: `d = in/groups * kh * kw` values for each of its groups.

    gram: `groups x d x d` float64 covariance, mean: `groups x d` float64.
    """

    gram: Tensor
    mean: Tensor


@dataclass(frozen=True, eq=False)
class Statistics:
    """moments: by convolution; samples: `channels x m` float32 of each tensor that is stored or convolved."""

    moments: Mapping[str, Moments]
    samples: Mapping[str, NDArray[np.float32]]


@torch.inference_mode()
def collect(network: Network, pixels: NDArray[np.uint8], positions: Mapping[str, Positions]) -> Statistics:
    """Run the dense network over the calibration images `n x h x w x c`; `positions` are of `sample_positions`."""
    sums: dict[str, MomentSum] = {layer.name: MomentSum() for layer in network.convs}
    read = [layer.inputs[0] for layer in network.convs]
    samples: dict[str, list[Tensor]] = {name: [] for name in (*network.stored_tensors, *read)}
    places = -(-SAMPLES // len(pixels))
    for batch in batches(network, pixels):
        for layer, inputs, _, after in walk(network.layers, batch):
            if isinstance(layer, Conv):
                sums[layer.name].add(patches(inputs[0], layer, positions[layer.name]))
            if layer.name in samples:
                rows, columns = zip(*positions[layer.name][:places], strict=True)
                samples[layer.name].append(after[:, :, rows, columns].transpose(0, 1).flatten(1))
    return Statistics(
        {name: moments.inputs() for name, moments in sums.items()},
        {name: torch.cat(parts, 1).numpy() for name, parts in samples.items()},
    )


@torch.inference_mode()
def dense_targets(
    network: Network, pixels: NDArray[np.uint8], positions: Mapping[str, Positions]
) -> dict[str, list[Tensor]]:
    """What each convolution should write before its activation, `n x positions x out` at its sampled positions.

    For a convolution that is fused into a sum it is the sum.
    """
    conv_of = {layer.name: layer.name for layer in network.convs}
    for total, conv in network.fused_sums.items():
        conv_of[total] = conv_of.pop(conv)
    parts: dict[str, list[Tensor]] = {layer.name: [] for layer in network.convs}
    for batch in batches(network, pixels):
        for layer, _, before, _ in walk(network.layers, batch):
            if layer.name in conv_of:
                conv = conv_of[layer.name]
                parts[conv].append(pick(before, positions[conv]))
    return parts


def batches(network: Network, pixels: NDArray[np.uint8]) -> Iterator[Tensor]:
    """The images as the network sees them, a few at a time."""
    for start in range(0, len(pixels), BATCH):
        yield normalise(pixels[start : start + BATCH], network.mean, network.std)


def sample_positions(network: Network, seed: int) -> dict[str, Positions]:
    """For each layer's tensor some (row, column), drawn without repetition."""
    chosen = {}
    for index, layer in enumerate(network.layers):
        _, height, width = layer.shape
        drawn = np.random.default_rng([seed, index]).permutation(height * width)[:POSITIONS]
        chosen[layer.name] = tuple((int(place) // width, int(place) % width) for place in drawn)
    return chosen


def pick(values: Tensor, positions: Positions) -> Tensor:
    """The channels at some positions: `n x c x h x w` to `n x positions x c`."""
    rows, columns = zip(*positions, strict=True)
    return values[:, :, rows, columns].transpose(1, 2)


def patches(values: Tensor, layer: Conv, positions: Positions) -> Tensor:
    """What the kernel meets at some output positions: `n x c x h x w` to `n x positions x groups x d`.

    `values` may have fewer channels than the dense network's; a depthwise layer then has as many groups.
    """
    count, channels = values.shape[:2]
    groups = channels if layer.is_depthwise else layer.groups
    padded = F.pad(values, (layer.padding[1],) * 2 + (layer.padding[0],) * 2)
    reach = [layer.dilation[axis] * (layer.kernel[axis] - 1) + 1 for axis in (0, 1)]
    windows = []
    for row, column in positions:
        top, left = row * layer.stride[0], column * layer.stride[1]
        window = padded[:, :, top : top + reach[0] : layer.dilation[0], left : left + reach[1] : layer.dilation[1]]
        windows.append(window.reshape(count, groups, -1))
    return torch.stack(windows, 1)


class MomentSum:
    """Sums up rows of inputs, and of targets beside them, into centred moments."""

    def __init__(self) -> None:
        self._rows = 0
        self._origins: tuple[Tensor, Tensor]
        self._sums: list[Tensor] = []

    def add(self, inputs: Tensor, targets: Tensor | None = None) -> None:
        """inputs: `n x positions x groups x d`, targets: `n x positions x out`."""
        x = inputs.flatten(0, 1).transpose(0, 1)  # groups x rows x d
        groups, rows, _ = x.shape
        y = x[..., :0] if targets is None else targets.reshape(rows, groups, -1).transpose(0, 1)
        if not self._sums:  # near the means, so that small variances survive float32
            self._origins = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
        x, y = x - self._origins[0], y - self._origins[1]
        # Within a batch float32 is precise enough, over all of them it is not.
        parts = [part.double() for part in (x.mT @ x, x.mT @ y, x.sum(1), y.sum(1))]
        self._sums = [total + part for total, part in zip(self._sums, parts, strict=True)] if self._sums else parts
        self._rows += rows

    def inputs(self) -> Moments:
        """The moments of the inputs."""
        mean = self._sums[2] / self._rows
        gram = self._sums[0] / self._rows - mean[:, :, None] * mean[:, None, :]
        return Moments(gram, mean + self._origins[0][:, 0].double())

    def targets(self) -> tuple[Tensor, Tensor]:
        """The inputs' covariance with the targets `groups x d x out/groups`, and the targets' means `out`."""
        input_mean, mean = self._sums[2] / self._rows, self._sums[3] / self._rows
        cross = self._sums[1] / self._rows - input_mean[:, :, None] * mean[:, None, :]
        return cross, (mean + self._origins[1][:, 0].double()).flatten()
