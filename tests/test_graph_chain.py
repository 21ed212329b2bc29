"""A chain: every layer reads the one before it, the first dense one a whole map."""

from __future__ import annotations

from automc.compression.prepare import Preparation
from tests.shapes import Chain, GraphTests


class TestChain(GraphTests):
    network = Chain

    def test_every_layer_has_channels_of_its_own(self, preparation: Preparation) -> None:
        assert [(group.name, group.slots) for group in preparation.network.groups if group.prunable] == [
            ("conv1", 6), ("conv2", 9), ("fc1", 12),
        ]  # fmt: skip
