"""What compression costs in accuracy on CIFAR-10, before and after fine-tuning, as a table over seeds.

    python tests/benchmarks/accuracy.py resnet20_half resnet20_13x --weights FOLDER --out runs/accuracy --seeds 0 1 2
    python tests/benchmarks/accuracy.py --out runs/accuracy    # the table of all that has been seen so far

FOLDER has the dense networks' weights, `<network>_cifar10.safetensors`; those of `envs/` serve where it lacks one.
Every step is stored in `--out/<row>-<seed>`: the same command goes on where a killed one stopped, so it may as well run
in the background. Allocation is a search on logit error, and so are all other choices; they are made on training
images and read no label. All 10,000 test images are asked once for each figure, after everything is decided. Search and
selection images are left out of fine-tuning.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automc.choices import Uniform
from automc.compiler.sizes import program_bytes
from automc.compression.executor import Executor
from automc.compression.finetune import finetune
from automc.compression.policy import Policy, uniform_policy
from automc.compression.program import Program
from automc.environment.evaluator import Evaluator
from automc.environment.loading import build_problem
from automc.environment.problem import Problem
from automc.files import suggest
from automc.network.datasets import load_dataset
from automc.network.graph import Network
from automc.network.resources import take_threads
from automc.network.training import ask
from automc.network.zoo import build_network, load_weights
from automc.reading import make_spec
from automc.schema import DataSpec, EnvironmentSpec, FinetuningSpec, GoalSpec, SearcherSpec, SearchSpaceSpec
from automc.search.experiment import study_header
from automc.search.searchers import build_searcher
from automc.search.study import Progress, Study

SHIPPED = Path(__file__).parents[2] / "envs"
EIGHTHS = [eighth / 8 for eighth in range(1, 9)]
CALIBRATION = {"search": 500, "delivery": 3000}  # more images for the few networks that are judged at the end


@dataclass(frozen=True)
class Row:
    """`policy` says how a network is compressed; without one a search prunes it to half of its MACs."""

    network: str
    policy: Callable[[Network], Policy] | None = None


def _small(network: Network) -> Policy:
    """Mixed bits with Huffman codes: wide layers have the fewest, three of them 2, where it costs little logit error.

    Activations have 8.
    """
    fewest = ("layer3.0.conv2", "layer3.1.conv2", "layer3.2.conv2")
    ends = {network.convs[0].name: 8, network.convs[-1].name: 6}

    def bits(name: str) -> int:
        return 2 if name in fewest else 4 if name.startswith(("layer1", "layer2.0.conv1")) else 3

    chosen = {layer.name: bits(layer.name) for layer in network.convs} | ends
    return Policy(weights={name: Uniform(weight_bits=width, huffman=True) for name, width in chosen.items()})


ROWS = {
    "plain20_half": Row("plain20"),
    "resnet20_half": Row("resnet20"),
    "resnet56_half": Row("resnet56"),
    "resnet20_w8a8": Row("resnet20", uniform_policy),
    "resnet20_13x": Row("resnet20", _small),
    "resnet20_w4a4": Row("resnet20", lambda network: uniform_policy(network, 1.0, 4, 4)),
}


class Run:
    """One row, in a folder of its own."""

    def __init__(self, name: str, weights: Path, folder: Path, seed: int) -> None:
        self.row, self.folder, self.seed = ROWS[name], folder / f"{name}-{seed}", seed
        self.folder.mkdir(parents=True, exist_ok=True)
        data = load_dataset("cifar10")
        module = build_network(self.row.network, len(data.classes), 3)
        load_weights(module, weights)
        self.problem = self._problem(module, data, "search")
        self.delivery = self._problem(module, data, "delivery")
        self.test = data.test

    def _problem(self, module: torch.nn.Module, data: object, stage: str) -> Problem:
        spec = EnvironmentSpec(
            description="half of the MACs",
            network=self.row.network,
            metric="logit_error",
            data=DataSpec(name="cifar10", search=1000, selection=1000, calibration=CALIBRATION[stage], seed=self.seed),
            device="epyc_zen5_avx2",  # of no importance: MACs are limited
            goal=GoalSpec(limits={"macs": "50%"}),
        )
        space = SearchSpaceSpec(description="channels", keep_ratio=EIGHTHS)
        return build_problem(self.row.network, spec, module, data, space=space)  # type: ignore[arg-type]

    def report(self, figure: str, **values: object) -> None:
        """Print a figure and keep it, once."""
        line = {"row": self.folder.name, "figure": figure, **values}
        print(json.dumps(line), flush=True)
        with (self.folder / "figures.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def known(self, figure: str) -> bool:
        path = self.folder / "figures.jsonl"
        return path.exists() and any(json.loads(line)["figure"] == figure for line in path.read_text().splitlines())

    def right(self, logits: NDArray[np.float32]) -> float:
        return float((logits.argmax(1) == self.test.labels).mean())

    def tested(self, program: Program) -> dict[str, float]:
        """Accuracy, and what a library stores of its layers, against 4 bytes a weight."""
        size = sum(program_bytes(program).values())
        smaller = 4 * sum(layer.weight.size for layer in self.problem.network.convs) / size
        accuracy = self.right(Executor(program).run(self.test.pixels))
        return {"accuracy": accuracy, "weight_bytes": size, "times_smaller": round(smaller, 2)}

    def before(self, trials: int, candidates: int) -> Program:
        """The compressed network without any training."""
        path = self.folder / "before.safetensors"
        if not path.exists():
            started = time.time()
            program, policy = self._delivered(trials, candidates)
            program.save(path)
            (self.folder / "policy.json").write_text(policy.to_json())
            share = self.problem.cost(policy).macs / self.problem.dense_cost.macs
            self.report("prepared", macs=round(share, 4), seconds=round(time.time() - started))
        program = Program.load(path)
        if not self.known("before fine-tuning"):
            network = self.problem.network
            dense = self.right(ask(self.problem.module, self.test.pixels, network.mean, network.std))
            self.report("before fine-tuning", dense=dense, **self.tested(program))
        return program

    def _delivered(self, trials: int, candidates: int) -> tuple[Program, Policy]:
        """The best of some policies, prepared on many images, judged by logit error on the selection split."""
        policies = [self.row.policy(self.problem.network)] if self.row.policy else self._searched(trials, candidates)
        judge = Evaluator(self.delivery, "sequential")
        found = []
        for policy in policies:
            program = judge.program(policy)
            metrics = judge.judge(program, policy, "selection")
            print(f"delivery: logit error {metrics.logit_error:.5f}, {metrics.macs / 1e6:.2f} M MACs", flush=True)
            found.append((metrics.logit_error, program, policy))
        return min(found, key=lambda entry: entry[0])[1:]

    def _searched(self, trials: int, candidates: int) -> list[Policy]:
        problem = self.problem
        searcher = build_searcher("dynamic", {}, problem, self.seed)
        header = study_header(problem, SearcherSpec(name="dynamic"), self.seed)
        done = Study(self.folder / "search", header, searcher, Evaluator(problem).outcome, trials, _trial_line).run()
        return [trial.policy for trial in sorted(done, key=lambda trial: -trial.reward)[:candidates]]

    def after(self, program: Program, recipe: str) -> None:
        """The same network after fine-tuning; `recipe` lists fields of a `FinetuningSpec`."""
        figure = f"after fine-tuning, {recipe}"
        if self.known(figure):
            return
        problem, started = self.problem, time.time()
        fields = dict(field.split("=") for field in recipe.split(","))
        spec = make_spec(FinetuningSpec, {"seed": self.seed, **fields}, recipe)
        images, network = problem.splits.train, problem.network
        folder = self.folder / recipe
        folder.mkdir(exist_ok=True)
        tuned = finetune(program, images, problem.module, network.mean, network.std, spec, folder, _timed)
        tuned.save(folder / "after.safetensors")
        self.report(figure, **self.tested(tuned), seconds=round(time.time() - started), recipe=spec.model_dump())


def _timed(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


def _trial_line(progress: Progress) -> None:
    _timed(f"trial {progress.trial.number}: logit error {progress.trial.metrics['logit_error']:.5f}")


def dense_weights(network: str, folder: Path) -> Path:
    """The file of a dense network's weights: from `folder`, else the one that is shipped."""
    named = folder / f"{network}_cifar10.safetensors"
    return named if named.exists() else SHIPPED / named.name


