"""Searching how a compressed network is fine-tuned: many recipes begin, and successive halving ends the bad ones."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from automc.compression.finetune import finetune
from automc.compression.policy import Policy
from automc.compression.program import Program
from automc.environment.evaluator import Evaluator
from automc.environment.problem import Problem
from automc.errors import ConfigError, EvaluationFailed, RunMismatch, WeightsError
from automc.files import write_atomic
from automc.reporting import Report
from automc.schema import FinetuningSpec
from automc.search.identity import library_versions
from automc.search.log import Record, RecordLog, read_records

_LOGGER = logging.getLogger(__name__)

LOG_NAME = "tuning.log"
PROGRAM_NAME = "program.safetensors"
RECIPE_NAME = "recipe.txt"  # how to run a search whose winner is fine-tuned by the best recipe
_FORMAT = 1  # of the log's lines
_FACTOR = 3  # of the trials at one length, the best third goes on to a length three times as long
_LENGTHS = 3
_SEARCHED: Mapping[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(0.001, 0.05, log=True),
    "schedule": CategoricalDistribution(["cosine", "linear"]),
    "weight_decay": FloatDistribution(0.0, 0.1),
    "temperature": FloatDistribution(1.0, 8.0, log=True),
    "distillation": FloatDistribution(0.0, 1.0),
    "normalising": FloatDistribution(0.0, 0.8),
}


@dataclass(frozen=True)
class Tuning:
    """What was found: the best recipe at full length, and its quality on the selection split."""

    recipe: FinetuningSpec
    quality: float


def trial_lengths(recipe: FinetuningSpec, epochs: float) -> list[float]:
    """After how many epochs of training a trial is judged, shortest first; the last are those of `recipe`.

    Raises `ConfigError` where a budget of `epochs` for all trials does not reach for one or has no end.
    """
    if recipe.epochs == 0:
        raise ConfigError("finetuning.epochs must be greater than 0 to be tuned. Got 0 instead.")
    lengths = [recipe.epochs / _FACTOR**power for power in reversed(range(_LENGTHS))]
    if not math.isfinite(epochs):
        raise ConfigError(f"the budget must be a number of epochs. Got {epochs} instead.")
    if epochs < sum(lengths):
        raise ConfigError(
            f"a budget of {epochs:g} epochs is less than one trial of {recipe.epochs:g} epochs needs, which is "
            f"{sum(lengths):g}: raise --epochs or lower finetuning.epochs"
        )
    return lengths


def tune(
    problem: Problem, policy: Policy, folder: Path, epochs: float, seed: int = 0, report: Report = _LOGGER.info
) -> Tuning:
    """Search a recipe for fine-tuning what `policy` makes of the problem's network, within a budget of epochs in all.

    The first trial is the environment's own recipe; a tree-structured Parzen estimator (Bergstra et al. 2011) draws the
    others. A trial is trained anew for a ninth, a third and the whole of the recipe's epochs, so that each is judged at
    the end of its schedule, and goes on only while it is in the best third of all that came as far (asynchronous
    successive halving, Li et al. 2020). Trials are judged on the selection split.

    `folder` holds a checksummed line a length in `tuning.log`, the table of all in `tuning.txt`, and the best Program
    that was trained for the whole length. The same call goes on where it was stopped, with a larger budget, too.

    Raises as `trial_lengths`, `RunMismatch` where `folder` holds another tuning, otherwise as `RecordLog`.
    """
    recipe = problem.spec.finetuning
    lengths = trial_lengths(recipe, epochs)
    program = Evaluator(problem, "sequential").program(policy)
    header = {
        "format": _FORMAT,
        "identity": dict(problem.identity),
        "program": program.fingerprint,
        "recipe": recipe.model_dump(),
        "seed": seed,
        "versions": library_versions(),
    }
    with RecordLog(folder / LOG_NAME, header, _LOGGER.warning) as log:
        trials = _Trials(problem, policy, program, folder, log, report)
        _halve(trials, lengths, epochs, seed)
        return trials.best(lengths[-1])


def read_tuning(folder: Path) -> list[str]:
    """What is known of a tuning in `folder` as the lines of a table, also while it is running.

    Raises `CorruptFile` and `StorageError` as `read_records`.
    """
    _, records = read_records(folder / LOG_NAME)
    return _table(records)


def _halve(trials: _Trials, lengths: Sequence[float], budget: float, seed: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=_FACTOR),
    )
    own = {name: getattr(trials.recipe, name) for name in _SEARCHED}
    study.enqueue_trial(own)
    space = {name: _with(distribution, own[name]) for name, distribution in _SEARCHED.items()}
    spent = 0.0
    while True:
        trial = study.ask(space)
        for power, length in enumerate(lengths):
            if spent + length > budget:
                return
            quality = trials.quality(trial.number, trial.params, length)
            spent += length
            if quality is None:
                study.tell(trial, state=TrialState.FAIL)
                break
            trial.report(quality, _FACTOR**power)
            if length == lengths[-1]:
                study.tell(trial, quality)
            elif trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break


def _with(distribution: BaseDistribution, value: Any) -> BaseDistribution:
    """`distribution`, wide enough for `value`."""
    if not isinstance(distribution, FloatDistribution):
        return distribution
    return FloatDistribution(min(distribution.low, value), max(distribution.high, value), log=distribution.log)


class _Trials:
    """Answers how good a recipe is at a length: from the log what it knows, by fine-tuning everything else."""

    def __init__(
        self, problem: Problem, policy: Policy, program: Program, folder: Path, log: RecordLog, report: Report
    ) -> None:
        self.recipe = problem.spec.finetuning
        self._problem, self._policy, self._program = problem, policy, program
        self._folder, self._log, self._report = folder, log, report
        self._evaluator = Evaluator(problem, "sequential")
        self._asked = 0

    def quality(self, number: int, found: Mapping[str, Any], length: float) -> float | None:
        """The network's quality on the selection split after `length` epochs; None where training came to no end."""
        asked = {"trial": number, "epochs": length, "found": dict(found)}
        if self._asked == len(self._log.records):
            self._log.write(asked | self._trained(number, self.recipe.model_copy(update={**found, "epochs": length})))
            self._write_table()
        record = self._log.records[self._asked]
        if asked != {name: record[name] for name in asked}:
            raise RunMismatch(
                f"{self._log.path}: replay diverged at line {self._asked + 2}: trial {number} is now another one than "
                "the log has. The machine is not the one that wrote it; begin a new tuning in another folder."
            )
        self._asked += 1
        quality: float | None = record["quality"]
        return quality

    def best(self, length: float) -> Tuning:
        """The best of the trials that were trained for the whole length."""
        finished = [
            each for each in self._log.records[: self._asked] if each["epochs"] == length and not each["reason"]
        ]
        if not finished:
            raise WeightsError(f"{self._log.path}: no trial came to its end: {self._log.records[-1]['reason']}")
        winner = max(finished, key=lambda record: float(record["quality"]))
        self._write_table()
        Program.load(self._path(winner["trial"])).save(self._folder / PROGRAM_NAME)
        return Tuning(self.recipe.model_copy(update=winner["found"]), winner["quality"])

    def _trained(self, number: int, recipe: FinetuningSpec) -> dict[str, Any]:
        network, images = self._problem.network, self._problem.splits.train
        place = self._folder / "unfinished" / f"{number}-{recipe.epochs:g}"

        def report(line: str) -> None:
            self._report(f"trial {number}: {line}")

        try:
            tuned = finetune(
                self._program, images, self._problem.module, network.mean, network.std, recipe, place, report
            )
            metrics = self._evaluator.judge(tuned, self._policy, "selection")
        except (WeightsError, EvaluationFailed) as failure:  # a learning rate may be too high for any answer
            return {"quality": None, "reason": str(failure)}
        if recipe.epochs == self.recipe.epochs:
            tuned.save(self._path(number))
        shutil.rmtree(place, ignore_errors=True)
        found = self._problem.metric.reading.show(metrics.quality)
        self._report(f"trial {number}: {metrics.column} {found} on the selection images after {recipe.epochs:g} epochs")
        return {"quality": metrics.quality, "reason": ""}

    def _write_table(self) -> None:
        write_atomic(self._folder / "tuning.txt", "\n".join(_table(self._log.records)) + "\n")

    def _path(self, number: int) -> Path:
        return self._folder / "trials" / f"{number}.safetensors"


def _table(records: Sequence[Record]) -> list[str]:
    """One line a trial, those that came furthest first, and of them the best."""
    latest = {record["trial"]: record for record in records}
    reached = sorted(
        latest.values(), key=lambda one: (one["quality"] is None, -one["epochs"], -(one["quality"] or 0.0))
    )
    columns = ("trial", "epochs", "quality", *_SEARCHED)
    lines = ["".join(f"{name:>14s}" for name in columns)]
    for record in reached:
        cells = {"trial": record["trial"], "epochs": record["epochs"], "quality": record["quality"]} | record["found"]
        lines.append("".join(f"{_shown(cells[name]):>14s}" for name in columns) + f"  {record['reason']}".rstrip())
    return lines


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
