"""Fine-tuning trains exactly the program that it returns, helps, and can be killed at any moment."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from automc.compression.descent import orthogonalised
from automc.compression.finetune import finetune
from automc.compression.interpreter import interpret
from automc.compression.operations import Convolve, Operation, Pool, Quantise, Select, Tensor
from automc.compression.program import Program
from automc.compression.shadow import ShadowWeights
from automc.errors import CorruptFile, DataError, RunMismatch, WeightsError
from automc.network.datasets import Images, load_dataset
from automc.network.training import normalise
from automc.schema import FinetuningSpec
from tests.programs import Builder, random_pixels, random_program
from tests.stops import Killed

DIGITS = load_dataset("digits")
MEAN, STD = DIGITS.mean, DIGITS.std
SPEC = FinetuningSpec(epochs=1.0, batch_size=32, learning_rate=0.05, crop=0, flip=False)


class Teacher(nn.Module):
    """A linear classifier of digits, solved by least squares: right enough to learn from, and ready at once."""

    weight: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        pixels = normalise(DIGITS.train.pixels, MEAN, STD).flatten(1).double()
        inputs = torch.cat([pixels, torch.ones(len(pixels), 1)], 1)
        wanted = 8.0 * torch.eye(10).double()[torch.from_numpy(DIGITS.train.labels)]
        solved = torch.linalg.solve(inputs.T @ inputs + torch.eye(65), inputs.T @ wanted)
        self.register_buffer("weight", solved.float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.flatten(1), torch.ones(len(x), 1)], 1) @ self.weight


TEACHER = Teacher()


def student(weight_bits: int = 4) -> Program:
    """An untrained program for digits, its weights and scales those of a float network as it is usually initialised."""
    random = np.random.default_rng(4)
    largest = 2 ** (weight_bits - 1) - 1
    image = Tensor("image", 1, 8, 8, 8, 1 / (255 * STD[0]), round(255 * MEAN[0]))
    tensors = {"image": image}

    def convolve(name: str, source: str, outputs: int, size: int, residual: str | None = None) -> Convolve:
        given = tensors[source]
        kernel = 3 if size > 1 else given.height
        shape = (outputs, given.channels, kernel, kernel)
        real = random.normal(0, np.sqrt(2 / (given.channels * kernel**2)), shape)
        unit = np.abs(real).max((1, 2, 3)) / largest
        weight = np.rint(real / unit[:, None, None, None]).astype(np.int8)
        scale = 4 / 255 if size > 1 else 1.0
        if size > 1:
            tensors[name] = Tensor(name, outputs, size, size, 8, scale, 0)
        bias = -given.zero_point * weight.sum((1, 2, 3), dtype=np.int32)
        multiplier = (unit * given.scale / scale).astype(np.float32)
        stride, padding = (given.height // size if size > 1 else 1,) * 2, (int(size > 1),) * 2
        shortcut = (residual, tensors[residual].scale / scale) if residual is not None else (None, 0.0)
        return Convolve(
            name, source, weight, weight_bits, bias, multiplier, stride, padding, (1, 1), 1, 0, 255, *shortcut
        )

    operations: list[Operation] = [Quantise("image", np.arange(256, dtype=np.uint8)[None])]
    operations.append(convolve("first", "image", 12, 8))
    operations.append(convolve("second", "first", 12, 8, residual="first"))
    tensors["largest"] = dataclasses.replace(tensors["second"], name="largest", height=4, width=4)
    operations.append(Pool("largest", "second", "max", (2, 2), (2, 2), (0, 0), 1.0, 0, 255))
    tensors["selected"] = dataclasses.replace(tensors["largest"], name="selected", channels=16)
    operations.append(Select("selected", "largest", (*range(12), -1, -1, -1, -1), 1))
    operations.append(convolve("third", "selected", 16, 4, residual="selected"))
    tensors["mean"] = dataclasses.replace(tensors["third"], name="mean", height=2, width=2)
    operations.append(Pool("mean", "third", "mean", (2, 2), (2, 2), (0, 0), 0.25, 0, 255))
    operations.append(convolve("logits", "mean", 10, 1))
    return Program("student", tensors, tuple(operations))


def right(program: Program, images: Images) -> float:
    return float((interpret(program, images.pixels).argmax(1) == images.labels).mean())


def quiet(line: str) -> None:
    pass


@pytest.mark.parametrize("seed", range(12))
def test_the_training_forward_is_the_program(seed: int) -> None:
    random = np.random.default_rng(seed)
    program = random_program(random, wide=seed % 4 == 0)
    pixels = random_pixels(random, program, 5)
    shadow = ShadowWeights(program)
    images = torch.tensor(pixels).permute(0, 3, 1, 2)
    assert shadow.program().fingerprint == program.fingerprint
    answers = shadow(images)
    assert answers.requires_grad
    assert np.array_equal(answers.detach().numpy(), interpret(program, pixels))


def test_the_result_is_what_was_trained_and_is_better(tmp_path: Path) -> None:
    before = student()
    lines: list[str] = []
    after = finetune(before, DIGITS.train, TEACHER, MEAN, STD, SPEC, tmp_path, lines.append)
    assert right(after, DIGITS.test) > right(before, DIGITS.test) + 0.2
    assert lines[-1].startswith("fine-tuning: epoch 1.00/1  loss ")
    for old, new in zip(before.operations, after.operations, strict=True):
        kept = {key: value for key, value in vars(new).items() if key not in ("weight", "bias")}
        assert all(np.array_equal(value, vars(old)[key]) for key, value in kept.items())
    assert after.tensors == before.tensors
    shadow = ShadowWeights(after)
    answers = shadow(torch.tensor(DIGITS.test.pixels).permute(0, 3, 1, 2)).detach().numpy()
    assert np.array_equal(answers, interpret(after, DIGITS.test.pixels))


def test_gradients_are_those_of_the_float_network() -> None:
    """At 8 bits rounding moves little, so each layer's gradient must nearly be that of the network in real numbers."""
    program = student(weight_bits=8)
    shadow = ShadowWeights(program)
    pixels = torch.tensor(DIGITS.train.pixels[:64]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(DIGITS.train.labels[:64])
    F.cross_entropy(shadow(pixels), labels).backward()

    real: list[tuple[torch.Tensor, ...]] = []  # weight, bias, and what a step of the integers of each is worth

    def convolve(position: int, source: torch.Tensor, residual: torch.Tensor | float = 0.0) -> torch.Tensor:
        operation = program.operations[position]
        assert isinstance(operation, Convolve)
        scale = program.tensors[operation.target].scale if operation.target in program.tensors else 1.0
        unit = torch.tensor(operation.multiplier) * scale / program.tensors[operation.source].scale
        weight = (torch.tensor(operation.weight) * unit.view(-1, 1, 1, 1)).requires_grad_()
        bias = torch.zeros(operation.outputs).requires_grad_()
        real.append((weight, bias, unit.view(-1, 1, 1, 1), unit * program.tensors[operation.source].scale))
        value = F.conv2d(source, weight, bias, operation.stride, operation.padding) + residual
        return value.clamp(0, 4) if operation.target in program.tensors else value

    image = (pixels.float() - program.input.zero_point) * program.input.scale
    first = convolve(1, image)
    largest = F.max_pool2d(convolve(2, first, first), 2)
    selected = F.pad(largest, (0, 0, 0, 0, 0, 4))
    logits = convolve(7, F.avg_pool2d(convolve(5, selected, selected), 2)).flatten(1)
    F.cross_entropy(logits, labels).backward()

    for position, (weight, bias, unit, bias_unit) in enumerate(real):
        pairs = (shadow.weights[position].grad, unit, weight.grad), (shadow.biases[position].grad, bias_unit, bias.grad)
        for grid, worth, theirs in pairs:
            assert grid is not None
            assert theirs is not None
            assert float((grid / worth - theirs).norm() / theirs.norm()) < 0.05


def test_steps_are_relative_to_the_length_of_a_channel() -> None:
    """Weights twice as long, with half the multiplier, are the same network: their steps must be twice as long."""
    short = student()
    steps, moved = [], []
    for factor in (1, 2):
        operations = (
            dataclasses.replace(
                each,
                weight=each.weight * factor,
                weight_bits=8,
                bias=each.bias * factor,
                multiplier=each.multiplier / factor,
            )
            if isinstance(each, Convolve)
            else each
            for each in short.operations
        )
        program = dataclasses.replace(short, operations=tuple(operations))
        shadow = ShadowWeights(program)
        answers = shadow(torch.tensor(DIGITS.train.pixels[:32]).permute(0, 3, 1, 2))
        F.cross_entropy(answers, torch.from_numpy(DIGITS.train.labels[:32])).backward()
        before = [parameter.detach().clone() for parameter in shadow.parameters()]
        steps.append(shadow.gradients())
        shadow.move([-1e-3 * step for step in steps[-1]])
        moved.append([now.detach() - then for now, then in zip(shadow.parameters(), before, strict=True)])
    for once, twice in zip(*steps, strict=True):
        assert torch.allclose(once, twice, rtol=1e-3, atol=1e-6 * float(once.abs().max()))
    for once, twice in zip(*moved, strict=True):
        assert torch.allclose(2 * once, twice, rtol=1e-3, atol=1e-4 * float(twice.abs().max()))


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 4, 19), (2, 19, 4), (5, 1, 10)])
def test_orthogonalised_steps_move_every_direction_alike(count: int, rows: int, columns: int) -> None:
    matrices = torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(0))
    matrices[:, :, 0] *= 100  # one direction outweighs all others
    steps = orthogonalised(matrices)
    for step, matrix in zip(steps, matrices, strict=True):
        values = torch.linalg.svdvals(step) / max(1, rows / columns) ** 0.5
        assert 0.3 < float(values.min()) <= float(values.max()) < 1.3
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        assert float((step * (left @ right)).sum()) > 0  # downhill
    assert torch.equal(orthogonalised(torch.zeros(1, rows, columns)), torch.zeros(1, rows, columns))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_grouped_layers_are_moved_group_by_group(groups: int) -> None:
    builder = Builder(np.random.default_rng(3), (8, 5, 5))
    shadow = ShadowWeights(builder.finish(builder.convolve(builder.input, 8, groups=groups)))
    steps = [torch.zeros_like(each) for each in shadow.gradients()]
    assert steps[0].shape == (groups, 8 // groups, 8 // groups * 9 + 1)
    steps[0][groups - 1, 0, 5] = -0.5
    before = shadow.weights[0].detach().clone()
    shadow.move(steps)
    assert (shadow.weights[0] != before).nonzero().tolist() == [[8 - 8 // groups, 0, 1, 2]]


def test_weights_stay_on_their_grid_and_accumulators_within_int32() -> None:
    shadow = ShadowWeights(student(weight_bits=2))
    with torch.no_grad():
        for bias in shadow.biases:
            bias.fill_(-(2.0**40))
    shadow.move([torch.full_like(each, 100) for each in shadow.gradients()])
    moved = shadow.program()  # its construction checks both
    assert np.abs(moved.result.weight).max() == 1
    assert -(2**31) < moved.result.bias.min() < -(2**31) + 255 * moved.result.weight[0].size + 2


def test_maps_are_tuned_towards_targets_and_teacher(tmp_path: Path) -> None:
    """A network that should double the pixels of an image's left half and clear the rest."""
    targets = np.minimum(2 * DIGITS.train.pixels.astype(np.int64), 255).astype(np.uint8)
    targets[:, :, 4:] = 0
    images = Images(DIGITS.train.pixels, DIGITS.train.labels, targets)
    builder = Builder(np.random.default_rng(1), (1, 8, 8))
    program = builder.finish_map(builder.convolve(builder.input, 1))

    def error(tuned: Program) -> float:
        return float(np.square(interpret(tuned, images.pixels) - targets.reshape(len(images), -1) / 255.0).mean())

    spec = SPEC.model_copy(update={"distillation": 0.0})
    tuned = finetune(program, images, nn.Identity(), MEAN, STD, spec, tmp_path / "targets", quiet)
    assert error(tuned) < 0.5 * error(program)


def test_bits_stay_signs_and_zeros_that_are_not_stored_stay_zeros() -> None:
    builder = Builder(np.random.default_rng(1), (2, 6, 6))
    middle = builder.convolve(builder.convolve(builder.input, 8, weight_bits=1), 8, encoding="sparse")
    program = builder.finish(builder.convolve(middle, 16, encoding="blocks"))
    shadow = ShadowWeights(program)
    images = torch.tensor(random_pixels(np.random.default_rng(2), program, 16)).permute(0, 3, 1, 2)
    for _ in range(3):
        shadow.zero_grad()
        shadow(images).square().sum().backward()
        shadow.move([-gradient / gradient.norm() for gradient in shadow.gradients()])
    signs, *others = (each for each in shadow.program().operations[1:4])
    before = program.operations[1:4]
    assert set(np.unique(signs.weight)) == {-1, 1}
    assert (signs.weight != before[0].weight).any()
    for after, sparse in zip(others, before[1:], strict=True):
        assert not after.weight[sparse.weight == 0].any()
        assert (after.weight != sparse.weight).any()


@pytest.mark.parametrize(("wide", "normalising"), [(False, 0.0), (True, 0.0), (False, 0.5), (True, 0.7)])
def test_a_killed_run_ends_with_the_same_program(tmp_path: Path, wide: bool, normalising: float) -> None:
    builder = Builder(np.random.default_rng(5), (1, 8, 8), wide=wide)
    program = builder.finish(builder.convolve(builder.input, 10, stride=(2, 2)))
    changes = {"batch_size": 16, "epochs": 1.9, "crop": 1, "flip": True, "normalising": normalising}
    spec = SPEC.model_copy(update=changes)
    images = DIGITS.train.take(slice(0, 500))

    def run(folder: Path, deaths: int) -> Program:
        lines: list[str] = []

        def report(line: str) -> None:
            lines.append(line)
            if deaths:
                raise Killed

        try:
            return finetune(program, images, TEACHER, MEAN, STD, spec, folder, report)
        except Killed:
            return run(folder, deaths - 1)

    whole = run(tmp_path / "whole", 0)
    assert whole.fingerprint != program.fingerprint
    assert run(tmp_path / "killed", 2).fingerprint == whole.fingerprint
    assert run(tmp_path / "whole", 0).fingerprint == whole.fingerprint  # finished: read, not trained again


def test_no_epochs_change_nothing(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"epochs": 0.0})
    before = student()
    after = finetune(before, DIGITS.train, TEACHER, MEAN, STD, spec, tmp_path, quiet)
    assert after.fingerprint == before.fingerprint


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"epochs": 0.1})
    finetune(student(), DIGITS.train, TEACHER, MEAN, STD, spec, tmp_path, quiet)
    with pytest.raises(RunMismatch, match="another specification; remove it"):
        finetune(student(), DIGITS.train, TEACHER, MEAN, STD, SPEC, tmp_path, quiet)
    with pytest.raises(RunMismatch, match="another program;"):
        finetune(student(weight_bits=3), DIGITS.train, TEACHER, MEAN, STD, spec, tmp_path, quiet)
    other = copy.deepcopy(TEACHER)
    other.weight += 1
    with pytest.raises(RunMismatch, match="another images, teacher;"):
        finetune(student(), DIGITS.test, other, MEAN, STD, spec, tmp_path, quiet)
    (tmp_path / "finetuning.safetensors").write_bytes(b"nothing")
    with pytest.raises(CorruptFile, match="is not a state of a fine-tuning"):
        finetune(student(), DIGITS.train, TEACHER, MEAN, STD, spec, tmp_path, quiet)


