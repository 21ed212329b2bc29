"""Programs on a device that is not the CPU: no tensor is left behind, and what counts is computed on the CPU.

The device `meta` computes shapes and devices alone, and refuses tensors of two devices as a CUDA device does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from automc.compression.descent import Descent
from automc.compression.executor import Executor
from automc.compression.export import to_torch
from automc.compression.finetune import finetune
from automc.compression.gradients import whole_float32
from automc.compression.interpreter import interpret
from automc.compression.normalisation import BatchNorms
from automc.compression.program import Program
from automc.compression.shadow import ShadowWeights
from tests.programs import random_program
from tests.test_executor import extreme
from tests.test_finetune import DIGITS, MEAN, SPEC, STD, TEACHER, student


def images(program: Program, count: int = 3, device: str = "meta") -> torch.Tensor:
    return torch.empty((count, *program.input.shape), dtype=torch.uint8, device=device)


@pytest.mark.parametrize("seed", range(24))
def test_every_step_computes_where_its_input_is(seed: int) -> None:
    random = np.random.default_rng(seed)
    program = random_program(random, steps=8, wide=seed % 3 == 0)
    answers = to_torch(program).to("meta")(images(program))
    assert answers.device.type == "meta"
    assert answers.shape == (3, program.outputs)


@pytest.mark.parametrize("program", [extreme(4000), student()], ids=["wide", "student"])
@pytest.mark.parametrize("normalising", [False, True])
def test_a_step_of_fine_tuning_stays_on_its_device(program: Program, normalising: bool) -> None:
    shadow = ShadowWeights(program, "meta")
    norms = BatchNorms(shadow, images(program)) if normalising else None
    shadow(images(program)).square().sum().backward()
    Descent(shadow).step(0.1, 0.01, 0.9)
    if norms is not None:
        norms.move(0.1)
    assert {value.device.type for value in shadow.parameters()} == {"meta"}


def test_fine_tuning_uses_no_tf32_and_leaves_the_settings_as_they_were(tmp_path: Path) -> None:
    libraries = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [library.allow_tf32 for library in libraries]
    seen: list[bool] = []

    def report(line: str) -> None:
        seen.extend(library.allow_tf32 for library in libraries)

    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        finetune(student(), DIGITS.train.take(np.arange(32)), TEACHER, MEAN, STD, SPEC, tmp_path, report)
        assert set(seen) == {False}
        with pytest.raises(ZeroDivisionError), whole_float32():
            _ = 1 / 0
        assert [library.allow_tf32 for library in libraries] == [True, True]
    finally:
        for library, allowed in zip(libraries, before, strict=True):
            library.allow_tf32 = allowed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("normalising", [0.0, 0.5])
def test_a_cuda_device_tunes_a_program_that_the_cpu_finds_better(tmp_path: Path, normalising: float) -> None:
    program = student()
    spec = SPEC.model_copy(update={"epochs": 4.0, "normalising": normalising})
    tuned = finetune(program, DIGITS.train, TEACHER, MEAN, STD, spec, tmp_path, lambda line: None)
    pixels, labels = DIGITS.test.pixels, DIGITS.test.labels
    found = [Executor(each).run(pixels).argmax(1) for each in (program, tuned)]
    assert (found[1] == labels).mean() > (found[0] == labels).mean() + 0.2
    assert np.array_equal(Executor(tuned).run(pixels[:20]), interpret(tuned, pixels[:20]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_sums_beyond_float32_are_exact_on_a_cuda_device() -> None:
    program = extreme(4000)
    pixels = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    with whole_float32():
        answers = to_torch(program).to("cuda")(torch.from_numpy(pixels).permute(0, 3, 1, 2).to("cuda"))
    assert np.array_equal(answers.cpu().numpy(), interpret(program, pixels))
