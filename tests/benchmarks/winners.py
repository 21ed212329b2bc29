"""What searchers' winners are worth: the best trial of each study of a run, prepared anew, on images that it never saw.

    python tests/benchmarks/winners.py RUN [RUN ...] [--out FOLDER]

A study's reward is of the search images and of the run's fidelity, and the best of many owes a part of it to luck. Here
each winner is prepared sequentially, as for delivery, and judged on the selection images; a line a searcher, with
interquartile means and bootstrap intervals over seeds. Hypervolumes are of all trials of a study, as shares of the box
from the latency of dense int8 and an accuracy of 0 to no latency and an accuracy of 1. Runs of one environment under
one limit are one task. Answers stand in RUN/winners-selection.log, where a killed run goes on; FOLDER gets a line a
study, and a figure.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from automc.analysis.stats import (
    Interval,
    anytime_best,
    interquartile_band,
    interquartile_interval,
    probability_of_improvement,
)
from automc.commands.specs import open_problem
from automc.compression.policy import Policy
from automc.environment.evaluator import Evaluator, Split
from automc.network.resources import take_threads
from automc.search.identity import read_identity
from automc.search.log import Record, RecordLog
from automc.search.pareto import hypervolume
from automc.search.trials import LOG_NAME, Trial, read_log

LIMITS = "goal.limits"
MARKS = (10, 50, 100, 200)
AGENT = "ppo"  # whose chances against each other searcher are printed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    take_threads(1)
    found: dict[str, list[Record]] = defaultdict(list)
    for run in options.runs:
        for record in Judge(run).records():
            found[record["task"]].append(record)
    for task, records in found.items():
        report(task, records)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write(found, options.out / "winners.csv")
        draw(found, options.out / "winners.png")


class Judge:
    """What policies of a run are worth on a split, prepared sequentially; `over` is laid over the run's overrides.

    Answers stand in RUN/winners-SPLIT.log.
    """

    def __init__(self, run: Path, split: Split = "selection", over: tuple[str, ...] = ()) -> None:
        identity = read_identity(run)
        self.run, self.split, self.weights = run, split, identity["weights"]
        self.overrides = (*identity["overrides"], *over)
        self._evaluators: dict[str, Evaluator] = {}
        self._known: dict[str, float] = {}

    def evaluator(self, name: str) -> Evaluator:
        """Of the environment called `name`, opened once."""
        if name not in self._evaluators:
            problem = open_problem(name, self.overrides, self.weights and Path(self.weights))
            self._evaluators[name] = Evaluator(problem, "sequential")
        return self._evaluators[name]

    def remembered(self, what: str, compute: Callable[[], float]) -> float:
        """A figure by name, computed once and then answered from the log."""
        header = {"overrides": [*self.overrides], "weights": self.weights}
        if what not in self._known:
            with RecordLog(self.run / f"winners-{self.split}.log", header, print) as log:
                self._known = {record["what"]: record["value"] for record in log.records}
                if what not in self._known:
                    self._known[what] = compute()
                    log.write({"what": what, "value": self._known[what]})
        return self._known[what]

    def quality(self, name: str, policy: Policy) -> float:
        """The metric of the environment called `name`."""
        return self.remembered(
            f"{name} {policy.fingerprint}", lambda: self.evaluator(name).evaluate(policy, self.split).quality
        )

    def volume(self, name: str, trials: Sequence[Trial]) -> float:
        """The hypervolume of a study's trials as a share of its box, in the qualities that the search saw."""
        dense = self.remembered(f"{name} dense latency", lambda: self.evaluator(name).problem.dense_cost.latency_ms)
        column = self.evaluator(name).problem.metric.reading.column
        told = [(trial.metrics["latency_ms"], trial.metrics[column]) for trial in trials if trial.complete]
        latency, quality = np.array(told).T
        return hypervolume(latency / dense, quality, (1.0, 0.0))

    def records(self) -> list[Record]:
        """A record for each study: its best trial, and what that is worth in the end."""
        laid = [each for each in self.overrides if each.startswith(LIMITS)]
        limits = {each.partition("=")[0]: each.removeprefix(LIMITS).lstrip(".=") for each in laid}  # the last counts
        records = []
        for path in sorted(self.run.glob(f"*/*-*/{LOG_NAME}")):
            header, trials = read_log(path)
            name = header["environment"]
            best = max((trial for trial in trials if trial.complete), key=lambda trial: trial.reward)
            quality = self.quality(name, best.policy)
            curve = anytime_best(np.array([trial.reward if trial.complete else np.nan for trial in trials]))
            study = {"environment": name, "searcher": header["searcher"], "seed": header["seed"], "curve": curve}
            figures = {"best": best, "reward": best.reward, "quality": quality, "volume": self.volume(name, trials)}
            records.append({"task": ", ".join([name, *limits.values()]), **study, **figures})
            print(f"{path.parent}: {best.reward:.4f} by {len(trials)} trials, {quality:.4f} in the end", flush=True)
        return records


