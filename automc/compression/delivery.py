"""What compressed layers deliver on the calibration images, remembered so that policies which begin alike share it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from automc.compression.coded import Coded
from automc.compression.tensors import Tensor as Stored

Batches = Sequence[Tensor]  # of one tensor, `stored - zero_point` as float32


@dataclass(frozen=True, eq=False)
class _Layer:
    """One layer as it was prepared: what was decided about it, its integers, and what it wrote, stored."""

    key: Hashable
    coded: Coded | None
    written: Mapping[str, Sequence[Tensor]]


class Delivery:
    """The layers of the last policy, in the order of computation, as far as their tensors fit into `limit` bytes.

    What a layer delivers follows from what was decided about it and about all layers before it: its `key` and theirs.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._layers: list[_Layer] = []

    def common(self, keys: Sequence[Hashable]) -> int:
        """How many layers at the beginning are the last policy's; the others are forgotten."""
        count = 0
        while count < min(len(keys), len(self._layers)) and keys[count] == self._layers[count].key:
            count += 1
        del self._layers[count:]
        return count

    def coded(self, position: int) -> Coded | None:
        """The integers of a remembered layer."""
        return self._layers[position].coded

    def delivered(self, tensors: Mapping[str, Stored], names: set[str]) -> dict[str, Batches]:
        """Those of the remembered tensors that are in `names`."""
        return {
            name: [batch.float() - tensors[name].zero_point for batch in batches]
            for layer in self._layers
            for name, batches in layer.written.items()
            if name in names
        }

    def remember(
        self,
        position: int,
        key: Hashable,
        coded: Coded | None,
        written: Mapping[str, Batches],
        tensors: Mapping[str, Stored],
    ) -> None:
        """Keep the layer, if all before it were kept and there is room."""
        if position != len(self._layers):
            return
        stored = {
            name: [(batch + tensors[name].zero_point).to(torch.uint8) for batch in batches]
            for name, batches in written.items()
        }
        layer = _Layer(key, coded, stored)
        if sum(map(_size_bytes, (*self._layers, layer))) <= self._limit:
            self._layers.append(layer)


def _size_bytes(layer: _Layer) -> int:
    return sum(batch.nbytes for batches in layer.written.values() for batch in batches)
