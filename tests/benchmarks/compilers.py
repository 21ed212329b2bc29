"""One policy by every compiler at every optimisation level: are the bits the same, and how long does it take?

    python tests/benchmarks/compilers.py [--images 100]

The network is ResNet-20 with the policy that the main job found, prepared on random pixels; the last line is how long
`compile_program` takes when it is asked again.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from automc.compiler.artifact import compile_program
from automc.compiler.build import SHARED, build
from automc.compiler.emit import emit_source
from automc.compiler.library import Library, open_code
from automc.compiler.lowering import lower
from automc.compiler.targets import find_target, runs_here
from automc.compiler.toolchain import tool_chain
from automc.compression.interpreter import interpret
from automc.compression.policy import Policy
from automc.compression.prepare import Preparation
from automc.compression.program import Program
from automc.network.trace import trace
from automc.network.zoo import build_network, load_weights

ROOT = Path(__file__).parents[2]
COMPILERS, LEVELS = ("zig", "gcc", "clang"), ("-O0", "-O1", "-O2", "-O3", "-Os")
TARGETS = ("avx2", "avx512vnni", "portable")


def program(random: np.random.Generator) -> Program:
    module = build_network("resnet20", 10, 3)
    load_weights(module, ROOT / "envs" / "resnet20_cifar10.safetensors")
    network = trace(module, (3, 32, 32), (0.49, 0.48, 0.45), (0.25, 0.24, 0.26), "resnet20")
    policy = Policy.from_json((ROOT / "experiments" / "results" / "resnet20_cifar10" / "policy.json").read_text())
    return Preparation(network, random.integers(0, 256, (64, 32, 32, 3), np.uint8)).program(policy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    images = parser.parse_args().images
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    found = program(random)
    pixels = random.integers(0, 256, (images, 32, 32, 3), np.uint8)
    expected = interpret(found, pixels)
    for name in TARGETS:
        target = find_target(name)
        if not runs_here(target):
            print(f"{name}: this processor does not run it")
            continue
        lowered = lower(found, target, 1)
        source = emit_source({"one": lowered})
        for compiler in COMPILERS:
            if compiler != "zig" and shutil.which(compiler) is None:
                print(f"{name} {compiler}: not installed")
                continue
            for level in LEVELS:
                with tempfile.TemporaryDirectory() as folder:
                    started = time.perf_counter()
                    build(source, tool_chain(compiler, target).with_flags(level), Path(folder))
                    seconds = time.perf_counter() - started
                    library = Library(open_code(Path(folder) / SHARED), "one", found, lowered.arena_bytes)
                    different = int((library.run(pixels) != expected).sum())
                print(
                    f"{name:12s} {compiler:6s} {level}  {seconds:5.1f} s  {different} of {expected.size} differ",
                    flush=True,
                )
    with tempfile.TemporaryDirectory() as folder:
        compile_program(found, TARGETS[0], Path(folder))
        started = time.perf_counter()
        compile_program(found, TARGETS[0], Path(folder) / "again")
        print(f"compile_program, again: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
