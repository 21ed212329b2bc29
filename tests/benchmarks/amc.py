"""AMC's tables (He et al. 2018): what ways to choose channels keep of the accuracy at half of the MACs.

    python tests/benchmarks/amc.py RUN [RUN ...] [--tune NAME ... --recipe FIELD=VALUE,...] --out FOLDER

RUNs are of `experiments/amc.yaml`. The best trial of each study is prepared sequentially on 1,000 images, and asked all
test images once. Beside the searchers stands `widths`, every layer cut to the same share of its channels, whatever
shares the search space offers. The best study of each NAME, by its reward, is then fine-tuned by RECIPE, fields of a
`FinetuningSpec`. Answers stand in RUN/winners-test.log and RUN/finetuned, where a killed run goes on; FOLDER gets a
line a study, and a figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from remembered import remembered
from winners import Judge

from automc.compression.finetune import finetune
from automc.compression.policy import Policy, uniform_policy
from automc.environment.problem import Problem
from automc.network.resources import take_threads
from automc.reading import make_spec
from automc.schema import FinetuningSpec

SETTINGS = ("metric=accuracy", "data.calibration=1000")  # whatever the search was led by
WIDTHS = "widths"
STEPS = 64  # of its shares

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--tune", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--recipe", default="epochs=10,learning_rate=0.01,normalising=0.6")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER")
    options = parser.parse_args()
    take_threads(1)
    rows: list[Row] = []
    for run in options.runs:
        judge = Judge(run, "test", SETTINGS)
        for row in judged(judge, {row["network"] for row in rows}):
            rows.append(row)
    for network in dict.fromkeys(row["network"] for row in rows):
        for name in options.tune:
            studies = [row for row in rows if (row["network"], row["searcher"]) == (network, name)]
            if studies:
                tune(max(studies, key=lambda row: float(row["reward"])), options.recipe)
        report(network, [row for row in rows if row["network"] == network])
    options.out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).drop(columns=["judge", "environment", "policy"]).to_csv(options.out / "amc.csv", index=False)
    draw(rows, options.out / "amc.png")


def judged(judge: Judge, known: set[str]) -> list[Row]:
    """A row for each study of a run; for networks that are not `known`, the dense one and `widths`, too."""
    rows = []
    for record in judge.records():
        name, best = record["environment"], record["best"]
        evaluator = judge.evaluator(name)
        problem = evaluator.problem
        study = {"judge": judge, "environment": name, "network": problem.network.name}
        if problem.network.name not in known:
            known.add(problem.network.name)
            dense = judge.remembered(
                f"{name} dense",
                lambda problem=problem, evaluator=evaluator: (
                    problem.metric.measure(evaluator.dense_answers(problem.splits.test)).value
                ),
            )
            rows.append(study | row(problem, "dense", Policy(), dense))
            policy = same_widths(problem)
            rows.append(study | row(problem, WIDTHS, policy, judge.quality(name, policy)))
        found = row(problem, record["searcher"], best.policy, record["quality"])
        rows.append(study | found | {"seed": record["seed"], "trials": len(record["curve"]), "reward": best.reward})
    return rows


def row(problem: Problem, searcher: str, policy: Policy, accuracy: float) -> Row:
    kept = policy.normalised(problem.network).keep_ratio.values()
    return {
        "searcher": searcher,
        "seed": 0,
        "trials": 0,
        "reward": np.nan,
        "macs_share": round(problem.cost(policy).macs / problem.dense_cost.macs, 4),
        "test_accuracy": accuracy,
        "fine_tuned": np.nan,
        "keep_ratios": " ".join(f"{ratio:g}" for ratio in kept),
        "policy": policy,
    }


def same_widths(problem: Problem) -> Policy:
    """The widest network that keeps the limits and whose layers all have one share of their channels."""
    policies = [uniform_policy(problem.network, step / STEPS) for step in range(STEPS, 0, -1)]
    return next(policy for policy in policies if problem.limits.fits(problem.cost(policy)))


def tune(study: Row, recipe: str) -> None:
    """Fine-tune the policy of a study by `recipe`, and ask all test images again."""
    judge, name, policy = study["judge"], study["environment"], study["policy"]
    fields = dict(field.split("=") for field in recipe.split(","))
    spec = make_spec(FinetuningSpec, fields, recipe)

    def accuracy() -> float:
        evaluator = judge.evaluator(name)
        problem, network = evaluator.problem, evaluator.problem.network
        folder = judge.run / "finetuned" / policy.fingerprint[:12] / recipe
        folder.mkdir(parents=True, exist_ok=True)
        before = evaluator.program(policy.normalised(network))
        teacher, images = remembered(problem.module), problem.splits.train
        after = finetune(before, images, teacher, network.mean, network.std, spec, folder, print)
        after.save(folder / "after.safetensors")
        return evaluator.judge(after, policy, "test").quality

    study["fine_tuned"] = judge.remembered(f"{name} {policy.fingerprint} {recipe}", accuracy)


def report(network: str, rows: Sequence[Row]) -> None:
    print(f"\n{network}\n\n| | seeds | trials | MACs | reward | test accuracy | lowest to highest | fine-tuned |")
    print("|---" * 8 + "|")
    of = {name: [row for row in rows if row["searcher"] == name] for name in dict.fromkeys(r["searcher"] for r in rows)}
    for name in sorted(of, key=lambda name: -_mean(of[name], "test_accuracy")):
        accuracies, tuned = ([row[figure] for row in of[name]] for figure in ("test_accuracy", "fine_tuned"))
        after = [value for value in tuned if not np.isnan(value)]
        cells = [
            name,
            f"{len(of[name])}",
            f"{max(row['trials'] for row in of[name]) or ''}",
            f"{_mean(of[name], 'macs_share'):.2%}",
            f"{_mean(of[name], 'reward'):.4f}".removesuffix("nan"),
            f"{_mean(of[name], 'test_accuracy'):.2%}",
            f"{min(accuracies):.2%} to {max(accuracies):.2%}" if len(accuracies) > 1 else "",
            f"{after[0]:.2%}" if after else "",
        ]
        print(f"| {' | '.join(cells)} |")


def _mean(rows: Sequence[Row], figure: str) -> float:
    return float(np.mean([row[figure] for row in rows]))


def draw(rows: Sequence[Row], path: Path) -> None:
    """The accuracy of every study, a panel for each network; hollow marks are after fine-tuning."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    colours = {name: f"C{number}" for number, name in enumerate(sorted({row["searcher"] for row in rows}))}
    figure, panels = plt.subplots(1, len(networks), figsize=(4 * len(networks), 3), squeeze=False, layout="constrained")
    for axes, network in zip(panels[0], networks, strict=True):
        own = [row for row in rows if row["network"] == network]
        names = {row["searcher"] for row in own} - {"dense"}
        order = sorted(names, key=lambda name: _mean([row for row in own if row["searcher"] == name], "test_accuracy"))
        for row in own:
            if row["searcher"] == "dense":
                axes.axvline(100 * row["test_accuracy"], color="grey", linestyle="--", linewidth=1)
                continue
            place, colour = order.index(row["searcher"]), colours[row["searcher"]]
            axes.plot(100 * row["test_accuracy"], place, "o", color=colour, alpha=0.7)
            axes.plot(100 * row["fine_tuned"], place, "o", color=colour, fillstyle="none")
        axes.set_yticks(range(len(order)), order)
        axes.set(title=f"{network}, half of the MACs", xlabel="test accuracy (%); dashed: dense")
        axes.grid(axis="x", alpha=0.25)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
