"""Every target's libraries against the interpreter: all bits equal, on shapes that straddle the vectors."""

from dataclasses import replace

import numpy as np
import pytest

from automc.compiler.artifact import compile_batch
from automc.compiler.targets import TARGETS, runs_here
from automc.compression.interpreter import interpret
from automc.compression.operations import Convolve, Quantise, Tensor
from automc.compression.program import Program
from automc.errors import DataError, RunnerError
from tests.programs import Builder, random_pixels, random_program

STRADDLING = (1, 3, 7, 8, 9, 15, 16, 17, 31, 33)
HERE = [
    pytest.param(name, marks=pytest.mark.skipif(not runs_here(target), reason=f"this processor has no {name}"))
    for name, target in TARGETS.items()
    if not target.machines  # the others run under emulation: test_emulation.py
]


def channels_program(seed, kernel, stride):
    """Convolutions between straddling numbers of channels; all of them are joined, so that every value is seen."""
    builder = Builder(np.random.default_rng(seed), (3, 6, 9))
    ends = []
    for position, inputs in enumerate(STRADDLING):
        outputs = STRADDLING[(3 * position + 4) % len(STRADDLING)]
        inner = builder.convolve(builder.input, inputs, (1, 1), padding=(0, 0), bits=(8, 7, 4)[position % 3])
        padding = kernel[0] // 2, kernel[1] // 2
        ends.append(builder.convolve(inner, outputs, kernel, stride, padding, weight_bits=1 + (position + seed) % 8))
    return builder.finish(builder.join(ends))


def depthwise_program(seed, kernel, stride, dilation=(1, 1)):
    """Depthwise convolutions and both kinds of pooling over straddling numbers of channels."""
    builder = Builder(np.random.default_rng(seed), (2, 9, 8))
    ends = []
    for position, channels in enumerate(STRADDLING[1:]):
        inner = builder.convolve(builder.input, channels, (1, 1), padding=(0, 0), bits=(8, 7, 5)[position % 3])
        bits = 1 + (position + seed) % 8
        wide = builder.convolve(inner, channels, kernel, stride, (1, 2), dilation, channels, weight_bits=bits)
        ends.append(builder.pool(wide, ("mean", "max")[position % 2], (2, 3), padding=(1, 1)))
    return builder.finish(builder.join(ends))


