"""Splits and shuffles of channels: a half may hold channels of several layers."""

from __future__ import annotations

import numpy as np

from automc.compression.prepare import Preparation
from tests.shapes import GraphTests, SplitShuffle


class TestSplitShuffle(GraphTests):
    network = SplitShuffle

    def test_halves_belong_to_several_layers(self, preparation: Preparation) -> None:
        network = preparation.network
        assert all(group.prunable for group in network.groups[:-1])
        read = network["layers.5.right.0"].inputs[0]
        owners = [network.groups[position].name for position in np.unique(network.channel_slots[read][:, 0])]
        assert owners == ["layers.3.left.2", "layers.3.right.5", "layers.4.right.5"]
