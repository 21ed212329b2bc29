"""Concatenations: channels keep their writers, also behind a batch norm that no convolution takes in."""

from __future__ import annotations

import numpy as np

from automc.compression.prepare import Preparation
from tests.shapes import Concatenation, GraphTests


class TestConcatenation(GraphTests):
    network = Concatenation

    def test_every_writer_is_free(self, preparation: Preparation) -> None:
        network = preparation.network
        alone = [group.name for group in network.groups if group.prunable]
        assert alone == [
            "layers.0", "layers.1.conv", "layers.2.conv", "layers.3.conv",
            "layers.4.squeeze", "layers.4.expand1", "layers.4.expand3",
        ]  # fmt: skip
        assert all(note.endswith("depthwise 1x1 convolution") for note in network.notes)
        assert np.unique(network.channel_slots["layers.3.norm"][:, 0]).tolist() == [0, 1, 2]
