"""How well accuracy and logit error before fine-tuning foretell accuracy after it.

    python tests/benchmarks/correlation.py WEIGHTS [--policies 60] [--epochs 1] [--top-epochs 10] [--out FOLDER]

WEIGHTS is a public ResNet-20 for CIFAR-10, which knows its training images: it is fine-tuned on those, and judged on
test images, 2,000 before fine-tuning, as a search does, and 3,000 others after it. Random policies draw one keep ratio
a channel group and are taken where they leave 45 to 55 % of the MACs, in 8 bits, prepared sequentially. All are
fine-tuned for `--epochs`, which may be a fraction, and the ten that are best then for `--top-epochs`.

Two processes, or as many as `--workers`, take one policy after the other. Every number is kept in
FOLDER/correlation.log, and a killed study goes on there; at the end, and with `--print` at any moment, the correlations
are printed and drawn.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from remembered import remembered
from scipy.stats import kendalltau, pearsonr

from automc.compression.executor import Executor
from automc.compression.finetune import finetune
from automc.compression.policy import Policy
from automc.compression.prepare import Preparation
from automc.compression.program import Program
from automc.cost.kernels import KernelPlan
from automc.network.datasets import Images, load_dataset
from automc.network.graph import Network
from automc.network.trace import trace
from automc.network.training import normalise
from automc.network.zoo import build_network, load_weights
from automc.reporting import silent
from automc.schema import FinetuningSpec
from automc.search.log import Record, RecordLog, read_records

RATIOS = np.arange(3, 11) / 10
MACS = (0.45, 0.55)
TOP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--policies", type=int, default=60)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--top-epochs", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("experiments/results/correlation"))
    parser.add_argument("--print", action="store_true", help="only print what is known so far")
    options = parser.parse_args()
    if not options.print:
        study(options)
    header, records = read_records(options.out / "correlation.log")
    report(header["epochs"], header["top_epochs"], records, options.out)


def study(options: argparse.Namespace) -> None:
    header = {"epochs": options.epochs, "top_epochs": options.top_epochs, "recipe": FinetuningSpec().model_dump()}
    workers = ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn"))
    task = (options.weights, options.policies, options.out / "unfinished")
    with RecordLog(options.out / "correlation.log", header, print) as log, workers:
        count = len(log.records)
        first = workers.map(partial(tried, *task, options.epochs), range(count, options.policies))
        write(log, first, task[-1])
        best = sorted(log.records[: options.policies], key=lambda record: -record["after"])[:TOP]
        left = [record["policy"] for record in best[len(log.records) - options.policies :]]
        write(log, workers.map(partial(tuned_longer, *task, options.top_epochs), left), task[-1])


def write(log: RecordLog, records: Iterable[Record], unfinished: Path) -> None:
    """Write each record when it comes; only then its fine-tuning's state is of no more use."""
    for record in records:
        log.write(record)
        print(record, flush=True)
        for folder in unfinished.glob(f"{record['policy']}-*"):
            shutil.rmtree(folder)


def tried(weights: Path, policies: int, unfinished: Path, epochs: float, number: int) -> Record:
    """What policy `number` answers before and after fine-tuning."""
    subject = begin(weights, policies)
    program = subject.preparation.sequential(subject.policies[number])
    logits = Executor(program).run(subject.before.pixels)
    return {
        "policy": number,
        "keep_ratio": dict(subject.policies[number].keep_ratio),
        "macs": program.macs / subject.network.macs,
        "logit_error": float(np.square(logits - subject.taught, dtype=np.float64).mean()),
        "before": float((logits.argmax(1) == subject.before.labels).mean()),
        "after": subject.tuned(number, epochs, unfinished),
    }


def tuned_longer(weights: Path, policies: int, unfinished: Path, epochs: float, number: int) -> Record:
    """What policy `number` answers after a longer fine-tuning."""
    return {"policy": number, "top": begin(weights, policies).tuned(number, epochs, unfinished)}


@cache
def begin(weights: Path, policies: int) -> Subject:
    """What each process prepares once."""
    return Subject(weights, policies)


