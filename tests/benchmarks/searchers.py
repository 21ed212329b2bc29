"""Who searches best: every searcher on the model of `surrogate.py`, many seeds, up to thousands of trials.

    python tests/benchmarks/searchers.py [NAME ...] [--seeds 20] [--trials 200] [--budget 0.35] [--again]
    python tests/benchmarks/searchers.py --print

A study of more trials holds those of fewer, as no searcher knows how many there will be. Finished studies stand in
FOLDER/searchers.log, where a killed run goes on; `--again` repeats them, for a searcher that has changed, and the last
one counts. `--print` prints the table and draws FOLDER/searchers.png; `--confirm` evaluates for real what each of the
first two studies of a searcher found best in 200 trials. The agent's variants of `ablation.py` are searchers here, too.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import ablation
import numpy as np
import torch
from surrogate import FOLDER, LOG_NAME, Surrogate, open_problem, search

from automc.analysis.stats import Interval, interquartile_interval
from automc.environment.evaluator import Evaluator
from automc.environment.problem import Problem
from automc.files import sha256_of
from automc.search.log import Record, RecordLog, read_records
from automc.search.pareto import hypervolume
from automc.search.searchers import searcher_names
from automc.search.trials import Trial

RESULTS = "searchers.log"
MARKS = (10, 25, 50, 100, 200, 500, 1000, 2000)
CHANCE = 0.1  # the accuracy of a guess; with the latency limit it is the reference point of hypervolumes
CONFIRMED = 2  # studies of a searcher whose winners are evaluated for real
TRIALS = 200  # at which searchers are ranked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=[])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--budget", type=float, default=0.35)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--print", action="store_true")
    parser.add_argument("--confirm", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ablation.register()
    if not options.print:
        problem = open_problem(options.budget)
        header = {"policies": sha256_of(FOLDER / LOG_NAME), "budget": options.budget}
        with RecordLog(options.folder / RESULTS, header, print) as log:
            if options.confirm:
                confirm(problem, log)
            else:
                run(problem, log, options.names or searcher_names(), options.seeds, options.trials, options.again)
    report(options.folder)


def run(
    problem: Problem, log: RecordLog, names: Sequence[str], seeds: int, trials: int, again: bool
) -> None:  # fmt: skip
    surrogate = Surrogate.of(problem)
    done = {(record["searcher"], record["seed"], record["asked"]) for record in log.records if "asked" in record}
    for seed in range(seeds):
        for name in names:
            if again or (name, seed, trials) not in done:
                begun = time.process_time()
                found = search(name, problem, surrogate, seed, trials)
                log.write(_summary(problem, name, seed, trials, found, time.process_time() - begun))
                print({key: log.records[-1][key] for key in ("searcher", "seed", "reward", "seconds")}, flush=True)


def _summary(problem: Problem, name: str, seed: int, asked: int, trials: list[Trial], seconds: float) -> Record:
    rewards = [trial.reward for trial in trials]
    steps = [number for number in range(len(rewards)) if rewards[number] > max(rewards[:number], default=-np.inf)]
    ranked = trials[:TRIALS]
    best = max(ranked, key=lambda trial: trial.reward)
    latency = np.array([trial.metrics["latency_ms"] for trial in ranked])
    accuracy = np.array([trial.metrics["accuracy"] for trial in ranked])
    limit = problem.limits.costs["latency_ms"]
    return {
        "searcher": name,
        "seed": seed,
        "asked": asked,
        "made": len(trials),
        "reward": round(max(rewards), 5),
        "steps": [[number, round(rewards[number], 5)] for number in steps],
        "best": "".join(map(str, problem.space.choices_of(best.policy))),
        "hypervolume": round(hypervolume(latency, accuracy, (limit, CHANCE)) / (limit * (1 - CHANCE)), 5),
        "seconds": round(seconds, 2),
    }


def confirm(problem: Problem, log: RecordLog) -> None:
    evaluator = Evaluator(problem)
    known = {record["confirmed"] for record in log.records if "confirmed" in record}
    for studies in _studies(log.records).values():
        for record in studies[:CONFIRMED]:
            if record["best"] not in known:
                metrics = evaluator.evaluate(problem.space.policy(tuple(map(int, record["best"]))))
                log.write({"confirmed": record["best"], "accuracy": metrics.quality})
                known.add(record["best"])


def _studies(records: Sequence[Record]) -> dict[str, list[Record]]:
    """For each searcher the last study of each seed, by seed; of several lengths the longest."""
    latest: dict[tuple[str, int], Record] = {}
    for record in records:
        if "asked" in record:
            key = record["searcher"], record["seed"]
            if key not in latest or record["asked"] >= latest[key]["asked"]:
                latest[key] = record
    found = defaultdict(list)
    for (name, _), record in sorted(latest.items()):
        found[name].append(record)
    return dict(found)


def _best_after(record: Record, trials: int) -> float:
    """The best reward of the first `trials`; NaN where the study asked for fewer."""
    if record["asked"] < trials:
        return float("nan")
    return max(reward for number, reward in record["steps"] if number < trials)


def _interval(values: Sequence[float]) -> Interval:
    return interquartile_interval(np.array(values)[:, None], np.random.default_rng(0))


def report(folder: Path) -> None:
    _, records = read_records(folder / RESULTS)
    studies = _studies(records)
    real = {record["confirmed"]: record["accuracy"] for record in records if "confirmed" in record}
    ranked = sorted(studies, key=lambda name: -_interval([_best_after(one, TRIALS) for one in studies[name]]).estimate)
    print("| searcher | seeds | " + " | ".join(map(str, MARKS)) + f" | 95 % at {TRIALS} | hypervolume | real | s |")
    print("|---" * (len(MARKS) + 6) + "|")
    for name in ranked:
        cells = []
        for mark in MARKS:
            values = [_best_after(one, mark) for one in studies[name] if one["asked"] >= mark]
            cells.append(f"{100 * _interval(values).estimate:.2f}" if values else "")
        at = _interval([_best_after(one, TRIALS) for one in studies[name]])
        volume = _interval([one["hypervolume"] for one in studies[name]])
        confirmed = [real[best] for best in dict.fromkeys(one["best"] for one in studies[name]) if best in real]
        seconds = np.median([one["seconds"] / one["made"] for one in studies[name]])
        bounds = f"{100 * at.lower:.2f}–{100 * at.upper:.2f}" if len(studies[name]) > 1 else ""
        print(
            f"| {name} | {len(studies[name])} | " + " | ".join(cells) + f" | {bounds} "
            f"| {volume.estimate:.4f} | {', '.join(f'{100 * value:.1f}' for value in confirmed)} | {seconds:.3f} |"
        )
    draw(studies, ranked, folder / "searchers.png")


def draw(studies: dict[str, list[Record]], ranked: Sequence[str], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 5.5), layout="constrained")
    for place, name in enumerate(ranked):
        longest = max(one["asked"] for one in studies[name])
        marks = np.unique(np.rint(np.geomspace(1, longest, 60)).astype(int))
        bands = [_interval([_best_after(one, mark) for one in studies[name] if one["asked"] >= mark]) for mark in marks]
        (line,) = axes.plot(
            marks, [100 * band.estimate for band in bands], label=name, linestyle=("-", "--", ":")[place // 5 % 3]
        )
        low, high = ([100 * getattr(band, side) for band in bands] for side in ("lower", "upper"))
        if np.isfinite(low).all():
            axes.fill_between(marks, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(
        xscale="log", xlabel="trials", ylim=(78, None),
        ylabel="best accuracy so far on the model (%)\ninterquartile mean with its 95 % bootstrap interval",
    )  # fmt: skip
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right center", fontsize="small")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
