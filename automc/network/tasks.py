"""Tasks: what a network is asked about the images of a data set, and how far its answers are from the right ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from automc.errors import DataError
from automc.files import suggest
from automc.network.datasets import Dataset, Images
from automc.schema import AnomalyTask, ClassifyTask, DenoiseTask, TaskSpec, UpscaleTask

_BATCH = 1000  # images at once, so that their noise does not fill the memory
_UNKNOWN = -1


def pose(dataset: Dataset, task: TaskSpec) -> Dataset:
    """`dataset` as the images and targets of `task`.

    A network that answers with images sees `pixel / 255` and answers in the same unit, so that no normalisation stands
    between them. Equal data sets give equal images. Raises `DataError` where the task does not fit the images.
    """
    posed: Dataset = _POSERS[type(task)](dataset, task)
    return posed


def _classify(dataset: Dataset, task: ClassifyTask) -> Dataset:
    return dataset


def _denoise(dataset: Dataset, task: DenoiseTask) -> Dataset:
    def noisy(clean: Images, seed: int) -> Images:
        random, pixels = np.random.default_rng(seed), np.empty_like(clean.pixels)
        for start in range(0, len(clean), _BATCH):
            batch = clean.pixels[start : start + _BATCH]
            noise = random.standard_normal(batch.shape, np.float32) * np.float32(task.noise)
            pixels[start : start + _BATCH] = np.rint(np.clip(batch + noise, 0, 255))
        return Images(pixels, _unknown(clean), clean.pixels)

    return _of_images(dataset, noisy(dataset.train, 0), noisy(dataset.test, 1))


def _upscale(dataset: Dataset, task: UpscaleTask) -> Dataset:
    factor = task.factor
    _, height, width, channels = dataset.train.pixels.shape
    if height % factor or width % factor:
        raise DataError(f"{dataset.name} has images of {height} x {width} pixels, which {factor} does not divide")

    def small(large: Images) -> Images:
        squares = large.pixels.reshape(-1, height // factor, factor, width // factor, factor, channels)
        sums = squares.sum((2, 4), dtype=np.uint16)
        return Images(np.rint(sums / factor**2).astype(np.uint8), _unknown(large), large.pixels)

    return _of_images(dataset, small(dataset.train), small(dataset.test))


def _anomaly(dataset: Dataset, task: AnomalyTask) -> Dataset:
    """Labels are 0 for a normal image and 1 for an anomaly; only normal ones remain to be trained on."""
    if task.normal not in dataset.classes:
        raise DataError(
            f"data.task.normal: {dataset.name} has no class '{task.normal}'{suggest(task.normal, dataset.classes)}"
        )
    normal = dataset.classes.index(task.normal)

    def repeated(images: Images) -> Images:
        return Images(images.pixels, (images.labels != normal).astype(np.int64), images.pixels)

    normals = dataset.train.take(np.flatnonzero(dataset.train.labels == normal))
    return _of_images(dataset, repeated(normals), repeated(dataset.test))


_POSERS: Mapping[type, Callable[[Dataset, Any], Dataset]] = {
    ClassifyTask: _classify,
    DenoiseTask: _denoise,
    UpscaleTask: _upscale,
    AnomalyTask: _anomaly,
}


def _of_images(dataset: Dataset, train: Images, test: Images) -> Dataset:
    channels = train.pixels.shape[3]
    mean, std = (0.0,) * channels, (1.0,) * channels
    return dataclasses.replace(dataset, classes=(), mean=mean, std=std, train=train, test=test)


def _unknown(images: Images) -> NDArray[np.int64]:
    return np.full(len(images), _UNKNOWN, np.int64)


def loss(answers: Tensor, images: Images) -> Tensor:
    """How far `answers` are from what is right: cross-entropy of logits, or the mean squared error of images.

    answers: `n x classes`, or images of the targets' shape, `n x channels x height x width`, also flat.
    """
    if images.targets is None:
        return F.cross_entropy(answers, torch.from_numpy(images.labels))
    wanted = torch.from_numpy(images.targets).permute(0, 3, 1, 2).float().div_(255)
    return F.mse_loss(answers.reshape(wanted.shape), wanted)


def distillation(answers: Tensor, taught: Tensor, images: Images, temperature: float) -> Tensor:
    """How far `answers` are from a teacher's: mean squared error where they are images, else that of soft classes.

    The latter is Hinton et al. 2015, section 2; the square of the temperature keeps its gradients in proportion to
    those of cross-entropy.
    """
    if images.targets is not None:
        return F.mse_loss(answers, taught.reshape(answers.shape))
    softened, wanted = (F.log_softmax(each / temperature, 1) for each in (answers, taught))
    return F.kl_div(softened, wanted, reduction="batchmean", log_target=True) * temperature**2
