"""Kernels that skip or count: block-sparse ResNet-8 against its own dense form, and a binary convolution's GMAC/s.

    python tests/benchmarks/kernels.py

Both forms of a network hold the same weights and take turns; what is printed of them is the median ratio of their times
in neighbouring moments, and the lower quartile of each one's. The binary layer is 3x3, 128 to 128 channels; packing its
input's bits is part of its time.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from automc.compiler.artifact import compile_batch
from automc.compiler.targets import TARGETS, runs_here
from automc.compression.operations import Convolve, Quantise, Tensor
from automc.compression.policy import uniform_policy
from automc.compression.prepare import Preparation
from automc.compression.program import Program
from automc.network.trace import trace
from automc.network.zoo import build_network

ROUNDS = 101
DENSITY = 0.5
NETWORKS = (("avx2", 8, 7), ("avx2", 8, 8), ("avx2", 4, 8), ("avx512vnni", 8, 8))
BINARY = ("avx2", "avx512vnni", "avx512vpopcnt", "portable")
SIZES = (16, 8)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def without_blocks(program: Program, random: np.random.Generator) -> Program:
    """Half of the blocks of 4 inputs by 16 outputs of each layer become zero, but of the first, which has 3 inputs."""
    operations = list(program.operations)
    for position, operation in enumerate(operations):
        if not isinstance(operation, Convolve) or operation.weight.shape[1] < 4:
            continue
        shape = (-(-operation.outputs // 16), operation.weight.shape[1] // 4, *operation.kernel)
        keep = (random.permutation(int(np.prod(shape))) >= DENSITY * np.prod(shape)).reshape(shape)
        weight = operation.weight * keep.repeat(16, 0).repeat(4, 1)[: operation.outputs]
        operations[position] = dataclasses.replace(operation, weight=weight.astype(np.int8))
    return dataclasses.replace(program, operations=tuple(operations))


def in_blocks(program: Program) -> Program:
    """The same program, its layers but the first stored and computed in blocks."""
    operations = [
        dataclasses.replace(operation, encoding="blocks")
        if isinstance(operation, Convolve) and operation.weight.shape[1] >= 4
        else operation
        for operation in program.operations
    ]
    return dataclasses.replace(program, operations=tuple(operations))


def compare_blocks(folder: Path) -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (64, 32, 32, 3), np.uint8)
    network = trace(build_network("resnet8", 10, 3), (3, 32, 32), MEAN, STD, "resnet8")
    preparation = Preparation(network, pixels)
    for target, weight_bits, activation_bits in NETWORKS:
        if not runs_here(TARGETS[target]):
            print(f"{target} does not run here")
            continue
        policy = uniform_policy(network, weight_bits=weight_bits, activation_bits=activation_bits)
        dense = without_blocks(preparation.program(policy), random)
        libraries = compile_batch([dense, in_blocks(dense)], target, folder / f"{target}{weight_bits}{activation_bits}")
        assert np.array_equal(libraries[0].run(pixels[:8]), libraries[1].run(pixels[:8]))
        times = np.array([[library.time(pixels[0], 5).min() for library in libraries] for _ in range(ROUNDS)])
        ratio, quartiles = np.median(times[:, 0] / times[:, 1]), np.quantile(times, 0.25, axis=0)
        print(
            f"ResNet-8 ({dense.macs / 1e6:.2f} M MACs) {target} W{weight_bits}A{activation_bits}: dense "
            f"{quartiles[0] * 1e3:.4f} ms, half of the blocks {quartiles[1] * 1e3:.4f} ms, {ratio:.2f} times as fast"
        )


def binary_program(size: int) -> Program:
    random = np.random.default_rng(size)
    shape = (128, size, size)
    tensors = {name: Tensor(name, *shape, 1, 1.0, 0) for name in ("pixels", "inner")}

    def layer(target: str, source: str, outputs: int, kernel: int, padding: int) -> Convolve:
        weight = random.choice(np.array([-1, 1], np.int8), (outputs, 128, kernel, kernel))
        bias, multiplier = np.zeros(outputs, np.int32), np.full(outputs, 0.01, np.float32)
        pads = (padding, padding)
        return Convolve(target, source, weight, 1, bias, multiplier, (1, 1), pads, (1, 1), 1, 0, 1)

    table = (np.arange(256) > 127).astype(np.uint8) * np.ones((128, 1), np.uint8)
    operations = (Quantise("pixels", table), layer("inner", "pixels", 128, 3, 1), layer("logits", "inner", 10, size, 0))
    return Program("binary", tensors, operations)


def time_binary(folder: Path) -> None:
    for target in BINARY:
        if not runs_here(TARGETS[target]):
            print(f"{target} does not run here")
            continue
        programs = [binary_program(size) for size in SIZES]
        for size, library in zip(SIZES, compile_batch(programs, target, folder / target), strict=True):
            pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 128), np.uint8)
            macs = size * size * 128 * 128 * 9
            seconds = np.quantile([library.layer_times(pixels, 3)[:, 1].min() for _ in range(ROUNDS)], 0.25)
            print(f"binary 3x3 128 to 128 of {size}x{size}, {target}: {macs / seconds / 1e9:7.1f} GMAC/s")


def main() -> None:
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        time_binary(Path(name))
        compare_blocks(Path(name))


if __name__ == "__main__":
    main()
