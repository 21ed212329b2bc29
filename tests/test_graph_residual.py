"""Residual networks: what meets in a sum leaves together, across a padded shortcut it need not."""

from __future__ import annotations

from automc.compression.prepare import Preparation
from tests.shapes import GraphTests, Residual


class TestResidual(GraphTests):
    network = Residual

    def test_stages_are_coupled(self, preparation: Preparation) -> None:
        assert [list(group.members) for group in preparation.network.groups if len(group.members) > 1] == [
            ["layers.0", "layers.3.conv2"],
            ["layers.5.conv2", "layers.5.project.0"],
            ["layers.6.conv3", "layers.6.project.0"],
        ]
