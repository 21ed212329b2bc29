"""Tasks: the images and targets that they make of a data set, and networks of images from training to the report."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from automc.analysis.report import write_report
from automc.analysis.tables import write_tables
from automc.compression.executor import Executor
from automc.compression.program import Program
from automc.environment.loading import build_problem, open_dataset
from automc.errors import ConfigError, DataError, NameNotFound
from automc.network.datasets import Dataset, Images, load_dataset
from automc.network.tasks import distillation, loss, pose
from automc.network.trace import trace
from automc.network.training import train
from automc.reading import make_spec
from automc.schema import (
    AnomalyTask,
    DenoiseTask,
    EnvironmentSpec,
    ExperimentSpec,
    SearcherSpec,
    TrainingSpec,
    UpscaleTask,
)
from automc.search.deliver import deliver
from automc.search.experiment import run_experiment
from automc.search.trials import read_log
from tests.problems import JOINT, macs_table

CONTENT = {"description": "", "network": "small", "data": {"name": "digits", "search": 30, "selection": 30}}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    torch.set_num_threads(1)
    return load_dataset("digits")


def spec(**changes: object) -> EnvironmentSpec:
    data = {**CONTENT["data"], "calibration": 60, **changes.pop("data", {})}
    return make_spec(EnvironmentSpec, {**CONTENT, "data": data, **changes}, "a test")


class Denoiser(nn.Module):
    """Two convolutions that compute what is taken off the image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.last(F.relu(self.first(x)))


def test_noise_is_added_to_the_pixels_and_the_targets_are_clean(digits):
    posed = pose(digits, DenoiseTask(kind="denoise", noise=10))
    assert np.array_equal(posed.test.targets, digits.test.pixels)
    middle = (digits.test.pixels > 50) & (digits.test.pixels < 205)
    noise = (posed.test.pixels.astype(float) - digits.test.pixels)[middle]
    assert noise.std() == pytest.approx(10, rel=0.05)
    assert (posed.mean, posed.std, posed.classes) == ((0.0,), (1.0,), ())
    assert not posed.train.labelled
    assert np.array_equal(pose(digits, DenoiseTask(kind="denoise", noise=10)).train.pixels, posed.train.pixels)


def test_small_images_are_means_of_squares(digits):
    posed = pose(digits, UpscaleTask(kind="upscale", factor=2))
    assert posed.train.pixels.shape == (1297, 4, 4, 1)
    assert posed.train.pixels[5, 1, 2, 0] == np.rint(digits.train.pixels[5, 2:4, 4:6, 0].mean())
    assert np.array_equal(posed.train.targets, digits.train.pixels)
    with pytest.raises(DataError, match="digits has images of 8 x 8 pixels, which 3 does not divide"):
        pose(digits, UpscaleTask(kind="upscale", factor=3))


def test_only_normal_images_are_trained_on(digits):
    posed = pose(digits, AnomalyTask(kind="anomaly", normal="3"))
    assert len(posed.train) == (digits.train.labels == 3).sum()
    assert set(posed.train.labels.tolist()) == {0}
    assert np.array_equal(posed.test.labels == 0, digits.test.labels == 3)
    assert np.array_equal(posed.test.targets, posed.test.pixels)
    with pytest.raises(DataError, match=r"data.task.normal: digits has no class '30'\. Did you mean '3'"):
        pose(digits, AnomalyTask(kind="anomaly", normal="30"))


def test_losses_by_hand():
    images = Images(np.zeros((1, 1, 2, 1), np.uint8), np.array([-1]), np.array([[[[0], [255]]]], np.uint8))
    answers = torch.tensor([[0.5, 0.0]])
    assert loss(answers, images).item() == pytest.approx((0.25 + 1) / 2)
    assert distillation(answers, torch.tensor([[[[0.5, 2.0]]]]).flatten(1), images, 2.0).item() == pytest.approx(2.0)
    classes = Images(images.pixels, np.array([1]))
    assert loss(torch.tensor([[0.0, 0.0]]), classes).item() == pytest.approx(math.log(2))


def test_a_network_of_images_learns(digits, tmp_path):
    posed = pose(digits, DenoiseTask(kind="denoise", noise=25))
    torch.manual_seed(0)
    module, losses = Denoiser(), []

    def judge(judged: nn.Module) -> str:
        with torch.no_grad():
            inputs = torch.from_numpy(posed.test.pixels).permute(0, 3, 1, 2) / 255
            losses.append(loss(judged(inputs), posed.test).item())
        return ""

    recipe = TrainingSpec(epochs=3, batch_size=32, learning_rate=0.5, weight_decay=0, warmup_epochs=0.5, crop=1)
    judge(module)
    train(module, posed.train, posed.mean, posed.std, recipe, tmp_path, lambda line: None, judge)
    noise = (posed.test.pixels / 255.0 - posed.test.targets / 255.0) ** 2
    assert losses[-1] < 0.95 * noise.mean() < losses[0]


