"""The interpreter against the words of the definition, computed one number at a time in exact arithmetic."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest

from automc.compression.interpreter import interpret, interpret_all
from automc.compression.operations import (
    OPERATIONS,
    Convolve,
    Dequantise,
    Encoding,
    Join,
    Lookup,
    Pool,
    Quantise,
    Rank,
    Scale,
    Select,
    Shuffle,
    Sum,
)
from automc.compression.program import Program
from automc.errors import DataError
from tests.programs import Builder, random_pixels, random_program


def binary32(value: Fraction | int) -> Fraction:
    """The nearest binary32 number, ties to even, of an exact one in the normal range."""
    if value == 0:
        return Fraction(0)
    exponent = 0
    while abs(Fraction(value)) / Fraction(2) ** exponent >= 2**24:
        exponent += 1
    while abs(Fraction(value)) / Fraction(2) ** exponent < 2**23:
        exponent -= 1
    return Fraction(round(Fraction(value) / Fraction(2) ** exponent)) * Fraction(2) ** exponent


def requantise(value: Fraction, low: int, high: int, zero_point: int) -> int:
    return round(min(max(value, Fraction(low - zero_point)), Fraction(high - zero_point))) + zero_point


class Slow:
    """One image, one number at a time, in exact fractions."""

    def __init__(self, program: Program, pixels: np.ndarray) -> None:
        self.program, self.tensors = program, program.tensors
        self.stored: dict[str, np.ndarray] = {}
        for operation in program.operations[:-1]:
            channels, height, width = program.tensors[operation.target].shape
            out = np.zeros((height, width, channels), np.int64)
            for y, x, c in itertools.product(range(height), range(width), range(channels)):
                if isinstance(operation, Quantise):
                    out[y, x, c] = operation.table[c, pixels[y, x, c]]
                else:
                    out[y, x, c] = getattr(self, type(operation).__name__.lower())(operation, y, x, c)
            self.stored[operation.target] = out
        self.results = self.last(program.result)

    def last(self, op: Convolve | Dequantise) -> list[float]:
        if isinstance(op, Convolve):
            return [float(self.value(op, 0, 0, c)) for c in range(op.outputs)]
        scale = self.tensors[op.source].scale
        return [float(self.scaled(op.source, *place, scale)) for place in np.ndindex(self.stored[op.source].shape)]

    def at(self, name: str, y: int, x: int, c: int) -> int | None:
        stored = self.stored[name]
        inside = 0 <= y < stored.shape[0] and 0 <= x < stored.shape[1]
        return int(stored[y, x, c]) if inside else None

    def scaled(self, name: str, y: int, x: int, c: int, multiplier: float) -> Fraction:
        centred = int(self.stored[name][y, x, c]) - self.tensors[name].zero_point
        return binary32(binary32(centred) * Fraction(float(np.float32(multiplier))))

    def value(self, op: Convolve, y: int, x: int, c: int) -> Fraction:
        inputs, per_group = op.weight.shape[1], op.outputs // op.groups
        total = int(op.bias[c])
        for i, ky, kx in itertools.product(range(inputs), *map(range, op.kernel)):
            row = y * op.stride[0] - op.padding[0] + ky * op.dilation[0]
            column = x * op.stride[1] - op.padding[1] + kx * op.dilation[1]
            stored = self.at(op.source, row, column, c // per_group * inputs + i)
            filled = self.tensors[op.source].zero_point if stored is None else stored
            total += int(op.weight[c, i, ky, kx]) * filled
        value = binary32(binary32(total) * Fraction(float(op.multiplier[c])))
        if op.residual is not None:
            value = binary32(value + self.scaled(op.residual, y, x, c, op.residual_multiplier))
        return value

    def convolve(self, op: Convolve, y: int, x: int, c: int) -> int:
        if op.gate is not None and self.stored[op.gate][0, 0, c] == 0:
            return self.tensors[op.target].zero_point
        return requantise(self.value(op, y, x, c), op.low, op.high, self.tensors[op.target].zero_point)

    def sum(self, op: Sum, y: int, x: int, c: int) -> int:
        first, second = (self.scaled(n, y, x, c, m) for n, m in zip(op.sources, op.multipliers, strict=True))
        return requantise(binary32(first + second), op.low, op.high, self.tensors[op.target].zero_point)

    def lookup(self, op: Lookup, y: int, x: int, c: int) -> int:
        return int(op.table[self.stored[op.source][y, x, c]])

    def scale(self, op: Scale, y: int, x: int, c: int) -> int:
        source, gain = self.stored[op.source][y, x, c], self.stored[op.gains][0, 0, c]
        product = int(source - self.tensors[op.source].zero_point) * int(gain - self.tensors[op.gains].zero_point)
        value = binary32(binary32(product) * Fraction(op.multiplier))
        return requantise(value, op.low, op.high, self.tensors[op.target].zero_point)

    def shuffle(self, op: Shuffle, y: int, x: int, c: int) -> int:
        channel = (c * op.factor + y % op.factor) * op.factor + x % op.factor
        return int(self.stored[op.source][y // op.factor, x // op.factor, channel])

    def rank(self, op: Rank, y: int, x: int, c: int) -> int:
        values = self.stored[op.source][0, 0].tolist()
        before = sum(value > values[c] or (value == values[c] and other < c) for other, value in enumerate(values))
        return int(before < op.count)

    def join(self, op: Join, y: int, x: int, c: int) -> int:
        target = self.tensors[op.target]
        for part, multiplier in zip(op.parts, op.multipliers, strict=True):
            if c < self.tensors[part].channels:
                return requantise(self.scaled(part, y, x, c, multiplier), 0, target.limit, target.zero_point)
            c -= self.tensors[part].channels
        raise AssertionError

    def select(self, op: Select, y: int, x: int, c: int) -> int:
        if op.index[c] < 0:
            return self.tensors[op.source].zero_point
        return int(self.stored[op.source][y * op.stride, x * op.stride, op.index[c]])

    def pool(self, op: Pool, y: int, x: int, c: int) -> int:
        rows = [y * op.stride[0] - op.padding[0] + k for k in range(op.kernel[0])]
        columns = [x * op.stride[1] - op.padding[1] + k for k in range(op.kernel[1])]
        seen = [v for r, k in itertools.product(rows, columns) if (v := self.at(op.source, r, k, c)) is not None]
        if op.kind == "max":
            return max(seen)
        total = sum(value - self.tensors[op.source].zero_point for value in seen)
        value = binary32(binary32(total) * Fraction(op.multiplier))
        return requantise(value, op.low, op.high, self.tensors[op.target].zero_point)


@pytest.mark.parametrize("seed", range(14))
def test_equals_the_definition_number_by_number(seed: int) -> None:
    random = np.random.default_rng(seed)
    program = random_program(random, steps=2, wide=seed % 3 == 0)
    pixels = random_pixels(random, program, 3)
    tensors, results = interpret_all(program, pixels), interpret(program, pixels)
    slow = Slow(program, pixels[1])
    for name, stored in slow.stored.items():
        assert np.array_equal(tensors[name][1], stored), name
    assert results[1].tolist() == slow.results


def test_random_programs_hold_every_operation_and_spread_their_values() -> None:
    kinds, distinct = set(), []
    for seed in range(30):
        random = np.random.default_rng(seed)
        program = random_program(random)
        for operation in program.operations:
            kinds.add(type(operation).__name__)
            kinds |= {(name, getattr(operation, name)) for name in ("kind", "encoding") if hasattr(operation, name)}
            kinds |= {name for name in ("residual", "gate") if getattr(operation, name, None) is not None}
        distinct.append(len(np.unique(interpret(program, random_pixels(random, program, 8)))))
    parts = {("kind", "mean"), ("kind", "max"), *(("encoding", name) for name in get_args(Encoding))}
    assert kinds == {*OPERATIONS, "residual", "gate", *parts}
    assert np.median(distinct) > 20


def test_answers_do_not_depend_on_the_batch() -> None:
    random = np.random.default_rng(0)
    program = random_program(random)
    pixels = random_pixels(random, program, 45)
    singly = np.concatenate([interpret(program, pixels[i : i + 1]) for i in range(45)])
    assert np.array_equal(interpret(program, pixels), singly)
    assert interpret(program, pixels[:0]).shape == (0, program.outputs)


def test_refuses_other_images() -> None:
    builder = Builder(np.random.default_rng(0), (3, 4, 5))
    program = builder.finish(builder.input)
    with pytest.raises(DataError, match="takes n x 4 x 5 x 3 uint8 images"):
        interpret(program, np.zeros((1, 5, 4, 3), np.uint8))
    with pytest.raises(DataError, match="Got float32"):
        interpret_all(program, np.zeros((1, 4, 5, 3), np.float32))  # type: ignore[arg-type]
