"""A whole compressed network on every emulated processor: ResNet-8 at its own size, every logit the interpreter's."""

import numpy as np
import pytest

from automc.compression.prepare import Preparation
from automc.network.zoo import build_network
from tests.machines import PROCESSORS, assert_exact, emulate_batch
from tests.networks import randomise, traced
from tests.shapes import random_programs


@pytest.fixture(scope="module")
def compressed():
    """Policies that prune every group of channels, with other bits and other methods in every layer."""
    module = build_network("resnet8", 10, 3)
    randomise(module, 0)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
    return random_programs(Preparation(traced(module.eval(), (3, 32, 32)), pixels), 2)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "machine"), PROCESSORS)
def test_a_compressed_resnet8_is_computed_exactly(target, machine, compressed, tmp_path):
    assert_exact(emulate_batch(compressed, target, tmp_path, machine))
