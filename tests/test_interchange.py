"""The ONNX form of a Program: what another runtime makes of it is near what the Program says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from automc.compiler.interchange import onnx_model, write_onnx
from automc.compression.interpreter import interpret
from tests.programs import Builder, random_pixels

OPERATIONS: dict[str, Callable[[Builder, str], str]] = {
    "convolve": lambda builder, source: builder.convolve(source, 12, stride=(2, 2), weight_bits=4, bits=6),
    "grouped": lambda builder, source: builder.convolve(source, 8, groups=4),
    "residual": lambda builder, source: builder.convolve(source, 8, residual=source),
    "sum": lambda builder, source: builder.sum(source, builder.convolve(source, 8)),
    "join": lambda builder, source: builder.join([source, builder.input], bits=7),
    "select": lambda builder, source: builder.select(source, [3, -1, 0, 7], stride=2),
    "mean": lambda builder, source: builder.pool(source, "mean", (3, 3), (2, 2), (1, 1)),
    "max": lambda builder, source: builder.pool(source, "max", (3, 3), (2, 2), (1, 1)),
    "lookup": lambda builder, source: builder.lookup(source),
    "scale": lambda builder, source: builder.scale(source, builder.mean(source, 8)),
    "shuffle": lambda builder, source: builder.shuffle(source, 2),
    "rank": lambda builder, source: builder.rank(builder.mean(source, 8), 3),
    "gated": lambda builder, source: builder.convolve(source, 8, gate=builder.rank(builder.mean(source, 8), 3)),
}


@pytest.mark.parametrize("kind", OPERATIONS)
def test_every_operation_gives_nearly_the_same_stored_values(kind):
    builder = Builder(np.random.default_rng(5), (8, 8, 8))
    program = builder.finish_map(OPERATIONS[kind](builder, builder.convolve(builder.input, 8)))
    pixels = random_pixels(np.random.default_rng(6), program, 2)
    (results,) = ReferenceEvaluator(onnx_model(program)).run(None, {"pixels": pixels})
    steps = np.abs(results - interpret(program, pixels)) / program.tensors[program.result.sources[0]].scale
    # The runtime's own float arithmetic may round a tie to the other side, twice in a row at most.
    assert steps.max() <= 2.01
    assert (steps < 0.01).mean() > 0.97


def test_logits_are_near(tmp_path):
    builder = Builder(np.random.default_rng(1), (3, 8, 8))
    program = builder.finish(builder.convolve(builder.input, 16))
    pixels = random_pixels(np.random.default_rng(2), program, 3)
    write_onnx(program, tmp_path / "model.onnx")
    (results,) = ReferenceEvaluator(str(tmp_path / "model.onnx")).run(None, {"pixels": pixels})
    expected = interpret(program, pixels)
    assert results.shape == expected.shape == (3, program.outputs)
    assert np.abs(results - expected).max() < 0.02 * np.abs(expected).max()
