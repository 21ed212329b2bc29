"""Networks from images to images: the result is a map, to which the image itself may belong."""

from __future__ import annotations

from automc.compression.policy import Policy
from automc.compression.prepare import Preparation
from tests.shapes import Denoising, Enlarging, GraphTests


class TestDenoising(GraphTests):
    network = Denoising

    def test_the_result_is_as_large_as_the_image(self, preparation: Preparation) -> None:
        assert preparation.program(Policy()).outputs == 64
        assert "image" in preparation.network.groups[-1].reason


class TestEnlarging(GraphTests):
    network = Enlarging

    def test_the_result_is_four_times_as_large(self, preparation: Preparation) -> None:
        assert preparation.program(Policy()).outputs == 256
        assert preparation.network.groups[-1].slots == 1
        assert not preparation.network.groups[-1].prunable
