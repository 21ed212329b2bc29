"""Metrics give the values of their definitions, refuse images that they cannot judge, and may be a user's own."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from automc.environment import quality
from automc.environment.measures import Estimate, area_under_roc, mean_of, psnr, share, ssim
from automc.environment.quality import Answers, find_metric, register_metric
from automc.errors import DataError, InputError, NameNotFound
from automc.network.datasets import Images

RANDOM = np.random.default_rng(0)


def flat(level, size=16):
    return np.full((1, size, size, 1), level, np.uint8)


def labelled(labels, targets=None):
    labels = np.array(labels)
    return Images(np.zeros((len(labels), 16, 16, 1), np.uint8), labels, targets)


def answers(images, outputs, dense=None):
    outputs = np.asarray(outputs, np.float32)
    return Answers(images, outputs, outputs if dense is None else np.asarray(dense, np.float32))


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (10, 10), (1, 1), (450, 500), (9173, 10000)])
def test_a_share_has_scipys_wilson_interval(hits, total):
    found = share(np.arange(total) < hits)
    expected = binomtest(hits, total).proportion_ci(method="wilson")
    assert found.value == hits / total
    assert (found.lower, found.upper) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found.lower <= found.value <= found.upper <= 1


def test_a_mean_has_the_interval_of_its_standard_error():
    found = mean_of(np.array([1.0, 2.0, 3.0, 6.0]))
    assert found.value == 3.0
    assert found.upper - 3.0 == pytest.approx(1.959964 * math.sqrt(14 / 3 / 4), rel=1e-6)
    assert mean_of(np.array([2.0])) == Estimate(2.0)


def test_psnr_by_hand():
    assert psnr(flat(100), flat(110)) == pytest.approx([10 * math.log10(255**2 / 100)])
    one_wrong = flat(0)
    one_wrong[0, 3, 4] = 255
    assert psnr(one_wrong, flat(0)) == pytest.approx([10 * math.log10(256)])
    assert psnr(flat(7), flat(7)) == pytest.approx([100.0])
    assert psnr(flat(0), flat(255)) == pytest.approx([0.0])


def test_ssim_by_hand():
    luminance = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + luminance) / (100**2 + 150**2 + luminance)  # flat images have no variance
    assert ssim(flat(100), flat(150)) == pytest.approx([expected])
    noise = RANDOM.integers(0, 256, (3, 12, 15, 3), np.uint8)
    assert ssim(noise, noise) == pytest.approx([1.0] * 3)


def test_ssim_is_its_definition_window_by_window():
    first, second = RANDOM.integers(0, 256, (2, 1, 12, 13, 2), np.uint8)
    axis = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    weights = np.outer(axis, axis) / axis.sum() ** 2
    values = []
    for row in range(2):
        for column in range(3):
            for channel in range(2):
                part = (0, slice(row, row + 11), slice(column, column + 11), channel)
                x, y = first[part].astype(float), second[part].astype(float)
                mx, my = (weights * x).sum(), (weights * y).sum()
                vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
                both = (weights * (x - mx) * (y - my)).sum()
                c1, c2 = 2.55**2, 7.65**2
                values.append((2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert ssim(first, second) == pytest.approx([np.mean(values)], rel=1e-9)


@pytest.mark.parametrize("levels", [3, 20, 10**9])  # many ties, some, none
def test_the_area_under_the_curve_is_sklearns(levels):
    scores, positive = RANDOM.integers(0, levels, 300).astype(float), RANDOM.random(300) < 0.3
    assert area_under_roc(scores, positive).value == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def test_delongs_interval_holds_the_truth_as_often_as_it_says():
    # Scores of N(1, 1) against N(0, 1): the area is the normal distribution at 1 / sqrt(2).
    truth, random, held = 0.5 * (1 + math.erf(0.5)), np.random.default_rng(3), 0
    positive = np.arange(90) < 40
    for _ in range(400):
        found = area_under_roc(random.normal(positive.astype(float), 1.0), positive)
        held += found.lower <= truth <= found.upper
    assert 0.92 <= held / 400 <= 0.98


def test_metrics_of_classes():
    images = labelled([0, 1, 1, 0])
    outputs, dense = [[2, 1], [2, 1], [1, 2], [1, 1]], [[2, 1], [1, 2], [1, 2], [1, 3]]
    given = answers(images, outputs, dense)
    assert find_metric("accuracy").measure(given).value == 0.75  # the first of equals is named
    assert find_metric("agreement").measure(given).value == 0.5
    assert find_metric("logit_error").measure(given).value == -np.mean([0, 1, 0, 2])


def test_metrics_of_images():
    target = flat(100)
    images = labelled([0], target)
    given = answers(images, np.full((1, 256), 110.2 / 255))
    assert find_metric("psnr").measure(given).value == pytest.approx(10 * math.log10(255**2 / 100))
    assert find_metric("ssim").measure(given).value == pytest.approx(ssim(flat(110), target)[0])
    beyond = answers(labelled([0], flat(255)), np.full((1, 256), 3.0))
    assert find_metric("psnr").measure(beyond).value == pytest.approx(100)


def test_auc_takes_the_reconstruction_error_as_score():
    targets = np.concatenate([flat(0), flat(50), flat(100), flat(200)])
    given = answers(labelled([0, 1, 0, 1], targets), np.zeros((4, 256)))
    assert find_metric("auc").measure(given).value == 0.75


@pytest.mark.parametrize(
    ("name", "images", "fault"),
    [
        (
            "accuracy",
            labelled([-1, -1]),
            "needs images with the labels of their classes; .* by agreement, logit_error$",
        ),
        ("accuracy", labelled([0], flat(1)), "needs images with the labels"),
        ("agreement", labelled([0], flat(1)), "needs a network that names classes; .* by logit_error, psnr, ssim$"),
        ("psnr", labelled([0, 1]), "needs target images"),
        ("ssim", labelled([0], flat(1, 8)), "needs target images of 11 x 11 pixels or more"),
        ("auc", labelled([0, 0], np.zeros((2, 16, 16, 1), np.uint8)), "needs normal images and anomalies .*carve_from"),
    ],
)
def test_images_that_a_metric_cannot_judge_are_refused_with_those_that_can(name, images, fault):
    with pytest.raises(DataError, match=f"metric {name} {fault}"):
        find_metric(name).require(images)


def test_an_unknown_metric_is_refused_with_the_nearest():
    with pytest.raises(NameNotFound, match=r"no metric 'pnsr'\. Did you mean 'psnr'\? \(known: accuracy, agreement"):
        find_metric("pnsr")


def test_a_users_own_metric(monkeypatch):
    monkeypatch.setattr(quality, "_REGISTRY", dict(quality._REGISTRY))

    @register_metric("brightness", needs=("targets",), unit="levels", decimals=1)
    def brightness(answers):
        return mean_of(-np.abs(answers.pixels.astype(float) - answers.targets).mean((1, 2, 3)))

    metric = find_metric("brightness")
    found = metric.measure(answers(labelled([0], flat(100)), np.full((1, 256), 110 / 255)))
    assert metric.reading.show(found.value) == "-10.0 levels"
    assert metric.score(found.value) == -10.0
    with pytest.raises(DataError, match="metric brightness needs target images"):
        metric.require(labelled([0, 1]))


def test_a_metric_needs_a_name():
    with pytest.raises(InputError, match=r'under a name, as in @register_metric\("name"\)'):

        @register_metric
        def brightness(answers):
            return mean_of(answers.pixels.mean((1, 2, 3)))


def test_scores_are_numbers_about_one():
    assert find_metric("accuracy").score(0.9) == 0.9
    assert find_metric("psnr").score(30.0) == 0.3
    assert [find_metric("logit_error").score(value) for value in (0.0, -1.0, -3.0)] == [1.0, 0.5, 0.25]


def test_readings_speak_the_metrics_unit():
    accuracy, decibels, area = (find_metric(name).reading for name in ("accuracy", "psnr", "auc"))
    assert (accuracy.show(0.91734), accuracy.points(-0.0041)) == ("91.73 %", "0.41 points")
    assert (decibels.show(30.126), decibels.points(-0.31)) == ("30.13 dB", "0.31 dB")
    assert (area.show(0.94321), area.points(0.01)) == ("0.9432", "0.0100")
    assert [reading.axis("the images") for reading in (decibels, area)] == [
        "PSNR on the images (dB)",
        "AUC on the images",
    ]
