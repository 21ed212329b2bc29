"""Grouped convolutions: their sets of channels stay equally large, or whole where that cannot be."""

from __future__ import annotations

from automc.compression.prepare import Preparation
from tests.shapes import GraphTests, Grouped


class TestGrouped(GraphTests):
    network = Grouped

    def test_sets_lose_equally_many_channels_or_none(self, preparation: Preparation) -> None:
        network = preparation.network
        slots = {group.name: group.slots for group in network.groups if group.prunable}
        assert slots == {"layers.3.reduce.0": 3, "layers.4.reduce.0": 3, "layers.5": 4, "layers.9": 6}
        kept = [group for group in network.groups if not group.prunable]
        assert [group.name for group in kept] == ["layers.0", "layers.7", "linear"]
        assert "layers.7 computes 3 separate sets of channels, which cannot be made smaller evenly" in kept[1].reason
