"""The second-order removal order: in turn the channel leaves that is missed least once the others are refitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automc.compression.quantize import damp
from automc.compression.reconstruct import as_matrix
from automc.compression.statistics import Moments
from automc.network.graph import Network

_RIDGE = 1e-4  # of the mean diagonal, so that the Gram matrix of dependent channels has an inverse


@torch.inference_mode()
def second_order(network: Network, moments: Mapping[str, Moments]) -> dict[str, NDArray[np.int64]]:
    """For each prunable group its slots, the first to leave first; what remains of it is nested.

    A slot's cost is what its removal adds to the squared errors of the convolutions that read it, each relative to its
    output's variance, after the channels that remain have been refitted.
    """
    return {
        group.name: _eliminate(_readers(network, position, moments), group.slots)
        for position, group in enumerate(network.groups)
        if group.prunable
    }


@dataclass(eq=False)
class _Reader:
    """A convolution that reads channels of the group, or one of its sets of channels, as elimination goes on.

    slots: `in`, -1 for channels of other groups; inverse: `d x d` of the Gram matrix of what remains; weight:
    `d x out`, refitted to what remains; variance of the output.
    """

    slots: NDArray[np.int64]
    inverse: Tensor
    weight: Tensor
    variance: float

    def costs(self) -> Tensor:
        """`in`: the squared error that each channel's removal would add, relative to the output's variance."""
        channels = len(self.slots)
        taps = len(self.weight) // channels
        blocks = self.inverse.reshape(channels, taps, channels, taps)
        own = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        weight = self.weight.reshape(channels, taps, -1)
        costs: Tensor = (weight * torch.linalg.solve(own, weight)).sum((1, 2)) / self.variance
        return costs

    def remove(self, channel: int) -> None:
        """Take the channel out; the weights of the others make up for it."""
        taps = len(self.weight) // len(self.slots)
        gone = slice(channel * taps, (channel + 1) * taps)
        rows = self.inverse[gone]
        solved = torch.linalg.solve(rows[:, gone], torch.cat([self.weight[gone], rows], 1))
        column = self.inverse[:, gone].clone()
        self.weight -= column @ solved[:, : self.weight.shape[1]]
        self.inverse -= column @ solved[:, self.weight.shape[1] :]
        self.weight[gone] = 0
        self.inverse[gone] = 0
        self.inverse[:, gone] = 0
        self.inverse[gone, gone] = torch.eye(taps, dtype=self.inverse.dtype)


def _readers(network: Network, position: int, moments: Mapping[str, Moments]) -> list[_Reader]:
    readers = []
    for layer in network.convs:
        group, slots = network.channel_slots[layer.inputs[0]].T
        mine = group == position
        # A depthwise layer hands its channels on; those who read them there count.
        if not mine.any() or layer.is_depthwise:
            continue
        grams, rows = moments[layer.name].gram, as_matrix(layer)
        for gram, own, channels in zip(grams, rows, np.where(mine, slots, -1).reshape(layer.groups, -1), strict=True):
            weight = own.T.contiguous()
            variance = float((weight * (gram @ weight)).sum())
            inverse = torch.linalg.inv(damp(gram[None], _RIDGE)[0])
            readers.append(_Reader(channels, inverse, weight, max(variance, 1e-30)))
    return readers


def _eliminate(readers: list[_Reader], slots: int) -> NDArray[np.int64]:
    """Remove one slot after the other (optimal brain surgeon: Hassibi & Stork 1993, with blocks for single weights)."""
    order: list[int] = []
    alive = np.ones(slots, bool)
    while alive.any():
        cost = np.zeros(slots)
        for reader in readers:
            mine = reader.slots >= 0
            np.add.at(cost, reader.slots[mine], reader.costs().numpy()[mine])
        cost[~alive] = np.inf
        slot = int(cost.argmin())
        for reader in readers:
            for channel in np.flatnonzero(reader.slots == slot):
                reader.remove(int(channel))
        alive[slot] = False
        order.append(slot)
    return np.array(order, np.int64)
