"""A Program refuses whatever would not mean the same on every target, and survives being written and read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automc.compression.interpreter import interpret, interpret_all
from automc.compression.operations import (
    OPERATIONS,
    Convolve,
    Dequantise,
    Join,
    Lookup,
    Operation,
    Pool,
    Quantise,
    Rank,
    Scale,
    Select,
    Shuffle,
    Sum,
)
from automc.compression.program import Program
from automc.errors import CorruptFile, InvalidProgram
from tests.programs import Builder, random_pixels, random_program


def classifier() -> Program:
    """Sums, concatenations, selections, two convolutions, a mean and a maximum."""
    builder = Builder(np.random.default_rng(1), (3, 8, 8), bits=6)
    first = builder.convolve(builder.input, 4, bits=7)
    second = builder.convolve(first, 4, bits=5, residual=first)
    added = builder.sum(first, second)
    joined = builder.join([added, second])
    selected = builder.select(joined, [0, -1, 7, 3], stride=2)
    largest = builder.pool(selected, "max", (2, 2), (2, 2))
    return builder.finish(builder.pool(largest, "mean", (2, 2)))


def mapping() -> Program:
    """One-bit weights, a table, gains, a gate, weights stored in blocks, and pixels made of channels as the results."""
    builder = Builder(np.random.default_rng(2), (3, 6, 6), bits=6)
    looked_up = builder.lookup(builder.convolve(builder.input, 8, weight_bits=1, bits=7), bits=5)
    vector = builder.mean(looked_up, 8)
    scaled = builder.scale(looked_up, vector)
    gated = builder.convolve(scaled, 8, gate=builder.rank(vector, 3))
    return builder.finish_map(builder.shuffle(builder.convolve(gated, 8, encoding="blocks"), 2))


def changed(program: Program, kind: type[Operation], position: int = 0, /, **fields: Any) -> Program:
    """`program` with other `fields` in the operation of this `kind` that comes at `position` among its kind."""
    chosen = [operation for operation in program.operations if isinstance(operation, kind)][position]
    replaced = dataclasses.replace(chosen, **fields)
    operations = tuple(replaced if operation is chosen else operation for operation in program.operations)
    return dataclasses.replace(program, operations=operations)


WEIGHT = np.zeros((4, 3, 3, 3), np.int8)
FAULTS: list[tuple[type[Operation], int, dict[str, Any], str]] = [
    (Quantise, 0, {"table": np.full((3, 256), 64, np.uint8)}, "values above 63"),
    (Quantise, 0, {"table": np.zeros((3, 256), np.int64)}, r"table must be uint8 of \(3, 256\). Got int64"),
    (Convolve, 0, {"source": "nowhere"}, "reads 'nowhere' before it is written"),
    (Convolve, 0, {"source": "tensor2"}, "reads 'tensor2' before it is written"),
    (Convolve, 1, {"target": "tensor1"}, "each one; not so: tensor2"),
    (Convolve, 0, {"weight": WEIGHT[:, :2]}, "does not fit 3 channels"),
    (Convolve, 0, {"groups": 2}, "in 2 groups does not fit 3 channels"),
    (Convolve, 0, {"weight": WEIGHT[0]}, r"the weight's shape is \(3, 3, 3\)"),
    (Convolve, 0, {"weight": WEIGHT.astype(np.int16)}, "weight must be int8"),
    (Convolve, 0, {"weight": np.full_like(WEIGHT, -128)}, r"weights of 8 bits must be within \+-127"),
    (Convolve, 0, {"weight": WEIGHT + 2, "weight_bits": 2}, r"weights of 2 bits must be within \+-1"),
    (Convolve, 0, {"weight_bits": 9}, "weight_bits must be 1 to 8. Got 9"),
    (Convolve, 0, {"bias": np.zeros(3, np.int32)}, r"bias must be int32 of \(4,\)"),
    (Convolve, 0, {"bias": np.full(4, 2**31 - 1, np.int32), "weight": WEIGHT + 1}, "beyond int32"),
    (Convolve, 0, {"multiplier": np.full(4, 2.0**-31, np.float32)}, "outside"),
    (Convolve, 0, {"multiplier": np.full(4, np.nan, np.float32)}, "outside"),
    (Convolve, 0, {"multiplier": np.ones(4)}, "multiplier must be float32"),
    (Convolve, 0, {"stride": (0, 1)}, "must be positive"),
    (Convolve, 0, {"stride": (2, 1)}, r"tensor1 is \(4, 8, 8\), but \(4, 4, 8\) is written"),
    (Convolve, 0, {"dilation": (9, 9)}, "the window is larger than tensor0"),
    (Convolve, 0, {"high": 128}, r"ascending in \[0, 127\]"),
    (Convolve, 0, {"low": 5, "high": 4}, "ascending"),
    (Convolve, 1, {"residual": "tensor0"}, r"tensor0 is \(3, 8, 8\), but \(4, 8, 8\) is written"),
    (Convolve, 1, {"residual_multiplier": 0.0}, "the multiplier 0.0 is outside"),
    (Convolve, 2, {"padding": (1, 1)}, "logits must be of 1 x 1 pixel"),
    (Convolve, 2, {"residual": "tensor7", "residual_multiplier": 1.0}, "logits cannot have a residual"),
    (Sum, 0, {"second": "tensor0"}, r"tensor3 is \(4, 8, 8\), but \(3, 8, 8\) is written"),
    (Sum, 0, {"multipliers": (1.0, 257.0)}, "the multiplier 257.0 is outside"),
    (Sum, 0, {"low": -1}, "ascending"),
    (Join, 0, {"multipliers": (1.0,)}, "2 parts but 1 multipliers"),
    (Join, 0, {"parts": ("tensor1", "tensor0")}, r"\(7, 8, 8\) is written"),
    (Join, 0, {"multipliers": (1.0, -1.0)}, "the multiplier -1.0 is outside"),
    (Select, 0, {"index": (0, 8, 1, 2)}, "the index leaves the source's 8 channels"),
    (Select, 0, {"index": (0, 1)}, r"\(2, 4, 4\) is written"),
    (Select, 0, {"stride": 0}, "the stride must be positive"),
    (Select, 0, {"source": "tensor2", "index": (0, 1, 2, 3)}, "must have the bits, scale and zero-point of tensor2"),
    (Pool, 0, {"padding": (2, 0)}, "more than half of the window"),
    (Pool, 0, {"kind": "median"}, "kind must be mean or max"),
    (Pool, 0, {"stride": (1, 1)}, r"\(4, 3, 3\) is written"),
    (Pool, 1, {"kind": "max"}, "must have the bits, scale and zero-point"),
    (Pool, 1, {"multiplier": 0.0}, "outside"),
    (Pool, 1, {"high": 256}, "ascending"),
]
MAP_FAULTS: list[tuple[type[Operation], int, dict[str, Any], str]] = [
    (Lookup, 0, {"table": np.zeros(127, np.uint8)}, r"table must be uint8 of \(128,\). Got uint8 of \(127,\)"),
    (Lookup, 0, {"table": np.full(128, 32, np.uint8)}, "values above 31"),
    (Scale, 0, {"gains": "tensor0"}, r"tensor0 must be 8 x 1 x 1. Got \(3, 6, 6\)"),
    (Scale, 0, {"source": "tensor0"}, r"tensor5 is \(8, 6, 6\), but \(3, 6, 6\) is written"),
    (Scale, 0, {"multiplier": 0.0}, "the multiplier 0.0 is outside"),
    (Scale, 0, {"high": 256}, "ascending"),
    (Shuffle, 0, {"factor": 0}, "the factor must be positive. Got 0"),
    (Shuffle, 0, {"factor": 3}, "8 channels cannot become pixels 3 x 3 at a time"),
    (Shuffle, 0, {"factor": 1}, r"\(8, 6, 6\) is written"),
    (Shuffle, 0, {"source": "tensor7"}, "must have the bits, scale and zero-point of tensor7"),
    (Rank, 0, {"count": 0}, "count must be 1 to 8. Got 0"),
    (Rank, 0, {"count": 9}, "count must be 1 to 8. Got 9"),
    (Rank, 0, {"source": "tensor2"}, r"tensor2 must be 8 x 1 x 1. Got \(8, 6, 6\)"),
    (Convolve, 0, {"weight": np.zeros((8, 3, 3, 3), np.int8)}, r"weights of 1 bit must be -1 or \+1"),
    (Convolve, 0, {"encoding": "sparse"}, "weights of 1 bit have no zeros to leave out"),
    (Convolve, 3, {"encoding": "zip"}, "encoding must be one of dense, codebook, sparse, blocks. Got 'zip'"),
    (Convolve, 3, {"groups": 2, "weight": np.zeros((8, 4, 3, 3), np.int8)}, "only an ungrouped convolution"),
    (Convolve, 2, {"gate": "tensor2"}, "tensor2 must be 8 x 1 x 1"),
    (Convolve, 2, {"gate": "tensor4"}, "the gate tensor4 must be of 1 bit with the zero-point 0"),
    (Convolve, 2, {"residual": "tensor5", "residual_multiplier": 1.0}, "a residual cannot be gated"),
    (Convolve, 2, {"low": 206}, "must let its zero-point through"),
    (Dequantise, 0, {"target": "tensor9"}, "writes a tensor that is already written"),
]


@pytest.mark.parametrize(("kind", "position", "fields", "message"), FAULTS)
def test_refuses_what_breaks_a_rule(kind: type[Operation], position: int, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidProgram, match=message) as caught:
        changed(classifier(), kind, position, **fields)
    if "not so" not in message:
        assert f"random: {kind.__name__} '" in str(caught.value)


@pytest.mark.parametrize(("kind", "position", "fields", "message"), MAP_FAULTS)
def test_refuses_what_breaks_a_rule_of_maps(
    kind: type[Operation], position: int, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidProgram, match=message):
        changed(mapping(), kind, position, **fields)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("tensor6", {"scale": 0.5}, "tensor6 must have 1 bit, the scale 1 and the zero-point 0"),
        ("tensor6", {"bits": 2}, "tensor6 must have 1 bit"),
        ("tensor9", {"scale": 2.0**-31}, "must have the bits, scale and zero-point of tensor8"),
    ],
)
def test_refuses_tensors_that_an_operation_cannot_write(name: str, fields: dict[str, Any], message: str) -> None:
    program = mapping()
    tensors = dict(program.tensors) | {name: dataclasses.replace(program.tensors[name], **fields)}
    with pytest.raises(InvalidProgram, match=message):
        dataclasses.replace(program, tensors=tensors)


def test_refuses_results_of_a_scale_that_is_no_multiplier() -> None:
    program = mapping()
    tiny = {
        name: dataclasses.replace(program.tensors[name], scale=2.0**-31)
        for name in (program.result.sources[0], "tensor8")
    }
    with pytest.raises(InvalidProgram, match=r"Dequantise 'map': the multiplier .* is outside"):
        dataclasses.replace(program, tensors=dict(program.tensors) | tiny)


def test_results_come_last() -> None:
    program = mapping()
    early = Dequantise("tensor9", "tensor8")
    operations = (*program.operations[:-2], early, dataclasses.replace(program.result, source="tensor8"))
    with pytest.raises(InvalidProgram, match="only a program's last operation can give results"):
        dataclasses.replace(program, operations=operations)


def test_the_two_programs_hold_every_operation() -> None:
    kinds = {type(operation).__name__ for program in (classifier(), mapping()) for operation in program.operations}
    assert kinds == set(OPERATIONS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 9}, "bits must be 1 to 8"),
        ({"zero_point": 32}, r"zero-point 32 is outside \[0, 31\]"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": float("nan")}, "scale must be positive"),
        ({"channels": 0}, "has no elements"),
        ({"name": "other"}, "the tensor 'tensor2' calls itself 'other'"),
    ],
)
def test_refuses_impossible_tensors(fields: dict[str, Any], message: str) -> None:
    program = classifier()
    tensors = dict(program.tensors) | {"tensor2": dataclasses.replace(program.tensors["tensor2"], **fields)}
    with pytest.raises(InvalidProgram, match=message):
        dataclasses.replace(program, tensors=tensors)


def test_refuses_operations_in_another_order() -> None:
    program = classifier()
    first, second, *rest = program.operations
    for operations in ((second, first, *rest), program.operations[:-1], (first, *program.operations), ()):
        with pytest.raises(InvalidProgram, match="only Quantise and end with a Convolve or a Dequantise"):
            dataclasses.replace(program, operations=tuple(operations))
    with pytest.raises(InvalidProgram, match="writes a tensor that is already written"):
        dataclasses.replace(program, operations=(first, second, second, *rest))


def test_multipliers_are_binary32_numbers() -> None:
    program = changed(classifier(), Sum, multipliers=(0.1, 1 / 3))
    (added,) = (operation for operation in program.operations if isinstance(operation, Sum))
    assert added.multipliers == (float(np.float32(0.1)), float(np.float32(1 / 3)))


@pytest.mark.parametrize("seed", range(5))
def test_a_saved_program_is_read_as_the_same(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    program = random_program(random)
    program.save(tmp_path / "program.safetensors")
    loaded = Program.load(tmp_path / "program.safetensors")
    pixels = random_pixels(random, program, 3)
    assert loaded.fingerprint == program.fingerprint
    assert np.array_equal(interpret(loaded, pixels), interpret(program, pixels))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "program.safetensors"
    with pytest.raises(CorruptFile, match="is not a program of automc"):
        Program.load(path)
    program = classifier()
    program.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptFile, match="is not a program"):
        Program.load(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptFile, match="was changed after automc wrote it, or another version of automc wrote it"):
        Program.load(path)
    path.write_bytes(whole.replace(b"tensor2", b"tensor9"))
    with pytest.raises(CorruptFile, match="was changed"):
        Program.load(path)
    path.write_bytes(whole.replace(b"fingerprint", b"finger_mark"))
    with pytest.raises(CorruptFile, match="is not a program of automc"):
        Program.load(path)


def test_the_fingerprint_sees_every_value() -> None:
    program = classifier()
    weight = program.result.weight.copy()
    weight[0, 0, 0, 0] ^= 1
    others = [
        changed(program, Convolve, 2, weight=weight),
        changed(program, Pool, 1, multiplier=0.125),
        dataclasses.replace(program, name="other"),
    ]
    assert len({program.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_the_fingerprint_sees_the_shape_of_a_kernel() -> None:
    """The same six weights as 3 x 1 and as 1 x 3; with this stride both write one value."""

    def program(kernel: tuple[int, int]) -> Program:
        builder = Builder(np.random.default_rng(0), (1, 3, 3))
        return builder.finish_map(builder.convolve(builder.input, 2, kernel, (4, 4), (0, 0)))

    high, wide = program((3, 1)), program((1, 3))
    pixels = random_pixels(np.random.default_rng(0), high, 3)
    assert not np.array_equal(interpret(high, pixels), interpret(wide, pixels))
    assert high.fingerprint != wide.fingerprint


def test_macs_are_counted() -> None:
    assert classifier().macs == 64 * 9 * (3 * 4 + 4 * 4) + 4 * 10


def test_macs_leave_out_blocks_of_zeros_alone() -> None:
    """Of the blocks of 4 x 8 weights, those at one row of three have non-zeros; a gate and lone zeros save nothing."""
    program = mapping()
    others = 36 * 8 * 27 + 8 * 8 + 36 * 8 * 72
    assert program.macs == others + 36 * 8 * 8 * 3
    for encoding in ("sparse", "codebook"):
        assert changed(program, Convolve, 3, encoding=encoding).macs == others + 36 * 8 * 72


def test_a_map_has_a_result_a_value() -> None:
    program = mapping()
    pixels = random_pixels(np.random.default_rng(0), program, 2)
    assert program.outputs == 2 * 12 * 12
    results = interpret(program, pixels).reshape(2, 12, 12, 2)
    last = program.tensors[program.result.sources[0]]
    stored = interpret_all(program, pixels)[last.name].astype(np.float32)
    assert np.array_equal(results, (stored - last.zero_point) * np.float32(last.scale))
