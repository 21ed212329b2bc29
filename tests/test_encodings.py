"""Weights in every encoding, and binary layers: libraries compute what programs mean, and store what is said."""

import dataclasses
from itertools import count

import numpy as np
import pytest

from automc.compiler import kernel as kernel_module
from automc.compiler.artifact import compile_batch, compile_program
from automc.compiler.explain import explain
from automc.compiler.huffman import LONGEST, code_lengths, huffman_encode
from automc.compiler.kernel import Constant, Decoded
from automc.compiler.lowering import lower
from automc.compiler.sizes import program_bytes, stored_bytes
from automc.compiler.targets import TARGETS
from automc.compression.executor import Executor
from automc.compression.interpreter import interpret
from automc.compression.operations import Convolve
from automc.errors import RunnerError
from tests.programs import Builder, random_pixels
from tests.test_compiler import HERE, STRADDLING

# Encoding, bits of weights and of the source, whether Huffman coded.
FORMS = [
    ("dense", 1, 1, False),
    ("codebook", 8, 8, False),
    ("sparse", 6, 7, False),
    ("blocks", 8, 7, False),
    ("codebook", 5, 4, True),
    ("sparse", 8, 8, True),
    ("blocks", 4, 8, True),
    ("dense", 1, 8, False),
    ("dense", 7, 8, True),
    ("codebook", 1, 1, True),
]


