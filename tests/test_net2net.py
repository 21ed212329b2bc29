"""Grown networks compute what the small ones compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from automc.errors import NameNotFound, PolicyError
from automc.network.forward import forward
from automc.network.graph import Conv, Network
from automc.network.net2net import deepen, widen
from tests.networks import TINY_NETWORKS, TinyResidual, randomise, traced
from tests.shapes import SHAPES


def results(network: Network) -> Tensor:
    images = torch.randn((3, *network.input.shape), generator=torch.Generator().manual_seed(5))
    return forward(network.layers, images)[network.output.name]


def assert_same(grown: Network, network: Network) -> None:
    torch.testing.assert_close(results(grown), results(network), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [*TINY_NETWORKS, *SHAPES], ids=lambda kind: kind.__name__)
def test_every_group_can_be_widened(kind: type[nn.Module]) -> None:
    network = traced(kind())
    widened = 0
    for group in network.groups:
        if group.prunable:
            grown = widen(network, group.name, group.slots + 3, seed=1)
            assert next(each for each in grown.groups if each.name == group.name).slots >= group.slots
            assert grown.macs > network.macs
            assert_same(grown, network)
            widened += 1
    assert widened


@pytest.mark.parametrize("kind", [*TINY_NETWORKS, *SHAPES], ids=lambda kind: kind.__name__)
def test_every_layer_can_be_deepened(kind: type[nn.Module]) -> None:
    network = traced(kind())
    for layer in network.convs:
        grown = deepen(network, layer.name)
        assert len(grown.convs) == len(network.convs) + 1
        assert grown[f"{layer.name}.deeper"].shape == layer.shape
        assert_same(grown, network)


def test_growing_twice() -> None:
    network = traced(TinyResidual())
    grown = deepen(widen(network, "same1.0", 20), "same1.0")
    layer = grown["same1.0.deeper"]
    assert isinstance(layer, Conv)
    assert layer.weight.shape == (20, 20, 3, 3)
    assert [group.slots for group in grown.groups if group.name.startswith("same1.0")] == [20, 20]
    assert_same(grown, network)


def test_copies_differ_in_what_is_read_of_them() -> None:
    network = traced(TinyResidual())
    reader = widen(network, "same1.0", 16, seed=3)["same2.0"]
    assert isinstance(reader, Conv)
    columns = reader.weight.reshape(8, 16, -1).transpose(1, 0, 2).reshape(16, -1)
    assert len(np.unique(columns, axis=0)) == 16


class Enlarging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(2, 1, 3))
        randomise(self, 0)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize(
    ("kind", "group", "slots", "error", "words"),
    [
        (TinyResidual, "same1", 9, NameNotFound, "Did you mean 'same1.0'"),
        (TinyResidual, "linear", 12, PolicyError, "its outputs are the network's result"),
        (TinyResidual, "same1.0", 7, PolicyError, "has 8 channels. Got 7"),
        (Enlarging, "layers.0", 3, PolicyError, "makes pixels of these channels"),
    ],
)
def test_what_cannot_be_widened(
    kind: type[nn.Module], group: str, slots: int, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        widen(traced(kind()), group, slots)


def test_only_layers_with_weights_can_be_deepened() -> None:
    with pytest.raises(NameNotFound, match="has no layer 'add'"):
        deepen(traced(TinyResidual()), "add")
