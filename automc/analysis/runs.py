"""Reading a run's folder: its studies with their trials, and what it delivered, by environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from automc.analysis.units import QUANTITIES
from automc.environment.measures import Floats
from automc.environment.quality import Reading, find_metric
from automc.errors import NameNotFound
from automc.search.kept import FRONT_NAME, read_index
from automc.search.result import RESULT_PATH, Result, read_result
from automc.search.scale import Scale, read_scale
from automc.search.trials import LOG_NAME, begun_logs, read_trials

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Study:
    """One searcher with one seed, and its trials so far, as `read_trials` gives them."""

    searcher: str
    seed: int
    trials: pandas.DataFrame

    def column(self, name: str) -> Floats:
        """A metric of every trial, `n`, NaN where the trial failed or the metric does not exist."""
        if name not in self.trials:
            return np.full(len(self.trials), np.nan)
        values = self.trials[name].to_numpy(np.float64, na_value=np.nan, copy=True)
        values[self.trials["state"].to_numpy() != "complete"] = np.nan
        return values

    @property
    def failed(self) -> int:
        """How many trials failed."""
        return int((self.trials["state"] != "complete").sum()) if len(self.trials) else 0


@dataclass(frozen=True, eq=False)
class Task:
    """One environment of a run: every study on it, and the winner if one was delivered, from `winner_folder`.

    `front` is what the index says of the networks of the front that were delivered, too, the cheapest first; `scale`
    what costs are compared with.
    """

    environment: str
    studies: tuple[Study, ...]
    result: Result | None
    winner_folder: Path
    front: tuple[Mapping[str, str], ...] = ()
    scale: Scale = field(default_factory=Scale)

    @cached_property
    def by_searcher(self) -> Mapping[str, tuple[Study, ...]]:
        """The studies of each searcher, by seed; only those that have a complete trial."""
        told = [study for study in self.studies if np.isfinite(study.column("reward")).any()]
        names = dict.fromkeys(study.searcher for study in told)
        return {name: tuple(study for study in told if study.searcher == name) for name in names}

    @property
    def limits(self) -> Mapping[str, float]:
        """The goal's limits, metric to absolute limit; none where a run of an older version has no result yet."""
        return self.scale.limits if self.result is None else self.result.limits

    @cached_property
    def cost_metric(self) -> str:
        """The cost that fronts are drawn over: the first that has a limit, else the first that the trials know."""
        if self.limits:
            return next(iter(self.limits))
        known = (name for name in QUANTITIES if any(np.isfinite(study.column(name)).any() for study in self.studies))
        return next(known, "latency_ms")

    @cached_property
    def reading(self) -> Reading:
        """How the metric is read that all studies share; accuracy where no log says otherwise."""
        if self.result is not None:
            return self.result.metric
        headers = (study.trials.attrs["header"] for study in self.studies)
        told = (Reading.model_validate(header["metric"]) for header in headers if "metric" in header)
        return next(told, find_metric("accuracy").reading)

    @cached_property
    def best_quality(self) -> float:
        """The highest value that the metric can have, else the highest seen."""
        return max(self._qualities) if self.reading.highest is None else self.reading.highest

    @property
    def _qualities(self) -> list[float]:
        columns = (study.column(self.reading.column) for studies in self.by_searcher.values() for study in studies)
        return [float(value) for column in columns for value in column[np.isfinite(column)]] or [0.0]

    @cached_property
    def reference(self) -> tuple[float, float]:
        """The reference point of hypervolumes: the cost of dense int8, and the lowest quality.

        That is the lowest value that the metric can have, or where it has no bound, the lowest seen. A run of a version
        that did not write the cost down has that of its result, or the largest seen.
        """
        dense = self.result.row("dense_int8") if self.result is not None else None
        cost = self.scale.dense.get(self.cost_metric, getattr(dense, self.cost_metric, None))
        if cost is None:
            complete = (study for studies in self.by_searcher.values() for study in studies)
            cost = max((np.nanmax(study.column(self.cost_metric)) for study in complete), default=1.0)
        return float(cost), min(self._qualities) if self.reading.lowest is None else self.reading.lowest


@dataclass(frozen=True, eq=False)
class Run:
    """Everything that a run's folder holds."""

    name: str
    folder: Path
    tasks: tuple[Task, ...]


def read_run(folder: Path) -> Run:
    """Read `folder`, as `automc run` writes it: `<environment>/<searcher>-<seed>/trials.log` and the winners' results.

    A run that is still going, or that delivered nothing, is read as far as it got. Raises `NameNotFound` where there
    is no study at all, `CorruptFile` and `StorageError` as the files' own readers.
    """
    logs = begun_logs(folder, "*/*-*")
    names = {path.parent.parent.name for path in (*logs, *folder.glob(f"*/{RESULT_PATH}"))}
    if not names:
        raise NameNotFound(f"{folder} holds no run: no <environment>/<searcher>-<seed>/{LOG_NAME}")
    tasks = tuple(_read_task(folder / name, logs) for name in sorted(names))
    return Run(folder.resolve().name, folder, tasks)


def _read_task(place: Path, logs: Sequence[Path]) -> Task:
    """The environment whose part of a run stands in `place`."""
    own = (_read_study(log) for log in logs if log.parent.parent == place)
    studies = tuple(sorted(own, key=lambda study: (study.searcher, study.seed)))
    written = place / RESULT_PATH
    result = read_result(written) if written.is_file() else None
    return Task(place.name, studies, result, written.parent, read_index(place / FRONT_NAME), read_scale(place))


def _read_study(log: Path) -> Study:
    trials = read_trials(log)
    header = trials.attrs["header"]
    return Study(header["searcher"], header["seed"], trials)