def test_an_accuracy_is_reported_where_labels_are_known(tmp_path: Path) -> None:
    unlabelled = Images(DIGITS.train.pixels, np.full_like(DIGITS.train.labels, -1))
    for images, known in ((DIGITS.train, True), (unlabelled, False)):
        lines: list[str] = []
        spec = SPEC.model_copy(update={"epochs": 0.1})
        finetune(student(), images, TEACHER, MEAN, STD, spec, tmp_path / str(known), lines.append)
        assert lines
        assert all(("accuracy" in line) is known for line in lines)


def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    images = Images(np.zeros((4, 9, 9, 1), np.uint8), np.zeros(4, np.int64))
    with pytest.raises(DataError, match="takes n x 8 x 8 x 1"):
        finetune(student(), images, TEACHER, MEAN, STD, SPEC, tmp_path, quiet)
    broken = copy.deepcopy(TEACHER)
    broken.weight[0, 0] = torch.nan
    with pytest.raises(WeightsError, match="the loss of step 1 is not finite"):
        finetune(student(), DIGITS.train, broken, MEAN, STD, SPEC, tmp_path, quiet)
    assert not list(tmp_path.iterdir())


def test_leaves_the_global_generators_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    finetune(student(), DIGITS.train, TEACHER, MEAN, STD, SPEC.model_copy(update={"epochs": 0.1}), tmp_path, quiet)
    assert torch.equal(torch.random.get_rng_state(), before)
