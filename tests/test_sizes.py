"""How large a delivered library is: ResNet-8 of MLPerf Tiny, code and weights, its memory, and what it links with."""

import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

from automc.compiler.artifact import compile_program
from automc.compression.policy import uniform_policy
from automc.compression.prepare import Preparation
from automc.network.zoo import build_network
from tests.networks import randomise, traced


@pytest.fixture(scope="module")
def programs():
    """ResNet-8 by the bits of its weights; the images are noise."""
    torch.manual_seed(0)
    module = build_network("resnet8", 10, 3)
    randomise(module, 0)
    network = traced(module, (3, 32, 32))
    preparation = Preparation(network, np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8))
    return {bits: preparation.program(uniform_policy(network, weight_bits=bits)) for bits in (8, 4)}


def listed(command, library):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run([*command, library], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("bits", "most_bytes"), [(8, 100_000), (4, 60_000)])
def test_resnet8_fits_a_small_device(bits, most_bytes, programs, tmp_path):
    artifact = compile_program(programs[bits], "avx2", tmp_path)
    text, data, zeros = map(int, listed(["size"], tmp_path / "libmodel.a").splitlines()[1].split()[:3])
    assert zeros == 0
    assert artifact.manifest["weight_bytes"] < text + data <= most_bytes
    assert artifact.manifest["arena_bytes"] <= 56_000


@pytest.mark.parametrize("target", ["rv32", "portable"])
def test_small_processors_need_no_library_but_memory_functions(target, programs, tmp_path):
    compile_program(programs[8], target, tmp_path)
    unknown = set(re.findall(r"U (\w+)", listed(["nm", "-u"], tmp_path / "libmodel.a")))
    assert unknown
    assert unknown <= {"memcpy", "memset"}
