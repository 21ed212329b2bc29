"""The executor and the exported torch module return the interpreter's bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from automc.compression import executor
from automc.compression.executor import Executor
from automc.compression.export import to_torch
from automc.compression.interpreter import interpret
from automc.compression.operations import Convolve
from automc.compression.program import Program
from automc.compression.steps import ConvolveStep, signs, step_of
from automc.errors import DataError
from tests.programs import Builder, random_pixels, random_program


@pytest.mark.parametrize("seed", range(60))
def test_equals_the_interpreter(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_BATCH", 3)
    random = np.random.default_rng(seed)
    program = random_program(random, steps=int(random.integers(1, 9)), wide=seed % 3 == 0)
    pixels = random_pixels(random, program, 7)
    logits = Executor(program).run(pixels)
    assert logits.dtype == np.float32
    assert np.array_equal(logits.view(np.uint32), interpret(program, pixels).view(np.uint32))  # the sign of zero, too


def extreme(inputs: int) -> Program:
    """A dense layer whose sums of `inputs` products reach as far as they can, and are odd."""
    builder = Builder(np.random.default_rng(0), (1, 1, 1))
    spread = builder.convolve(builder.input, inputs, (1, 1), padding=(0, 0))
    program = builder.finish(spread, outputs=4)
    first, last = program.operations[1], program.result
    assert isinstance(first, Convolve)
    full = dataclasses.replace(
        first,
        weight=np.full_like(first.weight, 127),
        bias=np.full_like(first.bias, 2**20),
        multiplier=np.ones_like(first.multiplier),
        low=0,
        high=255,
    )
    weight = np.full_like(last.weight, 127)
    weight[1] = -127
    weight[2, ::2] = -127
    weight[3, inputs // 2 :] = 0
    widest = dataclasses.replace(
        last, weight=weight, bias=np.array([1, 3, 5, 7], np.int32), multiplier=np.ones_like(last.multiplier)
    )
    tensors = dict(program.tensors) | {spread: dataclasses.replace(program.tensors[spread], zero_point=0)}
    return dataclasses.replace(program, tensors=tensors, operations=(program.operations[0], full, widest))


@pytest.mark.parametrize(("inputs", "parts"), [(500, 1), (700, 2), (4000, 8)])
def test_sums_beyond_float32_are_split_until_each_part_is_exact(inputs: int, parts: int) -> None:
    program = extreme(inputs)
    step = to_torch(program).steps[-1]
    assert isinstance(step, ConvolveStep)
    assert step.parts == parts
    pixels = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    logits = Executor(program).run(pixels)
    assert logits[0, 0] == np.float32(127 * 255 * inputs + 1)
    assert np.array_equal(logits, interpret(program, pixels))


def test_a_large_bias_alone_goes_beyond_float32() -> None:
    random = np.random.default_rng(3)
    builder = Builder(random, (2, 5, 5), wide=True)
    program = builder.finish(builder.convolve(builder.input, 300))
    pixels = random_pixels(random, program, 20)
    steps = [step for step in to_torch(program).steps if isinstance(step, ConvolveStep)]
    assert [step.bias.dtype for step in steps] == [torch.float64, torch.float64]
    assert steps[0].parts == 1 < steps[1].parts
    assert np.array_equal(Executor(program).run(pixels), interpret(program, pixels))


def test_the_exported_module_takes_torch_images_and_keeps_its_weights_in_buffers() -> None:
    random = np.random.default_rng(5)
    program = random_program(random)
    pixels = random_pixels(random, program, 4)
    module = to_torch(program)
    answer = module(torch.tensor(pixels).permute(0, 3, 1, 2).contiguous())
    assert np.array_equal(answer.numpy(), interpret(program, pixels))
    assert not list(module.parameters())
    changed = {name: torch.zeros_like(value) for name, value in module.state_dict().items()}
    assert sum(name.endswith(".weight") for name in changed) == sum(
        isinstance(operation, Convolve) for operation in program.operations
    )
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(changed)
    assert not module(torch.tensor(pixels).permute(0, 3, 1, 2)).any()
    module.load_state_dict(kept)
    assert np.array_equal(module(torch.tensor(pixels).permute(0, 3, 1, 2)).numpy(), answer.numpy())


def test_evaluation_leaves_the_global_generator_alone() -> None:
    random = np.random.default_rng(6)
    program = random_program(random)
    before = torch.random.get_rng_state()
    Executor(program).run(random_pixels(random, program, 3))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_refuses_other_images() -> None:
    builder = Builder(np.random.default_rng(0), (3, 4, 5))
    program = builder.finish(builder.input)
    with pytest.raises(DataError, match="takes n x 4 x 5 x 3 uint8 images"):
        Executor(program).run(np.zeros((1, 5, 4, 3), np.uint8))
    with pytest.raises(DataError, match="takes n x 3 x 4 x 5 uint8"):
        to_torch(program)(torch.zeros((1, 3, 4, 5)))


def gradient_of(program: Program, pixels: np.ndarray, position: int) -> torch.Tensor:
    """What the sum of the results' squares asks of a convolution's weights."""
    module = to_torch(program)
    step = module.steps[position]
    assert isinstance(step, ConvolveStep)
    step.weight.requires_grad_()
    module(torch.tensor(pixels).permute(0, 3, 1, 2)).square().sum().backward()
    assert step.weight.grad is not None
    return step.weight.grad


@pytest.mark.parametrize("kind", ["lookup", "scale", "gains", "shuffle", "gate"])
def test_gradients_pass_through(kind: str) -> None:
    random = np.random.default_rng(7)
    builder = Builder(random, (3, 6, 6))
    first = builder.convolve(builder.input, 8)
    vector = builder.mean(first, 8)
    if kind == "lookup":
        end = builder.lookup(first)
    elif kind == "shuffle":
        end = builder.shuffle(first, 2)
    elif kind == "scale":
        end = builder.scale(first, vector)
    elif kind == "gains":
        end = builder.scale(builder.convolve(builder.input, 8), vector)
    else:
        end = builder.convolve(builder.input, 8, gate=builder.rank(vector, 3))
    program = builder.finish_map(end)
    pixels = random_pixels(random, program, 4)
    gradient = gradient_of(program, pixels, 1)
    assert bool(gradient.isfinite().all())
    assert bool(gradient.any())


def test_a_table_has_the_gradient_of_its_slope() -> None:
    """The table of a straight line: what comes before gets the gradient of the line."""
    builder = Builder(np.random.default_rng(0), (1, 4, 4))
    program = builder.finish_map(builder.lookup(builder.input))
    table = np.arange(256, dtype=np.uint8) // 2 * 2  # steps of 0 and 2, on average 1
    step = step_of(dataclasses.replace(program.operations[1], table=table), program.tensors)
    values = (torch.arange(1.0, 255.0) - program.input.zero_point).view(1, 1, 1, -1).requires_grad_()
    step(values).sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, torch.ones(1, 1, 1, 254))


def test_signs_pass_gradients_within_one() -> None:
    values = torch.tensor([-1.5, -1.0, -0.2, 0.0, 0.3, 1.0, 1.5], requires_grad=True)
    answer = signs(values)
    assert answer.tolist() == [-1, -1, -1, 1, 1, 1, 1]
    answer.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]
