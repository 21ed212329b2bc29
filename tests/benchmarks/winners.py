"""What searchers' winners are worth: the best trial of each study of a run, prepared anew, on images that it never saw.

    python tests/benchmarks/winners.py RUN [RUN ...]

A study's reward is of the search images and of the run's fidelity, and the best of many owes a part of it to luck. Here
each winner is prepared sequentially, as for delivery, and judged on the selection images; a line a searcher, with
interquartile means and bootstrap intervals over seeds. Answers stand in RUN/winners.log, where a killed run goes on.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from automc.analysis.stats import Interval, interquartile_interval, probability_of_improvement
from automc.commands.specs import open_problem
from automc.environment.evaluator import Evaluator
from automc.network.resources import take_threads
from automc.search.identity import read_identity
from automc.search.log import Record, RecordLog
from automc.search.trials import LOG_NAME, Trial, read_log

AGENT = "ppo"  # whose chances against each other searcher are printed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    take_threads(1)
    found: dict[str, list[Record]] = defaultdict(list)
    for run in parser.parse_args().runs:
        for record in judged(run):
            found[record["environment"]].append(record)
    for environment, records in found.items():
        report(environment, records)


def judged(run: Path) -> list[Record]:
    """A record for each study of the run: its best reward, and the winner's quality on the selection images."""
    identity = read_identity(run)
    weights = identity["weights"]
    evaluators: dict[str, Evaluator] = {}
    with RecordLog(run / "winners.log", {"overrides": identity["overrides"], "weights": weights}, print) as log:
        known = {(record["environment"], record["policy"]): record["quality"] for record in log.records}
        records = []
        for path in sorted(run.glob(f"*/*-*/{LOG_NAME}")):
            header, trials = read_log(path)
            name, best = header["environment"], max(filter(_complete, trials), key=lambda trial: trial.reward)
            key = name, best.policy.fingerprint()
            if key not in known:
                if name not in evaluators:
                    problem = open_problem(name, tuple(identity["overrides"]), weights and Path(weights))
                    evaluators[name] = Evaluator(problem, "sequential")
                known[key] = evaluators[name].evaluate(best.policy, "selection").quality
                log.write({"environment": name, "policy": key[1], "quality": known[key]})
            study = {"searcher": header["searcher"], "seed": header["seed"], "trials": len(trials)}
            records.append({"environment": name, **study, "reward": best.reward, "quality": known[key]})
            print(f"{path.parent}: {best.reward:.4f} by {len(trials)} trials, {known[key]:.4f} in the end", flush=True)
    return records


def _complete(trial: Trial) -> bool:
    return trial.complete


def report(environment: str, records: list[Record]) -> None:
    """Print the table of one environment, the best searcher in the end first."""
    of: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        of[record["searcher"]].append(record)
    print(f"\n{environment}\n\n| searcher | seeds | reward | in the end | {AGENT} wins, reward | in the end |")
    print("|---" * 6 + "|")
    for name in sorted(of, key=lambda name: -_interval(of[name], "quality").estimate):
        chances = [_chance(of.get(AGENT, []), of[name], figure) for figure in ("reward", "quality")]
        cells = [_cell(_interval(of[name], figure)) for figure in ("reward", "quality")]
        print(f"| {name} | {len(of[name])} | {' | '.join(cells)} | {' | '.join(chances)} |")


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