@pytest.mark.parametrize(
    ("changes", "error", "fault"),
    [
        ({"metric": "acuracy"}, NameNotFound, r"no metric 'acuracy'\. Did you mean 'accuracy'"),
        ({"metric": "psnr"}, DataError, "metric psnr needs target images .*judged by accuracy, agreement, logit_error"),
        ({"goal": {"tolerance": 1.5}}, ConfigError, r"goal.tolerance: must be less than 1, all that accuracy can lose"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused_before_the_network_is_looked_at(digits, changes, error, fault):
    with pytest.raises(error, match=fault):
        build_problem("small", spec(**changes), nn.Identity(), digits, space=JOINT)


def test_a_metric_that_needs_labels_is_refused_for_images_without(digits):
    unknown = Dataset(
        "pictures", ("0", "1"), digits.mean, digits.std,
        *(Images(part.pixels, np.full(len(part), -1)) for part in (digits.train, digits.test)),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"metric accuracy needs images with the labels .*by agreement, logit_error"):
        build_problem("small", spec(), nn.Identity(), unknown, space=JOINT)


def test_images_without_labels_need_the_number_of_classes(digits, tmp_path):
    for part in ("train", "test"):
        (tmp_path / "mine" / part).mkdir(parents=True)
        for number, pixels in enumerate(digits.train.pixels[:3, ..., 0]):
            Image.fromarray(pixels).save(tmp_path / "mine" / part / f"{number}.png")
    asked = {"name": "mine", "folder": "mine"}
    with pytest.raises(DataError, match=r"images without labels; data\.classes must say how many"):
        open_dataset(spec(data=asked), tmp_path / "env.yaml")
    assert open_dataset(spec(data=asked | {"classes": 3}), tmp_path / "env.yaml").classes == ("0", "1", "2")
    with pytest.raises(DataError, match=r"data\.classes is for images without labels, but digits has labels"):
        open_dataset(spec(data={"classes": 10}), tmp_path / "env.yaml")


def test_an_answer_of_another_shape_is_refused(digits):
    posed = pose(digits, UpscaleTask(kind="upscale", factor=2))
    with pytest.raises(DataError, match=r"small answers 1 x 4 x 4 \(channels, height, width\), but the task on digits"):
        build_problem("small", spec(metric="psnr"), Denoiser().eval(), posed, space=JOINT)


def fitted_denoiser(posed: Dataset) -> nn.Module:
    """Random features of the noisy image, and a fit to the clean one."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 64))
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0, 0.3, generator=generator)
    parts = (posed.train.pixels, posed.train.targets)
    inputs, wanted = (torch.tensor(pixels / 255.0).flatten(1).float() for pixels in parts)
    with torch.no_grad():
        features = module[:-1](inputs.view(-1, 1, 8, 8))
        gram = features.T @ features + torch.eye(512)
        module[-1].weight.copy_(torch.linalg.solve(gram, features.T @ wanted).T)
        module[-1].bias.zero_()
    return module.eval()


def test_denoising_from_the_search_to_the_report(digits, tmp_path):
    posed = pose(digits, DenoiseTask(kind="denoise", noise=40))
    module = fitted_denoiser(posed)
    asked = spec(metric="psnr", goal={"limits": {"size_bytes": "60%"}}, finetuning={"epochs": 0})
    table = macs_table(trace(module, (1, 8, 8), posed.mean, posed.std, "small"))
    problem = build_problem("small", asked, module, posed, space=JOINT, table=table)
    experiment = ExperimentSpec(description="", envs=["small"], searchers=[SearcherSpec(name="random")], trials=6)
    run_experiment(experiment, tmp_path, lambda name: problem)
    result = deliver(problem, tmp_path / "small")
    images = len(problem.dataset.test)
    assert (result.verification.images, result.verification.logits) == (images, images * 64)
    assert result.verification.different_logits == 0
    header, trials = read_log(tmp_path / "small" / "random-0")
    assert header["metric"]["unit"] == "dB"
    best = max(trials, key=lambda trial: trial.reward)
    assert best.reward == best.metrics["psnr"] / 100
    dense, delivered, test = result.row("dense_float32"), result.delivered, problem.splits.test
    answered = Executor(Program.load(tmp_path / "small/winner/program.safetensors")).run(test.pixels)
    levels = np.rint(np.clip(answered, 0, 1) * 255).reshape(test.targets.shape)
    errors = ((levels - test.targets) ** 2).mean((1, 2, 3))
    assert delivered.quality == pytest.approx((10 * np.log10(255**2 / errors)).mean(), rel=1e-6)
    assert 15 < delivered.quality < dense.quality < 30
    assert delivered.lower < delivered.quality < delivered.upper
    page = write_report(tmp_path).read_text()
    lost = dense.quality - delivered.quality
    assert f"its PSNR on the test images is {delivered.quality:.2f} dB, {lost:.2f} dB less than that of the" in page
    assert all(text in page for text in ("test PSNR", "PSNR on the search images (dB)", "PSNR and cost"))
    assert "accuracy" not in page
    assert tmp_path / "tables" / "comparison.csv" in write_tables(tmp_path)
    assert "psnr,psnr_lower,psnr_upper" in (tmp_path / "tables" / "comparison.csv").read_text()


@pytest.mark.parametrize(
    ("task", "fault"),
    [
        ("deniose", r"data.task: no kind 'deniose'\. Did you mean 'denoise'\? \(known: classify, denoise"),
        ({"kind": "denoise"}, "the field 'data.task.noise' is missing"),
        (
            {"kind": "denoise", "noise": 5, "nose": 3},
            r"'data.task.nose'. Did you mean 'noise'\? \(known: kind, noise\)",
        ),
    ],
)
def test_a_task_that_is_not_well_said_is_refused(task, fault):
    with pytest.raises(ConfigError, match=fault):
        spec(data={"task": task})
