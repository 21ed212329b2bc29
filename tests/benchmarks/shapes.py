"""Thousands of random shapes of each kind of kernel on every target: which values are not the interpreter's?

    python -m tests.benchmarks.shapes FILE [--shapes 2000] [--emulated 100] [--targets TARGET ...] [--minutes 60]

A kind is a file of `compiler/schedules/`; what else a layer of it may be (encoded, gated, with a residual …) is drawn
with its shape. Channels are around the vectors' lengths; a third of the layers have weights of the largest size only,
and one image is of the largest value everywhere. A hundred shapes are one translation unit. Nearly all time goes into
compiling: where libraries run here, five layers share a program, of which every tensor is looked at in the arena, and
only the first five units of a kind are compiled as users do, the others without optimisation. FILE collects a line for
each unit, so that the same command goes on where it was stopped; the table at the end is of all that is in it. Writing
outside of the arena or of the results ends the run, as it ends every run of a library.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from automc.compiler.build import SHARED, build
from automc.compiler.isa import ALIGNMENT
from automc.compiler.kernel import Place
from automc.compiler.library import Library, open_code
from automc.compiler.lowering import Lowered, lower
from automc.compiler.sources import emit_source
from automc.compiler.targets import TARGETS
from automc.compiler.toolchain import tool_chain
from automc.compression.interpreter import interpret, interpret_all
from automc.compression.operations import Convolve, Quantise
from automc.compression.program import Program
from tests.benchmarks.architectures import read
from tests.benchmarks.exactness import Results, processors
from tests.programs import Builder, random_pixels
from tests.shapes import Pixels
from tests.test_compiler import STRADDLING
from tests.test_encodings import encoded

_BATCH = 100  # layers of a translation unit
_LAYERS = 5  # of a program, where all tensors can be looked at
_OPTIMISED = 5  # translation units of each kind, where libraries run here
_IMAGES = 3
_ENCODINGS = ("dense", "codebook", "sparse", "dense")

Random = np.random.Generator


def _layer(
    builder: Builder, encoding: str, groups: int = 1, outputs: int = 0, source: str = "", **settings: int
) -> str:
    """A convolution, of the input if not of another `source`, with everything drawn that is not given."""
    source = source or builder.input
    random, given = builder.random, builder.tensors[source]
    outputs = outputs or int(random.choice(STRADDLING))
    taps = [
        int(random.integers(1, min(most, length) + 1)) for most, length in zip((8, 4), given.shape[1:], strict=True)
    ]
    around = [int(random.integers(0, tap // 2 + 1)) for tap in taps]
    apart = [
        int(random.integers(1, 3)) if length >= 2 * tap - 1 else 1
        for length, tap in zip(given.shape[1:], taps, strict=True)
    ]
    steps = random.integers(1, 4, 2).tolist()
    residual = gate = None
    drawn = random.random()
    if drawn < 0.2:
        taps, around, apart, steps = [tap | 1 for tap in taps], [tap // 2 for tap in taps], [1, 1], [1, 1]
        around = [tap // 2 for tap in taps]
        residual = builder.select(source, random.integers(-1, given.channels, outputs).tolist())
    elif drawn < 0.3:
        gate = builder.rank(builder.mean(source, outputs), int(random.integers(1, outputs + 1)))
    settings = {
        "weight_bits": int(random.integers(2 if encoding in ("sparse", "blocks") else 1, 9)),
        "bits": int(random.choice([*range(1, 8), *[8] * 7])),
        **settings,
    }
    target = builder.convolve(
        source, outputs, (taps[0], taps[1]), (steps[0], steps[1]), (around[0], around[1]), (apart[0], apart[1]),
        groups, residual=residual, gate=gate, **settings,
    )  # fmt: skip
    layer = builder.operations[-1]
    assert isinstance(layer, Convolve)
    layer = _largest(layer, random)
    builder.operations[-1] = encoded(random, layer, encoding, random.random() < 0.2)
    return target


def _largest(layer: Convolve, random: Random) -> Convolve:
    """A third of the layers with weights of the largest size, of one sign for each output channel or of any."""
    if random.random() > 1 / 3:
        return layer
    size = max(1, 2 ** (layer.weight_bits - 1) - 1)  # of one bit, too
    signs = random.choice([-1, 1], (layer.outputs, 1, 1, 1) if random.random() < 0.5 else layer.weight.shape)
    return dataclasses.replace(layer, weight=(size * np.broadcast_to(signs, layer.weight.shape)).astype(np.int8))


def _convolution(builder: Builder) -> str:
    channels = builder.tensors[builder.input].channels
    groups = int(builder.random.choice([each for each in (1, 1, 1, 2, 3, 4) if channels % each == 0]))
    outputs = groups * int(builder.random.integers(1, 20)) if groups > 1 else 0
    return _layer(builder, str(builder.random.choice(_ENCODINGS)), groups, outputs)


def _depthwise(builder: Builder) -> str:
    random, source = builder.random, builder.input
    if random.random() < 0.3:  # as many channels as several vectors take at once
        channels = int(random.choice([32, 39, 64, 71, 96]))
        source = builder.select(source, random.integers(0, builder.tensors[source].channels, channels).tolist())
    channels = builder.tensors[source].channels
    return _layer(builder, str(random.choice(_ENCODINGS)), channels, channels, source)


def _pooling(builder: Builder) -> str:
    random, given = builder.random, builder.tensors[builder.input]
    taps = [int(random.integers(1, min(5, length) + 1)) for length in given.shape[1:]]
    steps, around = random.integers(1, 4, 2).tolist(), [int(random.integers(0, tap // 2 + 1)) for tap in taps]
    kind = str(random.choice(["mean", "max"]))
    return builder.pool(builder.input, kind, (taps[0], taps[1]), (steps[0], steps[1]), (around[0], around[1]))


def _elementwise(builder: Builder) -> str:
    random, channels = builder.random, builder.tensors[builder.input].channels
    other = builder.select(builder.input, random.permutation(channels).tolist())
    bits = int(random.integers(1, 9))
    return {
        "sum": lambda: builder.sum(builder.input, other, bits),
        "lookup": lambda: builder.lookup(other, bits),
        "scale": lambda: builder.scale(builder.input, builder.mean(other, channels), bits),
    }[str(random.choice(["sum", "lookup", "scale"]))]()


def _moves(builder: Builder) -> str:
    random, channels = builder.random, builder.tensors[builder.input].channels
    index = random.integers(-1, channels, int(random.choice(STRADDLING))).tolist()
    chosen = builder.select(builder.input, index, int(random.integers(1, 3)))
    kind = random.choice(["select", "join", "shuffle", "rank"])
    if kind == "join":
        same = builder.select(builder.input, index)
        return builder.join([builder.input, same, builder.input], int(random.integers(1, 9)))
    if kind == "shuffle":
        return builder.shuffle(builder.select(builder.input, random.integers(-1, channels, 4 * len(index)).tolist()), 2)
    if kind == "rank":
        vector = builder.pool(chosen, "max", builder.tensors[chosen].shape[1:])
        return builder.rank(vector, int(random.integers(1, len(index) + 1)))
    return chosen


KINDS: Mapping[str, Callable[[Builder], str]] = {
    "convolution": _convolution,
    "depthwise": _depthwise,
    "binary": lambda builder: _layer(builder, "dense", weight_bits=1),
    "blocks": lambda builder: _layer(builder, "blocks"),
    "sparse": lambda builder: _layer(builder, "sparse"),
    "pooling": _pooling,
    "elementwise": _elementwise,
    "moves": _moves,
}


def batch(kind: str, number: int, layers: int) -> list[Program]:
    """The programs of one translation unit: each has so many layers of `kind`, and what those need beside the image.

    A program's results show the last of them alone.
    """
    random = np.random.default_rng([number, layers, *kind.encode()])
    programs = []
    for _ in range(_BATCH // layers):
        channels = 1 if random.random() < 0.1 else int(random.choice(STRADDLING)) + 32 * int(random.random() < 0.05)
        shape = (channels, int(random.integers(1, 10)), int(random.integers(1, 10)))
        bits = 1 if kind == "binary" else int(random.choice([*range(1, 8), *[8] * 7]))
        builder = Builder(random, shape, bits)
        first = builder.operations[0]
        assert isinstance(first, Quantise)
        first.table[:, 255] = 2**bits - 1
        target = [KINDS[kind](builder) for _ in range(layers)][-1]
        programs.append(builder.finish_map(target) if random.random() < 0.95 else builder.finish(target))
    return programs


def wrong_results(programs: list[Program], images: list[Pixels], found: Results) -> list[str]:
    """The programs, by their numbers, whose results are not the interpreter's."""
    meant = [interpret(program, each) for program, each in zip(programs, images, strict=True)]
    pairs = enumerate(zip(found, meant, strict=True))
    return [
        str(number) for number, (one, other) in pairs if not np.array_equal(one.view(np.int32), other.view(np.int32))
    ]


