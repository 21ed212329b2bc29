"""Batch norms in fine-tuning change nothing at first, and end as multipliers and biases of an exact program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from automc.compression.executor import Executor
from automc.compression.finetune import finetune
from automc.compression.interpreter import interpret
from automc.compression.normalisation import BatchNorms
from automc.compression.operations import Convolve
from automc.compression.shadow import ShadowWeights
from tests.test_finetune import DIGITS, MEAN, SPEC, STD, TEACHER, quiet, student


def pixels(count: int) -> torch.Tensor:
    return torch.from_numpy(DIGITS.train.pixels[:count]).permute(0, 3, 1, 2)


def moved(rate: float) -> tuple[ShadowWeights, BatchNorms]:
    """A student's shadow after a few steps towards the labels."""
    shadow = ShadowWeights(student())
    norms = BatchNorms(shadow, pixels(200))
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(shadow(pixels(200)), torch.from_numpy(DIGITS.train.labels[:200]))
        loss.backward()
        shadow.move([-rate * gradient / (gradient.norm() + 1e-9) for gradient in shadow.gradients()])
        norms.move(rate)
        shadow.zero_grad()
    return shadow, norms


def test_they_change_nothing_at_first() -> None:
    shadow = ShadowWeights(student())
    before = shadow(pixels(200))
    norms = BatchNorms(shadow, pixels(200))
    assert len(norms.layers) > 2
    torch.testing.assert_close(shadow(pixels(200)), before, rtol=0.02, atol=0.02 * float(before.detach().abs().max()))


def test_the_folded_program_is_exact_and_does_what_they_did() -> None:
    shadow, norms = moved(0.05)
    shadow.eval()
    wanted = shadow(pixels(300)).detach().numpy()
    shadow.train()
    program = norms.folded().original
    images = DIGITS.train.pixels[:300]
    found = Executor(program).run(images)
    assert np.array_equal(found, interpret(program, images))
    assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()  # a bias and a multiplier are rounded
    unmoved = Executor(student()).run(images)
    assert np.abs(found - wanted).mean() < 0.1 * np.abs(unmoved - wanted).mean()


def test_weights_keep_their_lengths_and_their_grids() -> None:
    shadow, norms = moved(0.3)
    operations = [each for each in norms.folded().original.operations if isinstance(each, Convolve)]
    originals = [each for each in student().operations if isinstance(each, Convolve)]
    assert any(not np.array_equal(one.weight, other.weight) for one, other in zip(operations, originals, strict=True))
    for position, weight, original in zip(shadow.layers, shadow.weights, originals, strict=True):
        if position in norms.layers:
            lengths = weight.detach().flatten(1).norm(dim=1).numpy()
            were = np.linalg.norm(original.weight.reshape(len(lengths), -1).astype(float), axis=1)
            np.testing.assert_allclose(lengths, were, rtol=1e-3)


def test_the_result_is_better_and_has_other_multipliers(tmp_path: Path) -> None:
    before = student()
    spec = SPEC.model_copy(update={"normalising": 0.6})
    after = finetune(before, DIGITS.train, TEACHER, MEAN, STD, spec, tmp_path, quiet)
    test = DIGITS.test

    def right(program: object) -> float:
        return float((interpret(program, test.pixels).argmax(1) == test.labels).mean())  # type: ignore[arg-type]

    assert right(after) > right(before) + 0.1
    first = next(each for each in after.operations if isinstance(each, Convolve))
    was = next(each for each in before.operations if isinstance(each, Convolve))
    assert not np.array_equal(first.multiplier, was.multiplier)
