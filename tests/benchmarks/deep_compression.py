"""Deep Compression's three stages (Han et al. 2016) on LeNet-5 and Fashion-MNIST: prune, share values, Huffman code.

    python -m tests.benchmarks.deep_compression FOLDER [--seed 0]

The dense network is trained first. After pruning and after sharing, the integer program is fine-tuned, taught by the
dense network and by labels. All states are kept in FOLDER: the same command goes on where a killed one stopped. The
size is that of everything that a library stores of its layers: tables, code lengths, biases and multipliers, too;
float32 has 4 bytes a weight. Test images are asked once for each figure.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from automc.choices import Codebook, Sparse
from automc.compiler.sizes import program_bytes
from automc.compression.executor import Executor
from automc.compression.finetune import finetune
from automc.compression.policy import Policy
from automc.compression.prepare import Preparation
from automc.compression.program import Program
from automc.network.datasets import load_dataset
from automc.network.trace import trace
from automc.network.training import ask, train
from automc.network.zoo import build_network
from automc.schema import FinetuningSpec, TrainingSpec
from tests.restore import restored

DENSITY = {"conv2": 0.2, "fc1": 0.065, "fc2": 0.25}  # of the first convolution's 500 weights none is removed
ENTRIES = {"conv2": 32, "fc1": 16, "fc2": 32}
PRUNING = Policy(weights={name: Sparse(density=density) for name, density in DENSITY.items()})
SHARING = Policy(
    weights={"conv1": Codebook(entries=64, huffman=True)}
    | {name: Sparse(density=DENSITY[name], entries=ENTRIES[name], huffman=True) for name in DENSITY}
)
EPOCHS = {"pruned": 3.0, "shared": 1.0}  # the second moves 144 values and the biases alone
CALIBRATION = 5000  # images; fewer leave the covariance of the 800 inputs of `fc1` uncertain


def _timed(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folders = {stage: given.folder / stage for stage in ("dense", "pruned", "shared")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    data = load_dataset("fashion_mnist")
    module = build_network("lenet5", 10, 1)
    recipe = TrainingSpec(epochs=8, learning_rate=0.05, weight_decay=1e-4, crop=1, bfloat16=True, seed=given.seed)
    train(module, data.train, data.mean, data.std, recipe, folders["dense"], _timed, lambda trained: "")
    network = trace(module, (1, 28, 28), data.mean, data.std, "lenet5")
    chosen = np.random.default_rng(given.seed).permutation(len(data.train))[:CALIBRATION]
    calibration = data.train.pixels[chosen]
    float_bytes = 4 * sum(layer.weight.size for layer in network.convs)
    spec = FinetuningSpec(batch_size=256, learning_rate=0.02, crop=1, flip=False, distillation=0.5, seed=given.seed)

    def report(name: str, answers: NDArray[np.float32], size: int) -> None:
        accuracy = float((answers.argmax(1) == data.test.labels).mean())
        _timed(f"{name}: test accuracy {accuracy:.4f}, {size} bytes, {float_bytes / size:.1f} x smaller")

    def stage(name: str, program: Program) -> Program:
        """`program` fine-tuned, and figures of it before and after."""
        size = sum(program_bytes(program).values())
        report(name, Executor(program).run(data.test.pixels), size)
        whole = spec.model_copy(update={"epochs": EPOCHS[name]})
        tuned = finetune(program, data.train, module, data.mean, data.std, whole, folders[name], _timed)
        tuned.save(folders[name] / "program.safetensors")
        report(f"{name}, fine-tuned", Executor(tuned).run(data.test.pixels), sum(program_bytes(tuned).values()))
        return tuned

    report("dense", ask(module, data.test.pixels, data.mean, data.std), float_bytes)
    pruned = stage("pruned", Preparation(network, calibration).sequential(PRUNING))
    stage("shared", Preparation(restored(network, pruned), calibration).sequential(SHARING))


if __name__ == "__main__":
    main()