def wrong_here(programs: list[Program], images: list[Pixels], target: str, *flags: str) -> list[str]:
    """The same, and all tensors that are not the interpreter's, for a target that runs here."""
    lowered = {f"automc_{number}": lower(program, TARGETS[target]) for number, program in enumerate(programs)}
    with tempfile.TemporaryDirectory() as folder:
        build(emit_source(lowered), tool_chain("zig", TARGETS[target]).with_flags(*flags), Path(folder))
        code = open_code(Path(folder) / SHARED)
    libraries = [Library(code, prefix, each.program, each.arena_bytes) for prefix, each in lowered.items()]
    wrong = wrong_results(programs, images, [each.run(given) for each, given in zip(libraries, images, strict=True)])
    for (prefix, each), given in zip(lowered.items(), images, strict=True):
        meant = interpret_all(each.program, given)
        wrong += [
            f"{prefix} {name}"
            for position, image in enumerate(given)
            for name, values in tensors(code, prefix, each, image)
            if not np.array_equal(values, meant[name][position])
        ]
    return wrong


def tensors(code: ctypes.CDLL, prefix: str, lowered: Lowered, image: Pixels) -> Iterator[tuple[str, Pixels]]:
    """Every tensor, `height x width x channels`, as it lies in the arena when its operation has just written it."""
    memory = np.full(lowered.arena_bytes + ALIGNMENT, 0xA5, np.uint8)
    arena = memory[-memory.ctypes.data % ALIGNMENT :]
    address, pixels = (ctypes.c_void_p(each.ctypes.data) for each in (arena, image))
    init, write, compute = (getattr(code, f"{prefix}_{name}") for name in ("init", "input", "invoke_range"))
    assert init(address) == 0
    for position, (name, layout) in enumerate(lowered.layouts.items()):
        if position == 0:
            write(address, pixels)
        else:
            compute(address, position, position)
        tensor = layout.tensor
        first = lowered.address(Place(name, layout.start()), position)
        rows = [arena[first + y * layout.row_bytes :][: tensor.width * tensor.channels] for y in range(tensor.height)]
        yield name, np.stack(rows).reshape(tensor.height, tensor.width, tensor.channels)


