"""Tasks: the images and targets that they make of a data set, and what networks of images learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automc.environment.loading import build_problem
from automc.errors import ConfigError, DataError, NameNotFound
from automc.network.datasets import Dataset, Images, load_dataset
from automc.network.tasks import distillation, loss, pose
from automc.network.training import train
from automc.schema import (
    AnomalyTask,
    DenoiseTask,
    EnvironmentSpec,
    TrainingSpec,
    UpscaleTask,
    make_spec,
)
from tests.problems import JOINT

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


def test_an_answer_of_another_shape_is_refused(digits):
    posed = pose(digits, UpscaleTask(kind="upscale", factor=2))
    with pytest.raises(DataError, match=r"small answers 1 x 4 x 4 \(channels, height, width\), but the task on digits"):
        build_problem("small", spec(metric="psnr"), Denoiser().eval(), posed, space=JOINT)


@pytest.mark.parametrize(
    ("task", "fault"),
    [
        ("deniose", "Input tag 'deniose' found using 'kind' does not match any of the expected tags: 'classify'"),
        ({"kind": "denoise"}, "data.task.denoise.noise' is missing"),
        ({"kind": "denoise", "noise": 5, "nose": 3}, r"'data.task.denoise.nose'. Did you mean 'noise'\? .*kind, noise"),
    ],
)
def test_a_task_that_is_not_well_said_is_refused(task, fault):
    with pytest.raises(ConfigError, match=fault):
        spec(data={"task": task})