def table(out: Path) -> str:
    """A line for each row and recipe of `out`: test accuracies over seeds, their mean and spread, and the time."""
    figures: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(out.glob("*/figures.jsonl")):
        for line in map(json.loads, path.read_text().splitlines()):
            if "accuracy" in line:
                figures[line["row"].rpartition("-")[0], line["figure"]].append(line)
    lines = ["| row | figure | seeds | accuracy, % | mean ± deviation | times smaller | minutes |", "|---" * 7 + "|"]
    for (row, figure), found in sorted(figures.items()):
        values = np.array([100 * line["accuracy"] for line in found])
        spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
        smaller = [line["times_smaller"] for line in found if "times_smaller" in line]
        minutes = [line["seconds"] / 60 for line in found if "seconds" in line]
        cells = (
            row, figure, len(found), ", ".join(f"{value:.2f}" for value in values), f"{values.mean():.2f}{spread}",
            f"{min(smaller):.1f}" if smaller else "", f"{np.mean(minutes):.0f}" if minutes else "",
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="folder of the dense networks' safetensors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--trials", type=int, default=40, help="of the search for an allocation")
    parser.add_argument("--candidates", type=int, default=4, help="best trials that are prepared on many images")
    parser.add_argument("--recipe", help="of fine-tuning, as in epochs=10,learning_rate=0.005; without it, none")
    given = parser.parse_intermixed_args()
    for name in set(given.rows) - set(ROWS):
        parser.error(f"no row {name!r}{suggest(name, ROWS)}")
    take_threads(1)
    for name, seed in itertools.product(given.rows, given.seeds):
        run = Run(name, dense_weights(ROWS[name].network, given.weights), given.out, seed)
        program = run.before(given.trials, given.candidates)
        if given.recipe:
            run.after(program, given.recipe)
    print(table(given.out))


if __name__ == "__main__":
    main()
