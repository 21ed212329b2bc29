"""Measures on arrays: shares and means with their intervals, PSNR and SSIM of images, the area under a ROC curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

SSIM_WINDOW = 11
PERFECT_PSNR_DB = 100.0  # of images without any error, whose PSNR is infinite
_DEVIATIONS = NormalDist().inv_cdf(0.975)  # that a two-sided interval of 95 % reaches
_LEVELS = 255
_IMAGES_AT_ONCE = 500


@dataclass(frozen=True)
class Estimate:
    """A number found on a sample of images, between the bounds of its 95 % confidence interval by the named `method`.

    A number whose uncertainty is not known has no bounds.
    """

    value: float
    lower: float | None = None
    upper: float | None = None
    method: str = ""


def share(hits: NDArray[np.bool_]) -> Estimate:
    """The share of hits, `n`, with its score interval, which stays sensible near 0 and 1 (Wilson 1927)."""
    total, z = len(hits), _DEVIATIONS
    value = float(hits.mean())
    centre = (value + z * z / (2 * total)) / (1 + z * z / total)
    reach = z / (1 + z * z / total) * np.sqrt(value * (1 - value) / total + z * z / (4 * total * total))
    lower, upper = max(0.0, min(value, float(centre - reach))), min(1.0, max(value, float(centre + reach)))
    return Estimate(value, lower, upper, "Wilson score")


def mean_of(values: Floats) -> Estimate:
    """The mean of one value an image, `n`, with the normal interval of its standard error."""
    value = float(values.mean())
    if len(values) < 2:
        return Estimate(value)
    reach = _DEVIATIONS * float(values.std(ddof=1)) / len(values) ** 0.5
    return Estimate(value, value - reach, value + reach, "normal")


def area_under_roc(scores: Floats, positive: NDArray[np.bool_]) -> Estimate:
    """How likely a positive example has a higher score than a negative one, a tie counting half.

    scores, positive: `n`, with both kinds among them. The interval is that of DeLong et al. 1988, computed from ranks
    (Sun and Xu 2014, section III).
    """
    count, others = int(positive.sum()), int((~positive).sum())
    ranks = _ranks(scores)
    above = (ranks[positive] - _ranks(scores[positive])) / others  # share of the negatives below each positive
    below = 1 - (ranks[~positive] - _ranks(scores[~positive])) / count
    value = float(above.mean())
    if min(count, others) < 2:
        return Estimate(value)
    reach = _DEVIATIONS * float(above.var(ddof=1) / count + below.var(ddof=1) / others) ** 0.5
    return Estimate(value, max(0.0, value - reach), min(1.0, value + reach), "DeLong")


def psnr(images: Pixels, targets: Pixels) -> Floats:
    """The peak signal-to-noise ratio of each image in dB, `n`, at most `PERFECT_PSNR_DB`; both `n x h x w x c`."""
    return _by_image(_psnr, images, targets)


def _psnr(images: Pixels, targets: Pixels) -> Floats:
    errors = np.square(images.astype(np.float64) - targets).mean((1, 2, 3))
    least = _LEVELS**2 / 10 ** (PERFECT_PSNR_DB / 10)
    ratios: Floats = 10 * np.log10(_LEVELS**2 / np.maximum(errors, least))
    return ratios


def ssim(images: Pixels, targets: Pixels) -> Floats:
    """The structural similarity of each image, `n`, mean over channels; both `n x h x w x c` of 11 x 11 pixels or more.

    Wang et al. 2004, section III: Gaussian windows of 11 x 11 pixels with a deviation of 1.5, K1 = 0.01, K2 = 0.03,
    and only windows that lie within the image.
    """
    return _by_image(_ssim, images, targets)


def _ssim(images: Pixels, targets: Pixels) -> Floats:
    first, second = (pixels.transpose(0, 3, 1, 2).astype(np.float64) for pixels in (images, targets))
    rows, columns = (_gaussian_windows(size) for size in first.shape[2:])

    def blurred(values: Floats) -> Floats:
        windows: Floats = rows @ values @ columns.T
        return windows

    means = blurred(first), blurred(second)
    variances = blurred(first**2) - means[0] ** 2 + blurred(second**2) - means[1] ** 2
    covariance = blurred(first * second) - means[0] * means[1]
    luminance, contrast = (0.01 * _LEVELS) ** 2, (0.03 * _LEVELS) ** 2
    above = (2 * means[0] * means[1] + luminance) * (2 * covariance + contrast)
    below = (means[0] ** 2 + means[1] ** 2 + luminance) * (variances + contrast)
    similarity: Floats = (above / below).mean((1, 2, 3))
    return similarity


def _gaussian_windows(size: int) -> Floats:
    """`(size - 10) x size`: each row the weights of one window along an axis."""
    weights = np.exp(-0.5 * np.square((np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) / 1.5))
    windows = np.zeros((size - SSIM_WINDOW + 1, size))
    for position in range(len(windows)):
        windows[position, position : position + SSIM_WINDOW] = weights / weights.sum()
    return windows


def _by_image(measure: Callable[[Pixels, Pixels], Floats], images: Pixels, targets: Pixels) -> Floats:
    """`measure` of a few hundred images at once, because float64 copies of all would fill the memory."""
    starts = range(0, len(images), _IMAGES_AT_ONCE)
    parts = (slice(start, start + _IMAGES_AT_ONCE) for start in starts)
    return np.concatenate([measure(images[part], targets[part]) for part in parts])


def _ranks(values: Floats) -> Floats:
    """The rank of each value from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks
