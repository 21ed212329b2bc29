"""The second-order removal order: in turn the channel leaves that is missed least once the others are refitted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automc.compression.quantize import damp
from automc.compression.reconstruct import as_matrix
from automc.compression.statistics import Moments
from automc.network.graph import Network

_RIDGE = 1e-4  # of the mean diagonal, so that the Gram matrix of dependent channels has an inverse
_TOGETHER = 16  # channels whose leaving changes the large inverse at once


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


class _Reader:
    """A convolution that reads channels of the group, or one of its sets of channels, as elimination goes on.

    slots: `in`, -1 for channels of other groups; gram: `d x d` of the inputs, weight: `d x out`. Both shrink as
    channels leave, and the weights are refitted to those that remain. Of the inverse Gram matrix only its diagonal
    blocks are always up to date: the rest follows some channels later, by one product instead of many.
    """

    def __init__(self, slots: NDArray[np.int64], gram: Tensor, weight: Tensor) -> None:
        self.slots = slots
        self._weight = weight.clone()
        self._variance = max(float((weight * (gram @ weight)).sum()), 1e-30)
        self._inverse = torch.cholesky_inverse(torch.linalg.cholesky(damp(gram[None], _RIDGE)[0]))
        self._taps = len(weight) // len(slots)
        self._blocks = self._diagonal_blocks()
        self._alive = np.ones(len(slots), bool)
        self._waiting: list[tuple[Tensor, Tensor]] = []  # the inverse is `_inverse` less the sum of their products

    def costs(self) -> Tensor:
        """`in`: the squared error that each channel's removal would add, relative to the output's variance."""
        weight = self._weight.view(len(self.slots), self._taps, -1)
        squares = torch.linalg.solve(self._blocks, weight @ weight.mT)
        costs: Tensor = squares.diagonal(dim1=1, dim2=2).sum(1) / self._variance
        return costs

    def remove(self, slot: int) -> None:
        """Take the slot's channels out; the weights of the others make up for them."""
        for channel in np.flatnonzero((self.slots == slot) & self._alive):
            self._remove(int(channel))
        if len(self._waiting) >= _TOGETHER:
            self._shrink()

    def _remove(self, channel: int) -> None:
        taps, channels = self._taps, len(self.slots)
        gone = slice(channel * taps, (channel + 1) * taps)
        rows = self._inverse[gone].clone()
        for columns, solved in self._waiting:
            rows -= columns[gone] @ solved
        solved = torch.linalg.solve(rows[:, gone], rows)
        self._weight -= rows.mT @ torch.linalg.solve(rows[:, gone], self._weight[gone])
        block_rows, block_solved = (each.view(taps, channels, taps).transpose(0, 1) for each in (rows, solved))
        self._blocks -= block_rows.mT @ block_solved
        self._weight[gone] = 0
        self._blocks[channel] = torch.eye(taps, dtype=rows.dtype)
        self._alive[channel] = False
        self._waiting.append((rows.mT, solved))

    def _shrink(self) -> None:
        """Bring the inverse up to date, and let go of the channels that left."""
        columns, solved = (
            torch.cat(parts, axis) for parts, axis in zip(zip(*self._waiting, strict=True), (1, 0), strict=True)
        )
        stay = torch.from_numpy(np.flatnonzero(self._alive.repeat(self._taps)))
        self._inverse = self._inverse[stay][:, stay].addmm_(columns[stay], solved[:, stay], alpha=-1)
        self._weight, self.slots = self._weight[stay], self.slots[self._alive]
        self._blocks = self._diagonal_blocks()
        self._alive = np.ones(len(self.slots), bool)
        self._waiting = []

    def _diagonal_blocks(self) -> Tensor:
        channels, taps = len(self.slots), self._taps
        blocks = self._inverse.view(channels, taps, channels, taps)
        return blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()


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
            readers.append(_Reader(channels, gram, own.T))
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
            reader.remove(slot)
        alive[slot] = False
        order.append(slot)
    return np.array(order, np.int64)
