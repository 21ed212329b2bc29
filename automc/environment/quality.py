"""Metrics: how well a network answers, as one number of a set of images; the table of all, and a user's way into it.

Of every metric more is better: errors have a minus sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from automc.environment.measures import SSIM_WINDOW, Estimate, area_under_roc, mean_of, psnr, share, ssim
from automc.errors import DataError, InputError
from automc.files import not_registered
from automc.network.datasets import Images

Need = Literal["labels", "logits", "targets", "windows", "anomalies"]


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network answers to images, `n x outputs` float32, and what the dense network answers to the same.

    Answers that are images stand in the order height, width, channels; 0 is black and 1 is white.
    """

    images: Images
    outputs: NDArray[np.float32]
    dense: NDArray[np.float32]

    def take(self, index: NDArray[np.int64]) -> Answers:
        """The answers to the images at `index`, in its order."""
        return Answers(self.images.take(index), self.outputs[index], self.dense[index])

    @property
    def classes(self) -> NDArray[np.int64]:
        """The class that the network names, `n`; the first of equals."""
        named: NDArray[np.int64] = self.outputs.argmax(1)
        return named

    @property
    def targets(self) -> NDArray[np.uint8]:
        """The images that it should answer, `n x height x width x channels`."""
        assert self.images.targets is not None  # what a metric needs is checked before any time is spent
        return self.images.targets

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The images that it answers, in 256 levels, of the targets' shape."""
        levels: NDArray[np.uint8] = np.rint(np.clip(self.outputs, 0, 1) * np.float32(255)).astype(np.uint8)
        return levels.reshape(self.targets.shape)


