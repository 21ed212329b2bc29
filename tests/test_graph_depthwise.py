"""Depthwise convolutions: they hand channels on, in MobileNets from the expansion to the projection."""

from __future__ import annotations

from automc.compression.prepare import Preparation
from tests.shapes import Depthwise, GraphTests


class TestDepthwise(GraphTests):
    network = Depthwise

    def test_depthwise_layers_share_the_channels_before_them(self, preparation: Preparation) -> None:
        assert [list(group.members) for group in preparation.network.groups if group.prunable] == [
            ["layers.0", "layers.3.conv.0"],
            ["layers.3.conv.3", "layers.4.conv.6", "layers.5"],
            ["layers.4.conv.0", "layers.4.conv.3"],
            ["layers.8"],
        ]
