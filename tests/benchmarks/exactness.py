"""Networks under every family of policies, on every target: which values are not the interpreter's?

    python -m tests.benchmarks.exactness FILE [--families dense binary pruned mixed codebook sparse all]
        [--images 100] [--emulated 3] [--targets TARGET ...] [NETWORK ...]

FILE collects a line for each network and processor, so that the same command goes on where it was stopped; the table at
the end is of all that is in it. Weights are random, batch norms hold the statistics of random images. So many images
are computed by the fast evaluation and by libraries that run here, and so many under emulation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automc.choices import Codebook, Sparse
from automc.compiler.artifact import compile_batch
from automc.compiler.emulators import UNICORN, available
from automc.compiler.isa import Machine
from automc.compiler.targets import TARGETS, runs_here
from automc.compression.executor import Executor
from automc.compression.interpreter import interpret
from automc.compression.policy import Policy, uniform_policy
from automc.compression.prepare import Preparation
from automc.compression.program import Program
from automc.network.graph import Shape
from automc.network.trace import trace
from automc.network.zoo import zoo
from automc.schema import SearchSpaceSpec
from tests.benchmarks.architectures import fresh, read, settle
from tests.machines import emulate_batch
from tests.programs import random_pixels
from tests.shapes import EVERYTHING, SHAPES, Pixels, random_policies

_CALIBRATION = 8
_ZOO = ("resnet8", "resnet20", "ds_cnn", "mobilenetv2_100_96")
SPACES = {
    "pruned": SearchSpaceSpec(description="channels", keep_ratio=[0.3, 0.5, 0.7], activation_bits=[7, 8]),
    "mixed": SearchSpaceSpec(
        description="channels and bits",
        keep_ratio=[0.6, 1.0],
        weight_bits=[*range(2, 9)],
        activation_bits=[*range(2, 9)],
    ),
    "codebook": SearchSpaceSpec(
        description="tables", methods=[Codebook(entries=6), Codebook(entries=16, huffman=True)]
    ),
    "sparse": SearchSpaceSpec(
        description="zeros",
        methods=[Sparse(density=0.4), Sparse(density=0.5, pattern="blocks"), Sparse(pattern="2:4")],
    ),
    "all": EVERYTHING,
}
FAMILIES = ("dense", "binary", *SPACES)
Results = list[NDArray[np.float32]]  # of each program
Run = Callable[[list[Program], list[Pixels]], Results]


def main() -> None:
    """Check what is missing in the file, then print the table."""
    networks = {**dict.fromkeys(_ZOO), **{shape.__name__: shape for shape in SHAPES}}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", default=list(networks))
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--emulated", type=int, default=3)
    parser.add_argument("--families", nargs="+", metavar="FAMILY", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--targets", nargs="+", metavar="TARGET", default=list(TARGETS))
    given = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    for name in given.networks:
        done = [line["where"] for line in read(given.file) if line["network"] == name]
        wanted = {where: entry for where, entry in processors(given.targets).items() if where not in done}
        if not wanted:
            continue
        shape = networks[name]
        module, size = (fresh(name), zoo()[name].shape) if shape is None else (shape(), (1, 8, 8))
        for line in check(name, module, size, wanted, given.families, given.images, given.emulated):
            with given.file.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
    print(table(read(given.file)))


def processors(targets: list[str]) -> Mapping[str, tuple[bool, Run]]:
    """What computes, by name: whether it is emulated, and how it runs."""
    found: dict[str, tuple[bool, Run]] = {"fast evaluation": (False, evaluate)}
    for name in targets:
        if not TARGETS[name].machines and runs_here(TARGETS[name]):
            found[name] = (False, lambda programs, pixels, name=name: run_here(programs, pixels, name))
        elif not TARGETS[name].machines:
            print(f"{name}: this processor does not run it, and nothing emulates it")
        # Unicorn is several times as slow as QEMU, and takes the same code: it stands in where nothing else does.
        machines = [each for each in TARGETS[name].machines if each.emulator != UNICORN] or TARGETS[name].machines
        for machine in machines:
            if not available(machine):
                print(f"{name} on {machine}: the emulator is not installed")
                continue
            found[f"{name}, {machine}"] = (
                True,
                lambda programs, pixels, name=name, machine=machine: emulated(programs, pixels, name, machine),
            )
    return found


def evaluate(programs: list[Program], pixels: list[Pixels]) -> Results:
    return [Executor(program).run(images) for program, images in zip(programs, pixels, strict=True)]


def run_here(programs: list[Program], pixels: list[Pixels], target: str) -> Results:
    with tempfile.TemporaryDirectory() as folder:
        libraries = compile_batch(programs, target, Path(folder))
        return [library.run(images) for library, images in zip(libraries, pixels, strict=True)]


def emulated(programs: list[Program], pixels: list[Pixels], target: str, machine: Machine) -> Results:
    with tempfile.TemporaryDirectory() as folder:
        return emulate_batch(programs, target, Path(folder), machine).run_all(pixels)


def check(
    name: str,
    module: nn.Module,
    shape: Shape,
    wanted: Mapping[str, tuple[bool, Run]],
    families: list[str],
    images: int,
    few: int,
) -> Iterator[dict[str, object]]:
    """A line for each of the `wanted` processors."""
    channels, height, width = shape
    random = np.random.default_rng(0)
    calibration = random.integers(0, 256, (_CALIBRATION, height, width, channels), dtype=np.uint8)
    settle(module, calibration)
    network = trace(module, shape, (0.5,) * channels, (0.25,) * channels, name)
    preparation = Preparation(network, calibration)
    programs = [preparation.program(policy(preparation, family)) for family in families]
    pixels = [random_pixels(random, program, images) for program in programs]
    expected = [interpret(program, given) for program, given in zip(programs, pixels, strict=True)]
    for where, (is_emulated, run) in wanted.items():
        count = few if is_emulated else images
        begun = time.monotonic()
        found = run(programs, [given[-count:] for given in pixels])
        different = [
            int((one.view(np.int32) != meant[-count:].view(np.int32)).sum())
            for one, meant in zip(found, expected, strict=True)
        ]
        line = {
            "network": name, "where": where, "families": families, "images": count,
            "values": sum(one.size for one in found), "different": sum(different),
            "seconds": round(time.monotonic() - begun, 1),
        }  # fmt: skip
        print(line, flush=True)
        yield line


def policy(preparation: Preparation, family: str) -> Policy:
    """The policy of a family for a network, always the same."""
    if family == "dense":
        return uniform_policy(preparation.network)
    if family == "binary":
        return uniform_policy(preparation.network, weight_bits=1, activation_bits=1)
    return random_policies(preparation, 1, FAMILIES.index(family), SPACES[family])[0]


def table(lines: list[dict[str, object]]) -> str:
    """A row for each processor, a column for each network of the zoo and one for the shapes of graphs."""
    rows = [f"| computed by | {' | '.join((*_ZOO, 'shapes of graphs'))} | differ |", "|---" * (len(_ZOO) + 3) + "|"]
    for where in dict.fromkeys(line["where"] for line in lines):
        mine = [line for line in lines if line["where"] == where]
        values = {name: sum(line["values"] for line in mine if line["network"] == name) for name in _ZOO}
        cells = [*values.values(), sum(line["values"] for line in mine) - sum(values.values())]
        different = sum(line["different"] for line in mine)
        rows.append(f"| {where} | " + " | ".join(f"{cell:,}" for cell in cells) + f" | {different} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
