"""What a search is rewarded by: the metric's own score of what the compressed network answers to the search images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from automc.compression.interpreter import interpret
from automc.environment import quality
from automc.environment.evaluator import Evaluator
from automc.environment.loading import build_problem
from automc.environment.measures import Estimate, mean_of
from automc.environment.problem import Problem
from automc.environment.quality import Answers, find_metric, register_metric
from automc.network.datasets import Dataset, Images, load_dataset
from automc.network.tasks import pose
from automc.network.trace import trace
from automc.reading import make_spec
from automc.schema import AnomalyTask, DenoiseTask, EnvironmentSpec
from tests.problems import JOINT, macs_table, small_module


def repeating_module() -> nn.Module:
    """A network that answers images: it repeats the one that it sees, in blurred lines."""
    first, last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)
    generator = torch.Generator().manual_seed(0)
    for layer in (first, last):
        nn.init.uniform_(layer.weight, 0, 2 / layer.weight[0].numel(), generator=generator)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.ReLU(), last)


def enlarged(images: Images) -> Images:
    """Digits of 16 x 16 pixels, which windows of 11 x 11 fit into."""
    return replace(images, pixels=images.pixels.repeat(2, 1).repeat(2, 2))


def problem_of(metric: str, task: DenoiseTask | AnomalyTask | None, reward: str) -> Problem:
    torch.set_num_threads(1)
    dataset: Dataset = load_dataset("digits")
    if task is not None:
        dataset = pose(replace(dataset, train=enlarged(dataset.train), test=enlarged(dataset.test)), task)
    module = small_module() if task is None else repeating_module()
    data = {"name": "digits", "search": 60, "selection": 40, "calibration": 64, "carve_from": "test"}
    content = {"description": "", "network": "small", "data": data, "metric": metric, "goal": {"reward": reward}}
    spec = make_spec(EnvironmentSpec, content, "a test")
    shape = (1, *dataset.test.pixels.shape[1:3])
    table = macs_table(trace(module, shape, dataset.mean, dataset.std, "small"))
    return build_problem("small", spec, module, dataset, space=JOINT, table=table)


@pytest.fixture(autouse=True)
def users_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "_REGISTRY", dict(quality._REGISTRY))

    @register_metric("sharpness", unit="levels", score=lambda value: 1 + value / 10)
    def sharpness(answers: Answers) -> Estimate:
        """A user's own: how far the largest output stands from the smallest, beside the dense network's."""
        spans: list[Any] = [np.ptp(outputs.astype(np.float64), 1) for outputs in (answers.outputs, answers.dense)]
        return mean_of(-np.abs(spans[0] - spans[1]))


DENOISE, ANOMALY = DenoiseTask(kind="denoise", noise=10), AnomalyTask(kind="anomaly", normal="3")


@pytest.mark.parametrize(
    ("metric", "task"),
    [
        ("accuracy", None),
        ("agreement", None),
        ("logit_error", None),
        ("sharpness", None),
        ("psnr", DENOISE),
        ("ssim", DENOISE),
        ("auc", ANOMALY),
    ],
)
def test_the_reward_is_the_score_of_what_the_interpreter_answers(
    metric: str, task: DenoiseTask | AnomalyTask | None
) -> None:
    known = find_metric(metric)
    for reward in ("amc", "mnasnet"):
        problem = problem_of(metric, task, reward)
        policy = problem.space.policy(problem.space.smallest())
        outcome = Evaluator(problem).outcome(policy)
        images, program = problem.splits.search, problem.prepare().sequential(policy)
        dense = Evaluator(problem).dense_answers(images).outputs
        value = known.measure(Answers(images, interpret(program, images.pixels), dense)).value
        assert outcome.metrics[known.reading.column] == value
        assert known.measure(Answers(images, dense, dense)).value != value, "nothing was lost, and so nothing is tested"
        factor = problem.limits.ratio(problem.cost(policy)) ** -0.07 if reward == "mnasnet" else 1.0
        assert outcome.reward == known.score(value) * factor
