"""What the compiler decides before any C is written: bounds, storage, and what it says about them."""

import dataclasses

import numpy as np
import pytest

from automc.compiler.bounds import largest_values, widening_interval
from automc.compiler.explain import explain
from automc.compiler.isa import STEP, Path
from automc.compiler.lowering import lower
from automc.compiler.schedules.convolution import Tile
from automc.compiler.sizes import stored_bytes
from automc.compiler.storage import encode
from automc.compiler.targets import TARGETS, find_target, host_target
from automc.compression.operations import Convolve
from automc.errors import NameNotFound
from tests.programs import Builder, random_program

NARROW, SHIFTED = (
    Path(
        "narrow",
        "int8_t",
        lanes_together=False,
        values_per_sum=2,
        largest_sum=32767,
        pixels=4,
        vectors=2,
        offset=offset,
    )
    for offset in (0, 128)
)


def overflows(rows, window, largest, path):
    """Whether some window of steps can leave the range, by trying the worst activations of every partial sum."""
    for first in range(rows.shape[1] - window + 1):
        part = rows[:, first : first + window].astype(np.int64)
        for lane in range(0, STEP, path.values_per_sum):
            weights = part[:, :, lane : lane + path.values_per_sum]
            for sign in (1, -1):
                worst = np.where(sign * weights > 0, largest - path.offset, -path.offset)
                worst = np.where(sign * weights * worst > 0, worst, 0)  # sums begin and end anywhere
                if (np.abs((weights * worst).sum((1, 2))) > path.largest_sum).any():
                    return True
    return False


@pytest.mark.parametrize("path", [NARROW, SHIFTED], ids=["narrow", "shifted"])
@pytest.mark.parametrize("seed", range(12))
def test_the_interval_is_the_longest_that_is_safe(seed, path):
    random = np.random.default_rng(seed)
    bits = 2 + seed % 7
    largest_weight = 2 ** (bits - 1) - 1
    rows = random.integers(-largest_weight, largest_weight + 1, (5, int(random.integers(1, 40)), STEP), dtype=np.int8)
    largest = int(random.integers(3, 256))
    interval = widening_interval(rows, largest, path)
    assert interval == 0 or not overflows(rows, interval, largest, path)
    assert interval == rows.shape[1] or overflows(rows, interval + 1, largest, path)


def test_values_that_an_instruction_does_not_take_are_refused():
    rows = np.ones((1, 4, STEP), np.int8)
    path = dataclasses.replace(NARROW, largest_value=127)
    assert [widening_interval(rows, largest, path) for largest in (127, 128)] == [4, 0]


@pytest.mark.parametrize(("weight", "largest", "interval"), [(127, 255, 0), (127, 127, 1), (7, 255, 9), (1, 255, 64)])
def test_intervals_of_the_largest_weights(weight, largest, interval):
    assert widening_interval(np.full((1, 100, STEP), weight, np.int8), largest, NARROW) == interval


def test_eight_bits_avoid_saturation_on_avx2():
    """vpmaddubsw saturates when all is largest, so eight by eight bits take the wide path, eight by seven need not."""
    for bits, path in ((8, "wide"), (7, "narrow")):
        builder = Builder(np.random.default_rng(0), (4, 5, 5), bits)
        program = builder.finish(builder.convolve(builder.input, 8, bits=bits))
        assert explain(program, "avx2")[1].choice.kernel.endswith(path)


@pytest.mark.parametrize(
    ("weight", "bits", "size", "interval"), [(127, 7, 5, 2), (127, 7, 3, 1), (63, 8, 5, 2), (127, 6, 5, 4)]
)
def test_sums_that_start_in_the_middle_take_twice_as_many_products(weight, bits, size, interval):
    """Where there are pixels enough for whom the starts are made."""
    builder = Builder(np.random.default_rng(0), (16, size, size), bits)
    inner = builder.convolve(builder.input, 16)
    layer = builder.operations[-1]
    builder.operations[-1] = dataclasses.replace(layer, weight=np.full_like(layer.weight, weight))
    assert explain(builder.finish(inner), "avx2")[1].choice.widened_every == interval


@pytest.mark.parametrize(
    ("size", "pixels", "tile"),
    [((32, 32), 4, (1, 4)), ((14, 14), 4, (2, 2)), ((25, 5), 5, (1, 5)), ((7, 7), 8, (1, 7)), ((1, 1), 5, (1, 1))],
)
def test_tiles_compute_few_pixels_twice(size, pixels, tile):
    found = Tile.of(*size, pixels)
    assert (found.height, found.width) == tile
    assert found.fits


def test_largest_values_follow_clamps_and_halos():
    builder = Builder(np.random.default_rng(3), (3, 6, 6), 5)
    inner = builder.convolve(builder.input, 4, bits=6)
    moved = builder.select(builder.pool(inner, "max", (2, 2)), [0, -1, 2])
    program = builder.finish(moved)
    values = largest_values(program)
    operation = program.operations[1]
    assert values[inner] == max(operation.high, program.tensors[inner].zero_point)
    assert values[moved] == values[inner]
    assert values[builder.input] <= 31


@pytest.mark.parametrize("bits", range(1, 9))
def test_stored_weights_take_their_bits(bits):
    largest = max(1, 2 ** (bits - 1) - 1)
    weights = np.random.default_rng(bits).integers(-largest, largest + 1, 96, dtype=np.int8)
    assert encode(weights, bits).nbytes == 96 * bits // 8


@pytest.mark.parametrize("target", TARGETS)
def test_sizes_say_what_the_kernels_store(target):
    random = np.random.default_rng(5)
    for _ in range(6):
        program = random_program(random, steps=5)
        for operation, kernel in zip(program.operations, lower(program, TARGETS[target]).kernels, strict=True):
            if isinstance(operation, Convolve) and kernel.choice.storage == f"{operation.weight_bits} bits":
                shape, groups, dilation = operation.weight.shape, operation.groups, operation.dilation
                assert kernel.choice.weight_bytes == stored_bytes(shape, operation.weight_bits, groups, dilation)


def test_fewer_bits_are_smaller():
    sizes = [stored_bytes((16, 16, 3, 3), bits) for bits in range(1, 9)]
    assert sizes == [16 * 16 * 9 * bits // 8 + 16 * 8 for bits in range(1, 9)]


def test_explanations_print_as_lines():
    builder = Builder(np.random.default_rng(0), (3, 6, 6))
    program = builder.finish(builder.convolve(builder.input, 8))
    lines = [str(row) for row in explain(program, "avx2")]
    assert len(lines) == len(program.operations)
    assert lines[0].startswith("tensor0")
    assert "table" in lines[0]
    assert "widened every" in lines[-1]


def test_targets_by_name():
    assert host_target() in TARGETS
    assert find_target("avx2").name == "avx2"
    with pytest.raises(NameNotFound, match="Did you mean 'avx2'"):
        find_target("avx")


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "", "portable"),
        ("AMD64", "avx2 avx512f", "avx2"),
        ("aarch64", "fp asimd asimddp", "neon"),
        ("riscv64", "avx2", "portable"),
    ],
)
def test_the_host_decides_by_its_processor(machine, flags, expected, monkeypatch):
    monkeypatch.setattr("automc.compiler.targets.cpu_flags", lambda: set(flags.split()))
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert host_target() == expected