def encoded(random, operation, encoding, huffman):
    """The convolution with weights as `encoding` is meant for: few values, or many zeros."""
    weight = operation.weight.copy()
    if encoding == "codebook" and operation.weight_bits > 1:
        values = np.unique(random.choice(weight.reshape(-1), int(random.integers(1, 40))))
        weight = values[np.abs(weight.astype(np.int16)[..., None] - values).argmin(-1)].astype(np.int8)
    elif encoding == "sparse":
        weight[random.random(weight.shape) < random.choice([0.3, 0.7, 0.95])] = 0
    elif encoding == "blocks":
        keep = random.random((-(-weight.shape[0] // 16), -(-weight.shape[1] // 4), *weight.shape[2:])) < 0.5
        weight *= keep.repeat(16, 0).repeat(4, 1)[: weight.shape[0], : weight.shape[1]]
    return dataclasses.replace(operation, weight=weight, encoding=encoding, huffman=huffman)


def layer(builder, source, outputs, form, **shape):
    encoding, weight_bits, _, huffman = form
    target = builder.convolve(source, outputs, weight_bits=weight_bits, **shape)
    builder.operations[-1] = encoded(builder.random, builder.operations[-1], encoding, huffman)
    return target


def forms_program(seed, **shape):
    """Every form between straddling numbers of channels; all are joined, so that every value is seen."""
    builder = Builder(np.random.default_rng(seed), (3, 6, 9))
    ends = []
    for position, inputs in enumerate(STRADDLING):
        outputs = STRADDLING[(3 * position + 4 + seed) % len(STRADDLING)]
        form = FORMS[(3 * position + seed) % len(FORMS)]
        inner = builder.convolve(builder.input, inputs, (1, 1), padding=(0, 0), bits=form[2])
        ends.append(layer(builder, inner, outputs, form, **shape))
    return builder.finish(builder.join(ends))


def groups_program(seed):
    """Depthwise and grouped layers in the forms that they have."""
    builder = Builder(np.random.default_rng(seed), (3, 6, 7))
    ends = []
    for groups, form in zip((16, 9, 5, 3, 2, 4, 1), (form for form in FORMS if form[0] != "blocks"), strict=False):
        for inputs in (groups, 3 * groups):
            inner = builder.convolve(builder.input, inputs, (1, 1), padding=(0, 0), bits=form[2])
            ends.append(layer(builder, inner, 2 * groups if inputs > groups else groups, form, groups=groups))
    return builder.finish(builder.join(ends))


def wide_program(seed):
    """Depthwise layers of several vectors in the forms that they have."""
    builder = Builder(np.random.default_rng(seed), (3, 4, 5))
    inner = builder.convolve(builder.input, 64, (1, 1), padding=(0, 0))
    ends = [layer(builder, inner, 64, form, groups=64) for form in FORMS if form[0] != "blocks"]
    return builder.finish(builder.join(ends))


def encoded_programs():
    yield forms_program(0, kernel=(3, 3))
    yield forms_program(1, kernel=(1, 1), padding=(0, 0), stride=(2, 1))
    yield forms_program(2, kernel=(3, 2), stride=(2, 1), dilation=(2, 2))
    yield groups_program(3)
    yield wide_program(4)


def require_equal(library, pixels):
    found, meant = library.run(pixels), interpret(library.program, pixels)
    different = np.flatnonzero((found.view(np.int32) != meant.view(np.int32)).any(0))
    assert different.size == 0, f"{library.program.name}: logits {different} of {meant.shape[1]} differ"


@pytest.mark.parametrize("target", HERE)
def test_libraries_compute_what_their_programs_mean(target, tmp_path):
    for library in compile_batch(list(encoded_programs()), target, tmp_path):
        pixels = random_pixels(np.random.default_rng(0), library.program, 3)
        require_equal(library, pixels)
        require_equal(library, pixels[::-1])


@pytest.mark.parametrize("target", HERE)
def test_streams_of_groups_that_end_within_a_vector(target, tmp_path):
    """Between the last weight of the first group's rows and the next lie more zeros than one gap has bits for."""
    builder = Builder(np.random.default_rng(0), (16, 5, 5))
    builder.convolve(builder.input, 10, (1, 1), padding=(0, 0), groups=2, weight_bits=4)
    weight = np.zeros((10, 8, 1, 1), np.int8)
    weight[:, 3::4] = 3
    weight[::2] *= -1
    weight[6:8] = 0
    sparse = dataclasses.replace(builder.operations[-1], weight=weight, encoding="sparse")
    builder.operations[-1] = sparse
    (library,) = compile_batch([builder.finish_map(sparse.target)], target, tmp_path)
    require_equal(library, random_pixels(np.random.default_rng(0), library.program, 3))


@pytest.mark.parametrize("target", HERE)
def test_a_panel_without_any_block(target, tmp_path):
    """Beside one of the largest weights, whose partial sums are widened every second step where they are narrow."""
    builder = Builder(np.random.default_rng(0), (16, 5, 5), bits=7)
    inner = builder.convolve(builder.input, 32)
    weight = np.full((32, 16, 3, 3), 127, np.int8)
    weight[:16] = 0
    builder.operations[-1] = dataclasses.replace(builder.operations[-1], weight=weight, encoding="blocks")
    (library,) = compile_batch([builder.finish_map(inner)], target, tmp_path)
    require_equal(library, random_pixels(np.random.default_rng(0), library.program, 3))


def test_the_search_computes_the_same():
    for program in encoded_programs():
        pixels = random_pixels(np.random.default_rng(1), program, 3)
        assert np.array_equal(Executor(program).run(pixels), interpret(program, pixels))


@pytest.mark.slow
@pytest.mark.parametrize("target", HERE)
def test_two_thousand_layers(target, tmp_path):
    random, layers = np.random.default_rng(0), 0
    for seed in count():
        programs = []
        while len(programs) < 20:
            kernel = (int(random.integers(1, 5)), int(random.integers(1, 5)))
            stride, padding = random.integers(1, 3, 2).tolist(), random.integers(0, 3, 2).tolist()
            shape = {"kernel": kernel, "stride": tuple(stride), "padding": tuple(padding)}
            programs.append(forms_program(20 * seed + len(programs), **shape))
            layers += len(STRADDLING)
        for library in compile_batch(programs, target, tmp_path):
            require_equal(library, random_pixels(random, library.program, 2))
        if layers >= 2000:
            return


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_said_is_what_is_stored(target):
    """The bytes are those of the arrays in the library, and the same on every target that counts bits where it can.

    OpenCL multiplies layers of one bit, whose weights then are not padded to words.
    """
    for program in encoded_programs():
        sizes = program_bytes(program)
        for operation, kernel in zip(program.operations, lower(program, TARGETS[target]).kernels, strict=True):
            if isinstance(operation, Convolve):
                constants = [argument for argument in kernel.arguments if isinstance(argument, Constant)]
                arrays = [argument.stored for argument in constants]
                arrays += [
                    each for argument in constants if isinstance(argument, Decoded) for each in argument.others.values()
                ]
                assert kernel.choice.weight_bytes == sum(array.nbytes for array in arrays)
                if target == "opencl" and operation.weight_bits == 1:
                    assert kernel.choice.weight_bytes <= sizes[operation.target]
                else:
                    assert kernel.choice.weight_bytes == sizes[operation.target]


def size_of(weight, **changes):
    builder = Builder(np.random.default_rng(0), (weight.shape[1], 5, 5))
    builder.convolve(builder.input, len(weight), weight.shape[2:], padding=(1, 1))
    builder.operations[-1] = dataclasses.replace(builder.operations[-1], weight=weight, **changes)
    program = builder.finish(builder.operations[-1].target)
    return program_bytes(program)[program.operations[1].target] - 8 * len(weight)  # biases and multipliers


def test_encodings_take_what_they_should():
    random = np.random.default_rng(0)
    weight = random.integers(-127, 128, (64, 32, 3, 3), dtype=np.int8)
    assert size_of(weight) == weight.size == stored_bytes(weight.shape, 8) - 8 * 64
    few = random.choice(np.array([-90, -3, 0, 5, 70], np.int8), weight.shape)
    assert size_of(few, encoding="codebook") == weight.size * 3 // 8 + 8  # three bits a weight, and the table
    half = weight * (np.arange(32) // 4 % 2)[:, None, None].astype(np.int8)
    assert size_of(half, encoding="blocks") == weight.size // 2 + 4 * 9  # the mask of each panel
    rare = np.where(random.random(weight.shape) < 0.1, weight, 0).astype(np.int8)
    bits = 8 * size_of(rare, encoding="sparse") / weight.size
    assert 0.1 * 8 < bits < 0.1 * (8 + 6)
    entropy = -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1 / 254))
    assert entropy < 8 * size_of(rare, encoding="sparse", huffman=True) / weight.size < 1.25 * entropy
    assert size_of(few, encoding="codebook", huffman=True) < 1.1 * size_of(few, encoding="codebook")


def test_codes_are_complete_and_no_longer_than_allowed():
    fibonacci = [1, 1]
    while len(fibonacci) < 40:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    for counts in (fibonacci, [5, 5, 5], [1] * 256, [0, 3, 0]):
        lengths = code_lengths(np.array(counts))
        assert (lengths > 0).tolist() == [count > 0 for count in counts]
        assert lengths.max() <= LONGEST
        shares = np.sum(0.5 ** lengths[lengths > 0])
        assert shares == (0.5 if np.count_nonzero(counts) == 1 else 1)
    assert len(huffman_encode(np.zeros(0, np.uint8))) == 2 * LONGEST


@pytest.mark.parametrize("damage", [lambda code: code[:-3], lambda code: code[:20], lambda code: code ^ np.uint8(0xFF)])
def test_damaged_codes_are_told(damage, tmp_path, monkeypatch):
    program = forms_program(4, kernel=(1, 1), padding=(0, 0))
    monkeypatch.setattr(kernel_module, "huffman_encode", lambda *arguments: damage(huffman_encode(*arguments)))
    with pytest.raises(RunnerError, match="stored weights are damaged"):
        compile_program(program, "portable", tmp_path).load()


def test_expanded_weights_are_counted(tmp_path):
    builder = Builder(np.random.default_rng(0), (4, 5, 5))
    inner = layer(builder, builder.input, 8, ("dense", 6, 8, True))
    artifact = compile_program(builder.finish(inner), "portable", tmp_path)
    assert artifact.manifest["expanded_bytes"] == 8 * 4 * 9
    assert "_EXPANDED_BYTES 288" in (tmp_path / "model.h").read_text()
    assert artifact.manifest["arena_bytes"] > 288
    assert any("288" in line for line in artifact.summary())


@pytest.mark.parametrize(
    ("form", "kernel", "storage"),
    [
        (("dense", 1, 1, False), "bits, halves", "1 bit"),
        (("dense", 1, 8, False), "dot products, narrow", "1 bit"),
        (("codebook", 8, 7, False), "dot products, narrow", "values in"),
        (("sparse", 4, 8, False), "dot products, narrow", "for the gap before"),
        (("blocks", 4, 8, False), "blocks, narrow", "% of the blocks: 4 bits"),
        (("blocks", 4, 8, True), "blocks, narrow", "% of the blocks: Huffman codes"),
    ],
)
def test_explanations_say_how_a_layer_is_stored_and_computed(form, kernel, storage):
    builder = Builder(np.random.default_rng(0), (3, 5, 5))
    inner = builder.convolve(builder.input, 32, bits=form[2])
    program = builder.finish(layer(builder, inner, 32, form))
    choice = explain(program, "avx2")[2].choice
    assert choice.kernel == kernel
    assert storage in choice.storage
    assert storage in str(explain(program, "avx2")[2])


def test_few_non_zeros_are_computed_one_by_one_without_vectors():
    builder = Builder(np.random.default_rng(0), (8, 5, 5))
    inner = builder.convolve(builder.input, 8)
    weight = builder.operations[-1].weight * (np.arange(3) == 1)
    builder.operations[-1] = dataclasses.replace(builder.operations[-1], weight=weight, encoding="sparse")
    program = builder.finish(inner)
    assert explain(program, "portable")[1].choice.kernel == "non-zeros, one by one"
    assert explain(program, "avx2")[1].choice.kernel.startswith("dot products")
