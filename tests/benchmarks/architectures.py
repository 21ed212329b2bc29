"""Every network of the zoo under random policies of all methods: do all three evaluations give the same bits?

    python -m tests.benchmarks.architectures FILE [--policies 50] [--minutes 60] [NETWORK ...]

Weights are random, batch norms hold the statistics of random images, and images larger than 64 pixels are made
smaller. The first ten policies of a network are compiled as users do, the others without optimisation, in a tenth of
the time. FILE collects a line for each batch of policies, so that the same command goes on where it was stopped; the
table at the end is of all that is in it. Small networks come first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from automc.compiler.artifact import compile_batch
from automc.compression.executor import Executor
from automc.compression.interpreter import interpret
from automc.compression.prepare import Preparation
from automc.compression.program import Program
from automc.network.trace import trace
from automc.network.zoo import build_network, zoo
from tests.shapes import Pixels, random_policies

_CALIBRATION, _IMAGES = 8, 3
_LARGEST = 64  # pixels of an image's side
_OPTIMISED = 10  # policies
_BATCH_WEIGHTS = 2_000_000  # of the programs that are compiled at once


def main() -> None:
    """Check what is missing in the file, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("networks", nargs="*", metavar="NETWORK")
    parser.add_argument("--policies", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=60.0)
    given = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * given.minutes
    entries = zoo()
    order = sorted(entries, key=lambda name: sum(p.numel() for p in fresh(name).parameters()))
    for name in [name for name in order if not given.networks or name in given.networks]:
        done = sum(line["policies"] for line in read(given.file) if line["network"] == name)
        for line in check(name, done, given.policies) if done < given.policies else ():
            with given.file.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
            if time.monotonic() > end:
                break
        if time.monotonic() > end:
            break
    print(table(read(given.file)))


def read(file: Path) -> list[dict[str, object]]:
    """The lines that were written so far."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(lines: list[dict[str, object]]) -> str:
    """Per network: policies, output values compared, and how many differed."""
    rows = ["| network | images | policies | values | differ (fast) | differ (C) |", "|---|---|---|---|---|---|"]
    for name in dict.fromkeys(line["network"] for line in lines):
        mine = [line for line in lines if line["network"] == name]
        totals = [sum(line[key] for line in mine) for key in ("policies", "values", "fast", "portable")]
        rows.append("| " + " | ".join(map(str, (name, mine[0]["images"], *totals))) + " |")
    return "\n".join(rows)


def fresh(name: str) -> nn.Module:
    """A network of the zoo with weights that depend on its name alone."""
    entry = zoo()[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(name))
        return build_network(name, entry.classes, entry.shape[0])


def check(name: str, done: int, wanted: int) -> Iterator[dict[str, object]]:
    """A line for each batch of policies, from the `done`-th on."""
    channels, height, width = zoo()[name].shape
    shape = (channels, min(height, _LARGEST), min(width, _LARGEST))
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (_CALIBRATION + _IMAGES, *shape[1:], channels), dtype=np.uint8)
    module = fresh(name)
    settle(module, pixels)
    network = trace(module, shape, (0.5,) * channels, (0.25,) * channels, name)
    preparation = Preparation(network, pixels[:_CALIBRATION])
    policies = random_policies(preparation, wanted, seed=0)
    step = int(np.clip(_BATCH_WEIGHTS // network.parameters, 1, 10))
    for start in range(done, wanted, step):
        begun = time.monotonic()
        programs = [preparation.program(policy) for policy in policies[start : start + step]]
        fast, portable, values = compare(programs, pixels[_CALIBRATION:], *(["-O0"] if start >= _OPTIMISED else []))
        yield {
            "network": name, "images": " x ".join(map(str, shape)), "policies": len(programs), "values": values,
            "fast": fast, "portable": portable, "seconds": round(time.monotonic() - begun, 1),
        }  # fmt: skip


def compare(programs: list[Program], pixels: Pixels, *flags: str) -> tuple[int, int, int]:
    """How many values of the fast evaluation and of portable C, compiled with `flags`, differ, and of how many."""
    fast = portable = values = 0
    with tempfile.TemporaryDirectory() as folder:
        libraries = compile_batch(programs, "portable", Path(folder), *flags)
        for program, library in zip(programs, libraries, strict=True):
            expected = interpret(program, pixels)
            values += expected.size
            fast += int((Executor(program).run(pixels) != expected).sum())
            portable += int((library.run(pixels) != expected).sum())
    return fast, portable, values


@torch.no_grad()
def settle(module: nn.Module, pixels: Pixels) -> None:
    """Give batch norms the statistics of what they read, so that activations have the spread of a trained network's."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average of all batches
        norm.train()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1).mul(2)
    module(images)
    module.eval()


if __name__ == "__main__":
    main()
