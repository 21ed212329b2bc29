"""How large a delivered library is: ResNet-8 of MLPerf Tiny, code and weights, its memory, and what it links with."""

import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

from automc.choices import Codebook, Sparse, Uniform
from automc.compiler.artifact import compile_program
from automc.compiler.sizes import program_bytes
from automc.compression.policy import Policy, uniform_policy
from automc.compression.prepare import Preparation
from automc.cost.model import CostModel
from automc.network.zoo import build_network
from tests.cost_examples import kernels_of, table_for
from tests.networks import randomise, traced


@pytest.fixture(scope="module")
def resnet8():
    """Ready for any policy; the images are noise."""
    torch.manual_seed(0)
    module = build_network("resnet8", 10, 3)
    randomise(module, 0)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    return Preparation(traced(module, (3, 32, 32)), pixels)


@pytest.fixture(scope="module")
def programs(resnet8):
    """ResNet-8 by the bits of its weights."""
    return {bits: resnet8.program(uniform_policy(resnet8.network, weight_bits=bits)) for bits in (8, 4)}


@pytest.mark.parametrize(
    ("choice", "lowest"),
    [
        (Uniform(weight_bits=5), 1.0),
        (Uniform(huffman=True), 0.8),
        (Uniform(weight_bits=3, huffman=True), 0.8),
        (Codebook(entries=16), 1.0),
        (Codebook(entries=16, huffman=True), 0.8),
        (Sparse(density=0.5, pattern="blocks"), 0.85),
        (Sparse(density=0.5, pattern="blocks", entries=16), 0.85),
        (Sparse(density=0.5, pattern="blocks", entries=16, huffman=True), 0.7),
        (Sparse(density=0.5), 0.8),
        (Sparse(density=1.0), 0.75),
        (Sparse(density=0.25, entries=16, huffman=True), 0.7),
        (Sparse(density=0.05, huffman=True), 0.8),
    ],
    ids=str,
)
def test_before_there_is_a_program_its_size_is_known_about(choice, lowest, resnet8):
    network = resnet8.network
    prunable = [group.name for group in network.groups if group.prunable]
    for ratio in (1.0, 0.6):
        weights = {layer.name: choice for layer in network.convs[1:-1]}
        policy = Policy(keep_ratio=dict.fromkeys(prunable, ratio), weights=weights)
        kernels = {*kernels_of(network, policy), *kernels_of(network, Policy())}
        estimate = CostModel(network, table_for(dict.fromkeys(kernels, 1.0))).cost(policy).size_bytes
        found = sum(program_bytes(resnet8.program(policy)).values())
        assert lowest <= found / estimate <= (1.0 if lowest == 1.0 else 1.1)


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
