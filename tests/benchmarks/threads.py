"""What several threads gain: the same network by one thread and by more, in turns.

    python -m tests.benchmarks.threads [--threads 2] [--rounds 41] [--networks resnet8 resnet20 mobilenetv2_100_224]

One image at a time, 8-bit weights, 7-bit activations, on AVX2, and 8 bits of both on AVX-512 VNNI. One thread's time is
the processor's, several threads' the clock's, so the machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from automc.compiler.artifact import compile_batch
from automc.compiler.library import Library
from automc.compiler.targets import TARGETS, runs_here
from automc.network.zoo import zoo
from tests.benchmarks.peers import programs

_BUILDS = (("avx2", 8, 7), ("avx512vnni", 8, 8))


def build(networks: list[str], threads: int, folder: Path) -> Iterator[tuple[str, list[Library]]]:
    """The libraries of each network for one thread and for so many."""
    for name in networks:
        channels, height, width = zoo()[name].shape
        pixels = np.random.default_rng(0).integers(0, 256, (4, height, width, channels), np.uint8)
        found = programs(name, pixels)
        for target, *bits in _BUILDS:
            if not runs_here(TARGETS[target]):
                print(f"{target}: this processor does not run it")
                continue
            program = found[bits[0], bits[1]]
            places = {count: folder / f"{name}_{target}_{count}" for count in (1, threads)}
            libraries = [compile_batch([program], target, place, threads=count)[0] for count, place in places.items()]
            assert np.array_equal(libraries[0].run(pixels), libraries[1].run(pixels))
            yield f"{name:20s} {target} W{bits[0]}A{bits[1]}", libraries


def measure(title: str, libraries: list[Library], rounds: int) -> str:
    """A line for people."""
    given = libraries[0].program.input
    pixels = np.random.default_rng(0).integers(0, 256, (1, given.height, given.width, given.channels), np.uint8)
    times = np.array([[library.time(pixels, 5).min() for library in libraries] for _ in range(rounds)])
    one, more = np.quantile(times, 0.25, axis=0)
    ratio = np.median(times[:, 0] / times[:, 1])
    return f"{title}: one thread {one * 1e3:.4f} ms, several {more * 1e3:.4f} ms, {ratio:.2f} times as fast"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--networks", nargs="+", default=["resnet8", "resnet20", "mobilenetv2_100_224"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for title, libraries in build(given.networks, given.threads, Path(folder)):
            print(measure(title, libraries, given.rounds), flush=True)


if __name__ == "__main__":
    main()