class Subject:
    """The network, its images and its policies."""

    def __init__(self, weights: Path, policies: int) -> None:
        torch.set_num_threads(1)
        self.data = load_dataset("cifar10")
        module = build_network("resnet20", 10, 3)
        load_weights(module, weights)
        self.network = trace(module, (3, 32, 32), self.data.mean, self.data.std, "resnet20")
        self.preparation = Preparation(self.network, self.data.train.pixels[:512])
        order = np.random.default_rng(0).permutation(len(self.data.test))
        self.before, self.after = self.data.test.take(order[:2000]), self.data.test.take(order[2000:5000])
        self.teacher = remembered(module)
        with torch.inference_mode():
            self.taught = module(normalise(self.before.pixels, self.data.mean, self.data.std)).numpy()
        self.policies = random_policies(self.network, self.preparation, policies)

    def tuned(self, number: int, epochs: float, unfinished: Path) -> float:
        """Accuracy on the images of `after` when policy `number` has been fine-tuned."""
        folder = unfinished / f"{number}-{epochs:g}"
        program = self.preparation.sequential(self.policies[number])
        spec, data = FinetuningSpec(epochs=epochs), self.data
        result = finetune(program, data.train, self.teacher, data.mean, data.std, spec, folder, silent)
        return accuracy(result, self.after)


def random_policies(network: Network, preparation: Preparation, count: int) -> list[Policy]:
    """Policies with one random keep ratio a group, as many as asked for, that leave about half of the MACs."""
    random, found = np.random.default_rng(0), []
    plan = KernelPlan(network, preparation.removal_order)
    groups = [group.name for group in network.groups if group.prunable]
    while len(found) < count:
        policy = Policy(keep_ratio={name: float(random.choice(RATIOS)) for name in groups})
        macs = sum(step.kernel.macs * step.times for step in plan.steps(policy))
        if MACS[0] <= macs / network.macs <= MACS[1]:
            found.append(policy)
    return found


def accuracy(program: Program, images: Images) -> float:
    return float((Executor(program).run(images.pixels).argmax(1) == images.labels).mean())


def report(epochs: float, top_epochs: float, records: Sequence[Record], folder: Path) -> None:
    tried = [record for record in records if "after" in record]
    known = {record["policy"]: record for record in tried}
    top = [(known[record["policy"]], record["top"]) for record in records if "top" in record]
    before, error, after = (np.array([record[key] for record in tried]) for key in ("before", "logit_error", "after"))
    print(f"{len(tried)} policies; accuracy before {spread(before)}, after {told(epochs)} {spread(after)}")
    half = before >= np.median(before)
    for name, signal in (("accuracy", before), ("-log of the logit error", -np.log(error))):
        for part, chosen in (("all", np.full(len(before), True)), ("top half by accuracy before", half)):
            print(f"{name:24s} {part:28s} {correlation(signal[chosen], after[chosen])}")
    if top:
        first = np.array([record["after"] for record, _ in top])
        later = np.array([value for _, value in top])
        print(f"the top {len(top)} after {told(top_epochs)}: {spread(later)}")
        print(f"{'accuracy after ' + told(epochs):24s} {'these':28s} {correlation(first, later)}")
    draw(epochs, top_epochs, before, error, after, top, folder)


def told(epochs: float) -> str:
    return f"{epochs:g} epoch{'s' * (epochs != 1)}"


def spread(values: NDArray[np.float64]) -> str:
    return f"{values.min():.4f} to {values.max():.4f}, median {np.median(values):.4f}"


def correlation(signal: NDArray[np.float64], outcome: NDArray[np.float64]) -> str:
    return f"Pearson {pearsonr(signal, outcome)[0]:+.3f}  Kendall {kendalltau(signal, outcome)[0]:+.3f}"


def draw(
    epochs: float,
    top_epochs: float,
    before: NDArray[np.float64],
    error: NDArray[np.float64],
    after: NDArray[np.float64],
    top: Sequence[tuple[Record, float]],
    folder: Path,
) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for axis, signal, key in ((axes[0], 100 * before, "before"), (axes[1], error, "logit_error")):
        axis.scatter(signal, 100 * after, s=14, label=f"after {told(epochs)}")
        if top:
            places = [100 * record[key] if key == "before" else record[key] for record, _ in top]
            later = [100 * value for _, value in top]
            axis.scatter(places, later, s=18, marker="^", label=f"the best ten after {told(top_epochs)}")
    axes[0].set(xlabel="accuracy before fine-tuning (%)", ylabel="accuracy after fine-tuning (%)")
    axes[1].set(xlabel="mean squared error of the logits before fine-tuning")
    axes[0].legend()
    figure.savefig(folder / "correlation.png", dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