def main() -> None:
    """Check what is missing in the file, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--shapes", type=int, default=2000)
    parser.add_argument("--emulated", type=int, default=100)
    parser.add_argument("--targets", nargs="+", metavar="TARGET", default=list(TARGETS))
    parser.add_argument("--minutes", type=float, default=60.0)
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    found = {where: entry for where, entry in processors(given.targets).items() if where != "fast evaluation"}
    done = {(line["kind"], line["batch"], line["where"]) for line in read(given.file)}
    missing = (
        (number, kind, where)
        for number in range(-(-max(given.shapes, given.emulated) // _BATCH))
        for kind in KINDS
        for where, (emulated, _) in found.items()
        if number * _BATCH < (given.emulated if emulated else given.shapes) and (kind, number, where) not in done
    )
    for number, kind, where in missing:
        if time.monotonic() > end:
            break
        begun = time.monotonic()
        emulated, run = found[where]
        programs = batch(kind, number, 1 if emulated else _LAYERS)
        images = [random_pixels(np.random.default_rng(number), program, _IMAGES) for program in programs]
        if emulated:
            wrong = wrong_results(programs, images, run(programs, images))
        else:
            wrong = wrong_here(programs, images, where, *(["-O0"] if number >= _OPTIMISED else []))
        seconds = round(time.monotonic() - begun, 1)
        line = {"kind": kind, "batch": number, "where": where, "shapes": _BATCH, "wrong": wrong, "seconds": seconds}
        with given.file.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
    print(table(read(given.file)))


def table(lines: list[dict[str, object]]) -> str:
    """A row for each processor, a column for each kind: shapes, and how many differ of all."""
    rows = [f"| computed by | {' | '.join(KINDS)} | differ |", "|---" * (len(KINDS) + 2) + "|"]
    for where in dict.fromkeys(line["where"] for line in lines):
        mine = [line for line in lines if line["where"] == where]
        counts = [sum(line["shapes"] for line in mine if line["kind"] == kind) for kind in KINDS]
        wrong = sum(len(line["wrong"]) for line in mine)
        rows.append(f"| {where} | " + " | ".join(f"{count:,}" for count in counts) + f" | {wrong} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