def report(task: str, records: list[Record]) -> None:
    """Print the table of one task, the best searcher in the end first."""
    of = _by_searcher(records)
    print(f"\n{task}\n\n| searcher | seeds | reward | in the end | hypervolume | {AGENT} wins, reward | in the end |")
    print("|---" * 7 + "|")
    for name in sorted(of, key=lambda name: -_interval(of[name], "quality").estimate):
        chances = [_chance(of.get(AGENT, []), of[name], figure) for figure in ("reward", "quality")]
        cells = [_cell(_interval(of[name], figure)) for figure in ("reward", "quality", "volume")]
        print(f"| {name} | {len(of[name])} | {' | '.join(cells)} | {' | '.join(chances)} |")


def write(found: Mapping[str, list[Record]], path: Path) -> None:
    """A row for each study: its best reward after so many trials, and what its winner is worth."""
    rows = [
        {
            **{name: record[name] for name in ("task", "searcher", "seed")},
            **{f"reward_after_{mark}": float(record["curve"][:mark][-1]) for mark in MARKS},
            "quality_in_the_end": record["quality"],
            "hypervolume": record["volume"],
        }
        for records in found.values()
        for record in records
    ]
    pd.DataFrame(rows).to_csv(path, index=False)


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """The best reward so far of every searcher, a panel for each task."""
    figure, panels = plt.subplots(1, len(found), figsize=(4.5 * len(found), 3.6), squeeze=False, layout="constrained")
    colours = {
        name: f"C{number}"
        for number, name in enumerate(sorted({r["searcher"] for each in found.values() for r in each}))
    }
    for axes, (task, records) in zip(panels[0], found.items(), strict=True):
        of = _by_searcher(records)
        for name in sorted(of):
            longest = max(len(record["curve"]) for record in of[name])
            curves = [np.pad(record["curve"], (0, longest - len(record["curve"])), "edge") for record in of[name]]
            middle, lower, upper = interquartile_band(np.array(curves), np.random.default_rng(0))
            trials = np.arange(1, longest + 1)
            axes.plot(trials, middle, color=colours[name], label=f"{name} ({len(curves)})")
            axes.fill_between(trials, lower, upper, color=colours[name], alpha=0.2, linewidth=0)
        axes.set(xscale="log", xlabel="trials", ylabel="best reward so far", title=task)
        axes.legend(fontsize=7, title="searcher (seeds)", title_fontsize=7)
    figure.savefig(path, dpi=120)


def _by_searcher(records: list[Record]) -> dict[str, list[Record]]:
    of: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        of[record["searcher"]].append(record)
    return of


def _scores(records: list[Record], figure: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array([[record[figure]] for record in records], np.float64)


def _interval(records: list[Record], figure: str) -> Interval:
    return interquartile_interval(_scores(records, figure), np.random.default_rng(0))


def _cell(interval: Interval) -> str:
    bounds = "" if np.isinf(interval.lower) else f" [{interval.lower:.4f}, {interval.upper:.4f}]"
    return f"{interval.estimate:.4f}{bounds}"


def _chance(first: list[Record], second: list[Record], figure: str) -> str:
    if not first or first is second:
        return ""
    return f"{probability_of_improvement(_scores(first, figure), _scores(second, figure)):.2f}"


if __name__ == "__main__":
    main()
