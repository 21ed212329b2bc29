"""What the figures show, computed as plain data: each is built by one function here and drawn by one in `plots`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.analysis.runs import Task
from automc.analysis.stats import anytime_best, interquartile_band
from automc.environment.measures import Floats
from automc.environment.metrics import loss_column
from automc.environment.quality import Reading
from automc.search.pareto import pareto_front
from automc.search.result import RowKind


@dataclass(frozen=True, eq=False)
class Cloud:
    """The complete trials of one searcher, all seeds together: cost and quality, `n` each, and which are its front."""

    searcher: str
    cost: Floats
    quality: Floats
    front: NDArray[np.int64]


@dataclass(frozen=True)
class Mark:
    """A single network that the trials are compared with."""

    kind: RowKind
    label: str
    cost: float
    quality: float


@dataclass(frozen=True, eq=False)
class ParetoFigure:
    """Trials on the search split over one cost, the front of each searcher, and the networks to compare them with.

    The axis of quality, read by `reading`, begins at `floor`, so that hopeless trials do not flatten the rest; `hidden`
    of them lie below.
    """

    metric: str  # of the cost
    reading: Reading
    clouds: tuple[Cloud, ...]
    marks: tuple[Mark, ...]
    limit: float | None
    dense_quality: float | None
    floor: float
    hidden: int


@dataclass(frozen=True, eq=False)
class Curve:
    """One searcher's best reward so far, `trials`: the interquartile mean over its seeds within its 95 % interval."""

    searcher: str
    seeds: int
    mean: Floats
    lower: Floats
    upper: Floats


@dataclass(frozen=True, eq=False)
class LearningFigure:
    """Best reward by trial, one curve a searcher; of a single study also the `rewards` of its trials, NaN if failed.

    The reward axis begins at `floor`, below which `hidden` of the single study's trials lie.
    """

    curves: tuple[Curve, ...]
    rewards: Floats | None
    failed: int
    floor: float
    hidden: int


def pareto_figure(task: Task) -> ParetoFigure | None:
    """The trials of `task` as quality over cost, or None while no trial has succeeded."""
    metric = task.cost_metric
    clouds = []
    for searcher, studies in task.by_searcher.items():
        cost = np.concatenate([study.column(metric) for study in studies])
        quality = np.concatenate([study.column(task.reading.column) for study in studies])
        known = np.isfinite(cost) & np.isfinite(quality)
        if known.any():
            cost, quality = cost[known], quality[known]
            clouds.append(Cloud(searcher, cost, quality, pareto_front(cost, quality)))
    if not clouds:
        return None
    quality = np.concatenate([cloud.quality for cloud in clouds])
    marks = _marks(task, metric)
    dense = _dense_quality(task)
    floor = _floor(quality, [mark.quality for mark in marks])
    hidden = int((quality < floor).sum())
    return ParetoFigure(metric, task.reading, tuple(clouds), marks, task.limits.get(metric), dense, floor, hidden)


def _marks(task: Task, metric: str) -> tuple[Mark, ...]:
    """The rows of the result that have both numbers; the test quality would not be comparable with the trials'."""
    rows = task.result.rows if task.result is not None else ()
    return tuple(
        Mark(row.kind, row.label, cost, row.search_quality)
        for row in rows
        if (cost := getattr(row, metric)) is not None and row.search_quality is not None and row.kind != "dense_float32"
    )


def _dense_quality(task: Task) -> float | None:
    """The dense network's quality on the search split, which every trial knows as its own plus what it lost."""
    for studies in task.by_searcher.values():
        for study in studies:
            column = task.reading.column
            dense = study.column(column) + study.column(loss_column(column))
            if np.isfinite(dense).any():
                return float(np.nanmax(dense))
    return None


def _floor(values: Floats, marks: list[float]) -> float:
    """Where an axis begins: low enough for three quarters of the values and for every mark."""
    lowest, highest = min([float(np.quantile(values, 0.25)), *marks]), float(values.max())
    return lowest - 0.08 * max(highest - lowest, 0.01)


def learning_figure(task: Task) -> LearningFigure | None:
    """How the best reward of each searcher grew, or None while no trial has succeeded."""
    curves = []
    for searcher, studies in task.by_searcher.items():
        length = max(len(study.trials) for study in studies)
        # A study that ended early keeps what it found.
        best = np.stack([_extended(anytime_best(study.column("reward")), length) for study in studies])
        best[:, ~np.isfinite(best).all(axis=0)] = np.nan  # where some seed has no success yet
        curves.append(Curve(searcher, len(studies), *interquartile_band(best, np.random.default_rng(0))))
    if not curves:
        return None
    failed = sum(study.failed for study in task.studies)
    if len(task.studies) == 1:
        rewards = task.studies[0].column("reward")
        floor = _floor(rewards[np.isfinite(rewards)], [])
        return LearningFigure(tuple(curves), rewards, failed, floor, int((rewards < floor).sum()))
    # The first tenth of a search is mostly luck, and would flatten what comes after.
    settled = np.concatenate([curve.lower[len(curve.lower) // 10 :] for curve in curves])
    floor = _floor(settled[np.isfinite(settled)], [float(np.nanmin(settled))])
    return LearningFigure(tuple(curves), None, failed, floor, 0)


def _extended(values: Floats, length: int) -> Floats:
    return np.pad(values, (0, length - len(values)), mode="edge")