def quads_program(seed):
    """Depthwise convolutions of so many channels that several vectors of them are computed at once; some are gated."""
    builder = Builder(np.random.default_rng(seed), (2, 5, 6))
    ends = []
    for position, channels in enumerate((32, 64, 71, 96, 137)):
        inner = builder.convolve(builder.input, channels, (1, 1), padding=(0, 0), bits=(8, 7, 4)[position % 3])
        gate = builder.rank(builder.mean(inner, channels), channels // 3) if position % 2 else None
        bits, encoding = 8 - position, ("dense", "codebook", "sparse")[position % 3]
        stride, kernel = (((1, 1), (3, 2)), ((2, 1), (1, 2)))[position % 2]
        wide = builder.convolve(
            inner, channels, (3, 3), stride, groups=channels, weight_bits=bits, gate=gate, encoding=encoding
        )
        ends.append(builder.pool(wide, "max", kernel))
    return builder.finish(builder.join(ends))


def columns_program(seed):
    """Depthwise convolutions whose neighbouring windows share columns, in tiles that lie over one another."""
    builder = Builder(np.random.default_rng(seed), (2, 4, 11))
    ends = []
    for position, kernel in enumerate(((3, 3), (4, 2), (3, 1), (4, 5))):
        channels = (32, 64, 71, 96)[position]
        inner = builder.convolve(builder.input, channels, (1, 1), padding=(0, 0), bits=(8, 7, 4, 8)[position])
        encoding = ("dense", "codebook", "dense", "sparse")[position]
        padding = (1, kernel[1] // 2 + position)
        wide = builder.convolve(
            inner, channels, kernel, (1 + position % 2, 1), padding, groups=channels, weight_bits=8 - position,
            encoding=encoding,
        )  # fmt: skip
        ends.append(builder.pool(wide, "max", builder.tensors[wide].shape[1:]))
        ends.append(builder.pool(wide, "mean", builder.tensors[wide].shape[1:]))
    return builder.finish_map(builder.join(ends))


def tall_program(seed):
    """Depthwise convolutions whose columns take several steps, with partial sums that are widened after odd numbers."""
    builder = Builder(np.random.default_rng(seed), (2, 9, 9))
    inner = builder.convolve(builder.input, 32, (1, 1), padding=(0, 0))
    ends = []
    for kernel, largest in (((8, 3), 20), ((8, 8), 14), ((7, 3), 28)):
        tall = builder.convolve(inner, 32, kernel, padding=(0, 0), groups=32, weight_bits=6)
        weight = builder.random.integers(-largest, largest + 1, (32, 1, *kernel), dtype=np.int8)
        builder.operations[-1] = replace(builder.operations[-1], weight=weight)
        ends.append(builder.pool(tall, "mean", builder.tensors[tall].shape[1:]))
    return builder.finish_map(builder.join(ends))


def residual_program(seed):
    """Residuals, sums and selections: channels that are moved in pieces and one by one, with and without zeros."""
    builder = Builder(np.random.default_rng(seed), (4, 8, 7))
    current = builder.convolve(builder.input, 9, bits=5)
    for channels in (8, 17, 33):
        pieces = [*range(3, builder.tensors[current].channels), *[-1] * channels][:channels]
        scattered = builder.random.permutation(np.arange(channels) - 1).tolist()
        shortcut = builder.select(builder.select(current, pieces), scattered)
        inner = builder.convolve(current, channels, bits=6)
        added = builder.convolve(inner, channels, bits=8, residual=shortcut)
        current = builder.sum(added, shortcut, bits=7)
    return builder.finish(current, outputs=17)


def gated_program(seed):
    """Gates with whole panels of closed channels, with single ones and with none, before both kinds of convolution."""
    builder = Builder(np.random.default_rng(seed), (3, 5, 6))
    ends = []
    inner = builder.convolve(builder.input, 7, (1, 1), padding=(0, 0))
    for position, (outputs, count) in enumerate(((1, 1), (8, 3), (9, 1), (17, 17), (33, 1), (33, 20))):
        gate = builder.rank(builder.mean(inner, outputs), count)
        ends.append(builder.convolve(inner, outputs, weight_bits=2 + position, gate=gate))
        ends.append(builder.convolve(ends[-1], outputs, groups=outputs, gate=gate))
    return builder.finish_map(builder.join(ends))


def map_program(seed):
    """Tables, gains and shuffles over straddling numbers of channels, into a map of rows that no vector divides."""
    builder = Builder(np.random.default_rng(seed), (3, 4, 5))
    ends = []
    for position, channels in enumerate((1, 3, 8, 17, 33)):
        inner = builder.convolve(builder.input, channels, (1, 1), padding=(0, 0), bits=(8, 7, 3, 1)[position % 4])
        vector = builder.mean(inner, channels, bits=(5, 8)[position % 2])
        scaled = builder.lookup(builder.scale(inner, vector), bits=(8, 6)[position % 2])
        factor = 2 + position % 2
        wide = builder.convolve(scaled, channels * factor**2, weight_bits=1 + position % 8)
        moved = builder.shuffle(wide, factor)
        ends.append(builder.pool(moved, "max", (factor, factor), (factor, factor)))
    return builder.finish_map(builder.convolve(builder.join(ends), 3))


def extreme_program(weight_bits, bits, signs):
    """The largest weights meet images, and padding, of the largest value: what the bounds are about."""
    limit = 2**bits - 1
    image, inner = Tensor("image", 19, 3, 6, bits, 0.1, limit), Tensor("inner", 18, 3, 6, 8, 0.1, 0)
    weight = np.full((18, 19, 3, 3), 2 ** (weight_bits - 1) - 1, np.int8)
    if signs == "all negative":
        weight = -weight
    elif signs == "in turn":
        weight[1::2] *= -1
        weight[:, :, ::2] *= -1
    reach = float(np.abs(weight.astype(np.int64)).sum((1, 2, 3)).max() * limit)

    def convolve(target, source, weight, spread, padding):
        bias, multiplier = np.zeros(len(weight), np.int32), np.full(len(weight), spread, np.float32)
        return Convolve(
            target, source, weight, weight_bits, bias, multiplier, (1, 1), padding, (1, 1), 1, 0, 255
        )  # fmt: skip

    last = np.random.default_rng(0).integers(-1, 2, (5, 18, 3, 6), dtype=np.int8)
    table = np.full((19, 256), limit, np.uint8)
    operations = (
        Quantise("image", table),
        convolve("inner", "image", weight, 255 / reach, (1, 1)),
        convolve("logits", "inner", last, 1.0, (0, 0)),
    )
    return Program("extreme", {"image": image, "inner": inner}, operations)


def programs():
    yield from (channels_program(seed, *shape) for seed, shape in enumerate([((3, 3), (1, 1)), ((1, 1), (2, 1))]))
    yield depthwise_program(0, (3, 3), (1, 1))
    yield depthwise_program(1, (5, 4), (2, 2), (1, 2))
    yield quads_program(6)
    yield columns_program(7)
    yield tall_program(8)
    yield residual_program(2)
    yield gated_program(3)
    yield map_program(4)
    for weight_bits, bits in ((8, 8), (8, 7), (4, 8), (2, 8), (5, 4)):
        yield from (extreme_program(weight_bits, bits, signs) for signs in ("all positive", "all negative", "in turn"))
    yield from (random_program(np.random.default_rng(seed), steps=5, wide=seed % 3 == 0) for seed in range(6))


@pytest.fixture(scope="module", params=HERE)
def libraries(request, tmp_path_factory):
    return compile_batch(list(programs()), request.param, tmp_path_factory.mktemp(request.param))


def test_libraries_compute_what_their_programs_mean(libraries):
    for position, library in enumerate(libraries):
        pixels = random_pixels(np.random.default_rng(position), library.program, 3)
        found, meant = library.run(pixels), interpret(library.program, pixels)
        assert found.dtype == np.float32
        different = np.flatnonzero((found.view(np.int32) != meant.view(np.int32)).any(0))
        assert different.size == 0, f"program {position}: logits {different} of {meant.shape[1]} differ"


def test_images_do_not_depend_on_each_other(libraries):
    """Halos are filled again although the arena was used; the image that was given stays as it is."""
    for library in libraries[::4]:
        pixels = random_pixels(np.random.default_rng(1), library.program, 4)
        given = pixels.copy()
        together = library.run(pixels)
        assert np.array_equal(library.run(pixels[::-1]), together[::-1])
        assert np.array_equal(pixels, given)


def test_extreme_sums_are_not_trivial():
    """The bound is met: the saturated programs tell kernels that overflow from those that do not."""
    program = extreme_program(8, 8, "in turn")
    logits = interpret(program, np.zeros((1, 3, 6, 19), np.uint8))
    assert len(np.unique(logits)) > 1


def test_writing_outside_is_noticed(libraries):
    library = libraries[0]
    pixels = random_pixels(np.random.default_rng(0), library.program, 1)
    guard = library._arena._guards[1]
    guard[0] ^= 1
    try:
        with pytest.raises(RunnerError, match="wrote outside its arena"):
            library.run(pixels)
    finally:
        guard[0] ^= 1
    library.run(pixels)


def test_wrong_images_are_refused(libraries):
    library = libraries[0]
    height, width, channels = library.program.input.height, library.program.input.width, library.program.input.channels
    with pytest.raises(DataError, match="uint8"):
        library.run(np.zeros((1, height, width, channels), np.float32))
    with pytest.raises(DataError, match="uint8"):
        library.time(np.zeros((1, height, width, channels + 1), np.uint8), 1)
    none = np.zeros((0, height, width, channels), np.uint8)
    assert library.run(none).shape == (0, library.program.outputs)
    for timed in (
        library.time,
        library.layer_times,
        lambda pixels, repeats: library.operation_times(pixels, 0, repeats),
    ):
        with pytest.raises(DataError, match="is timed on an image"):
            timed(none, 1)


def test_an_operation_alone_stays_within_its_memory_whatever_its_source_holds(tmp_path):
    """After a whole run the place of a tensor may hold another; here all of the arena holds no value of 2 bits."""
    builder = Builder(np.random.default_rng(0), (64, 1, 1), bits=2)
    program = builder.finish_map(builder.rank(builder.lookup(builder.input, bits=2), 5))
    (library,) = compile_batch([program], "portable", tmp_path)
    pixels = random_pixels(np.random.default_rng(0), program, 1)
    for position, written in ((1, {int(program.operations[1].table[3])}), (2, {0, 1})):
        library._arena.content[:] = 255
        library.operation_times(pixels, position, 1)
        assert set(library._arena.content.tolist()) <= {255} | written
    assert np.array_equal(library.run(pixels), interpret(program, pixels))


def test_times_have_a_row_a_repeat_and_a_column_an_operation(libraries):
    library = libraries[-1]
    pixels = random_pixels(np.random.default_rng(0), library.program, 2)
    before = library.run(pixels)
    assert library.time(pixels[0], 3).shape == (3,)
    times = library.layer_times(pixels, 2)
    assert times.shape == (2, len(library.program.operations))
    assert (times > 0).all()
    assert np.array_equal(library.run(pixels), before)
