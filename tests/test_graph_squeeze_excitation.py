"""Squeeze-and-excitation: gains are coupled with the map that they scale, and keep 8 bits."""

from __future__ import annotations

from automc.compression.prepare import Preparation
from tests.shapes import GraphTests, SqueezeExcitation, random_programs


class TestSqueezeExcitation(GraphTests):
    network = SqueezeExcitation

    def test_gains_leave_with_their_map(self, preparation: Preparation) -> None:
        members = [list(group.members) for group in preparation.network.groups]
        assert ["layers.3.conv.0", "layers.3.conv.3", "layers.3.conv.6.excite"] in members
        assert ["layers.3.conv.6.squeeze"] in members

    def test_gains_keep_eight_bits(self, preparation: Preparation) -> None:
        network = preparation.network
        gains = set(network.stored_tensors) - set(network.quantised_tensors)
        assert gains == {"layers.3.conv.6.gate", "layers.4.conv.6.gate"}
        for program in random_programs(preparation, 2):
            assert all(program.tensors[name].bits == 8 for name in gains)
