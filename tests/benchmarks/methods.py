"""What each method of compressing weights, and each order of removing channels, costs the public ResNet-20.

    python tests/benchmarks/methods.py WEIGHTS.safetensors [--images 2000]

WEIGHTS is `resnet20_cifar10` of akamaster/pytorch_resnet_cifar10. One method for all layers but the first and the last,
which keep 8 bits, as all activations do; what is for dense layers alone is for the last one. Calibrated on 512 training
images, repaired in sequence, no fine-tuning.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from safetensors.torch import load_file

from automc.choices import Choice, Codebook, Gated, LowRank, Sparse, Uniform
from automc.compiler.sizes import program_bytes
from automc.compression.executor import Executor
from automc.compression.policy import Policy, unfit, uniform_policy
from automc.compression.prepare import Preparation
from automc.network.datasets import load_dataset
from automc.network.trace import trace
from automc.network.zoo import build_network
from automc.schema import Removal

CHOICES: dict[str, Choice] = {
    "8 bits": Uniform(),
    "1 bit": Uniform(weight_bits=1),
    "4 entries": Codebook(entries=4),
    "16 entries": Codebook(entries=16),
    "4 entries by a mixture": Codebook(entries=4, prior="mixture"),
    "16 entries by a mixture": Codebook(entries=16, prior="mixture"),
    "50 % unstructured": Sparse(density=0.5),
    "2:4": Sparse(density=0.5, pattern="2:4"),
    "1:4": Sparse(density=0.25, pattern="1:4"),
    "50 % of blocks 4 x 16": Sparse(density=0.5, pattern="blocks"),
    "2 bits": Uniform(weight_bits=2),
    "4 bits": Uniform(weight_bits=4),
    "50 % unstructured, 16 entries": Sparse(density=0.5, entries=16),
    "75 % of blocks 4 x 16": Sparse(density=0.75, pattern="blocks"),
    "gated to 75 %": Gated(active_ratio=0.75),
    "50 % unstructured, 2 bits": Sparse(density=0.5, weight_bits=2),
    "half the rank of the last layer": LowRank(rank_ratio=0.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("cifar10")
    module = build_network("resnet20", 10, 3)
    module.load_state_dict(load_file(arguments.weights))
    module.eval()
    network = trace(module, (3, 32, 32), data.mean, data.std, "resnet20")
    chosen = np.random.default_rng(0).permutation(len(data.train))[:512]
    pixels = data.train.pixels[chosen]
    preparation = Preparation(network, pixels)
    test = data.test.take(np.arange(arguments.images))
    print("| weights | test accuracy | MACs | weights, kB | preparation, CPU s |\n|---|---|---|---|---|")
    for name, choice in CHOICES.items():
        fitting = [layer.name for layer in network.convs[1:] if unfit(choice, layer.name, network) is None]
        middle = [name for name in fitting if name != network.convs[-1].name] or fitting
        started = time.process_time()
        program = preparation.sequential(Policy(weights=dict.fromkeys(middle, choice)))
        spent = time.process_time() - started
        accuracy = (Executor(program).run(test.pixels).argmax(1) == test.labels).mean()
        size = sum(program_bytes(program).values()) / 1e3
        print(f"| {name} | {accuracy:.2%} | {program.macs / 1e6:.1f} M | {size:.1f} | {spent:.1f} |", flush=True)
    inside = Policy(
        keep_ratio={group.name: 0.5 for group in network.groups if group.prunable and len(group.members) == 1}
    )
    print("\n| removal | inside of blocks | everywhere | CPU s |\n|---|---|---|---|")
    for removal in get_args(Removal):
        started = time.process_time()
        preparation = Preparation(network, pixels, removal=removal)
        spent = time.process_time() - started
        programs = [preparation.sequential(policy) for policy in (inside, uniform_policy(network, 0.75))]
        found = [(Executor(each).run(test.pixels).argmax(1) == test.labels).mean() for each in programs]
        print(f"| {removal} | {found[0]:.2%} | {found[1]:.2%} | {spent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