class Reading(BaseModel):
    """How a metric is read: `column` is its name in logs and tables, `title` and `unit` are for people.

    They see the value times `factor`, with so many `decimals`. It lies between `lowest` and `highest`, None where
    there is no bound.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    title: str
    unit: str = ""
    factor: float = 1.0
    decimals: int = 4
    lowest: float | None = None
    highest: float | None = None

    def show(self, value: float) -> str:
        """The value with its unit, as in "91.73 %"."""
        return f"{self.number(value)} {self.unit}".rstrip()

    def number(self, value: float) -> str:
        """The value without its unit."""
        return f"{self.factor * value:.{self.decimals}f}"

    def points(self, difference: float) -> str:
        """A difference of two values without its sign; those of percentages are points."""
        return f"{self.number(abs(difference))} {'points' if self.unit == '%' else self.unit}".rstrip()

    def axis(self, where: str) -> str:
        """For an axis of values that were found on `where`."""
        return f"{self.title} on {where}" + (f" ({self.unit})" if self.unit else "")


Measure = Callable[[Answers], Estimate]


@dataclass(frozen=True)
class Metric:
    """A measure with what it needs of the images, how it is read, and what it counts in a reward.

    `score` gives the value as a number about 1, for goals that weigh it against costs: it grows with the value.
    """

    name: str
    measure: Measure
    reading: Reading
    needs: tuple[Need, ...]
    score: Callable[[float], float]

    def missing(self, images: Images) -> str:
        """What the metric needs and `images` do not have; empty where it can judge them."""
        lacks = (text for need in self.needs for has, text in (_NEEDS[need],) if not has(images))
        return next(lacks, "")

    def require(self, images: Images) -> None:
        """Raise `DataError` where the metric cannot judge such images, naming those that can."""
        if missing := self.missing(images):
            fitting = [metric.name for metric in _REGISTRY.values() if not metric.missing(images)]
            raise DataError(f"metric {self.name} needs {missing}; these images can be judged by {', '.join(fitting)}")


_NEEDS: Mapping[Need, tuple[Callable[[Images], bool], str]] = {
    "labels": (lambda images: images.targets is None and images.labelled, "images with the labels of their classes"),
    "logits": (lambda images: images.targets is None, "a network that names classes"),
    "targets": (lambda images: images.targets is not None, "target images (data.task: denoise, upscale or anomaly)"),
    "windows": (
        lambda images: images.targets is not None and min(images.targets.shape[1:3]) >= SSIM_WINDOW,
        f"target images of {SSIM_WINDOW} x {SSIM_WINDOW} pixels or more",
    ),
    "anomalies": (
        lambda images: images.targets is not None and set(images.labels.tolist()) == {0, 1},
        "normal images and anomalies (data.task: anomaly; all its training images are normal: data.carve_from: test)",
    ),
}

_REGISTRY: dict[str, Metric] = {}


def register_metric(
    name: str,
    *,
    needs: Sequence[Need] = (),
    title: str = "",
    unit: str = "",
    factor: float = 1.0,
    decimals: int = 4,
    lowest: float | None = None,
    highest: float | None = None,
    column: str = "",
    score: Callable[[float], float] = lambda value: value,
) -> Callable[[Measure], Measure]:
    """Make the decorated measure known as a metric called `name`: more must be better. For all else see `Reading`.

    A user's own comes in by a `--plugin` module. `measures.mean_of` makes an estimate of one value an image. Raises
    `InputError` for a decorator without a name.
    """
    if not isinstance(name, str):  # the measure itself, where the decorator was written without its brackets
        raise InputError('a metric is registered under a name, as in @register_metric("name")')
    reading = Reading(
        column=column or name, title=title or name, unit=unit, factor=factor, decimals=decimals, lowest=lowest,
        highest=highest,
    )  # fmt: skip

    def register(measure: Measure) -> Measure:
        _REGISTRY[name] = Metric(name, measure, reading, tuple(needs), score)
        return measure

    return register


def metric_names() -> list[str]:
    """The names that `find_metric` knows."""
    return sorted(_REGISTRY)


def find_metric(name: str) -> Metric:
    """The metric called `name`. Raises `NameNotFound` with the nearest name."""
    if name not in _REGISTRY:
        raise not_registered("metric", name, metric_names())
    return _REGISTRY[name]


@register_metric("accuracy", needs=("labels",), unit="%", factor=100, decimals=2, lowest=0, highest=1)
def accuracy(answers: Answers) -> Estimate:
    """The share of images whose class is named rightly."""
    return share(answers.classes == answers.images.labels)


@register_metric("agreement", needs=("logits",), unit="%", factor=100, decimals=2, lowest=0, highest=1)
def agreement(answers: Answers) -> Estimate:
    """The share of images for which the dense network's class is named; needs no labels."""
    return share(answers.classes == answers.dense.argmax(1))


@register_metric(
    "logit_error",
    title="negative logit error",
    column="negative_logit_error",
    highest=0,
    score=lambda value: 1 / (1 - value),
)
def logit_error(answers: Answers) -> Estimate:
    """Minus the mean squared difference from the dense network's outputs; needs no labels."""
    return mean_of(-np.square(answers.outputs.astype(np.float64) - answers.dense).mean(1))


@register_metric(
    "psnr",
    needs=("targets",),
    title="PSNR",
    unit="dB",
    decimals=2,
    lowest=0,
    highest=100,
    score=lambda value: value / 100,
)
def mean_psnr(answers: Answers) -> Estimate:
    """The peak signal-to-noise ratio of the answered images, mean over images."""
    return mean_of(psnr(answers.pixels, answers.targets))


@register_metric("ssim", needs=("windows",), title="SSIM", lowest=-1, highest=1)
def mean_ssim(answers: Answers) -> Estimate:
    """The structural similarity of the answered images to their targets (Wang et al. 2004), mean over images."""
    return mean_of(ssim(answers.pixels, answers.targets))


@register_metric("auc", needs=("anomalies",), title="AUC", lowest=0, highest=1)
def auc(answers: Answers) -> Estimate:
    """How often an anomaly is repeated with more mean squared error than a normal image: area under the ROC curve."""
    wanted = answers.targets.reshape(answers.outputs.shape) / 255
    return area_under_roc(np.square(answers.outputs - wanted).mean(1), answers.images.labels == 1)
