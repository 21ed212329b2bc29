"""How far a latency table's predictions are from whole libraries timed on this machine.

    python tests/benchmarks/table_error.py FOLDER [--networks resnet20 ...] [--targets avx2 ...] [--policies 60]

For each network and target: a table is measured into FOLDER, as `automc measure` does it; random joint policies are
drawn, compiled whole with random weights (their bounds decide the instructions as trained weights' do), and timed
interleaved with the reference kernel, as the table's rows were. A killed run goes on where it was. Prints the mean
absolute percentage error, the share within 10 %, and Kendall's tau, and draws `table_error.png` beside this script.

Two populations are drawn. Where each layer is drawn by itself, networks of many layers all take about the same time,
and their order is that of small differences. Where the layers of a network are alike, as under the budgets of a search,
latencies spread as in a search.

Both sides are multiples of one reference time, so a wrong reference would not show here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau

from automc.catalog import find
from automc.compiler.artifact import compile_batch
from automc.compression.policy import Policy
from automc.cost.measure import measure, random_policy
from automc.cost.model import CostModel
from automc.cost.probes import random_program
from automc.cost.table import LatencyTable
from automc.cost.timing import Reference
from automc.files import write_atomic
from automc.network.graph import Network
from automc.network.trace import trace
from automc.network.zoo import build_network, zoo
from automc.reading import read_spec
from automc.schema import SearchSpaceSpec

FIGURE = Path(__file__).with_suffix(".png")
BATCH = 5  # policies that are compiled together
POPULATIONS = ("independent", "alike")


class Study(NamedTuple):
    """Predicted and measured microseconds of each policy, and how many of its layers were interpolated."""

    network: str
    target: str
    population: str
    predicted_us: NDArray[np.float64]
    measured_us: NDArray[np.float64]
    interpolated: NDArray[np.float64]

    def __str__(self) -> str:
        errors = np.abs(self.predicted_us / self.measured_us - 1)
        return (
            f"| {self.network} | {self.target} | {self.population} "
            f"| {self.measured_us.min():.1f} to {self.measured_us.max():.1f} us "
            f"| {100 * errors.mean():.1f} % | {100 * (errors <= 0.1).mean():.0f} % "
            f"| {kendalltau(self.predicted_us, self.measured_us).statistic:.3f} "
            f"| {100 * float(np.median(self.predicted_us / self.measured_us) - 1):+.1f} % "
            f"| {self.interpolated.mean():.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "ds_cnn", "mobilenetv2_050"])
    parser.add_argument("--targets", nargs="+", default=["avx2", "avx512vnni"])
    parser.add_argument("--space", default="joint")
    parser.add_argument("--policies", type=int, default=60)
    parser.add_argument("--populations", nargs="+", choices=POPULATIONS, default=POPULATIONS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    space = read_spec(SearchSpaceSpec, find("search_spaces", options.space))
    studies = []
    for name in options.networks:
        network = of_zoo(name)
        for target in options.targets:
            stem = options.folder / f"{name}_{target}"
            started = time.monotonic()
            table = measure([(network, space)], target, stem.with_suffix(".csv"), partial(print, flush=True), 3600)
            print(f"{stem.name}: the table took {time.monotonic() - started:.0f} s", flush=True)
            for population in options.populations:
                random = np.random.default_rng(options.seed)
                alike = population == "alike"
                policies = [random_policy(network, space, random, alike) for _ in range(options.policies)]
                rows = options.folder / f"{stem.name}_{population}.jsonl"
                time_policies(network, policies, table, rows, options.seed)
                studies.append(compared(network, policies, table, rows, population))
    print(
        "| network | target | layers | range | mean absolute error | within 10 % | Kendall tau | median error "
        "| interpolated |"
    )
    for study in studies:
        print(study)
    draw(studies)


def of_zoo(name: str) -> Network:
    """A network of the zoo with fresh weights, which no latency depends on."""
    entry = zoo()[name]
    channels = entry.shape[0]
    module = build_network(name, entry.classes, channels)
    return trace(module, entry.shape, (0.5,) * channels, (0.5,) * channels, name)


def time_policies(network: Network, policies: list[Policy], table: LatencyTable, rows: Path, seed: int) -> None:
    """Append to `rows` what each policy that is not there yet takes, as a multiple of the reference kernel's time."""
    count = len(policies)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        reference = Reference(table.header.target, folder / "reference", table.header.reference_ms)
        for start in range(len(measured_ratios(rows)), count, BATCH):
            batch = [random_program(network, policy, seed) for policy in policies[start : start + BATCH]]
            libraries = compile_batch(batch, table.header.target, folder / str(start))
            timings = [asdict(reference.time_whole(library)) for library in libraries]
            known = rows.read_text() if rows.exists() else ""
            write_atomic(rows, known + "".join(json.dumps(timing) + "\n" for timing in timings))
            print(f"{rows.stem}: {start + len(batch)}/{count}", flush=True)


def measured_ratios(rows: Path) -> list[float]:
    """What `rows` knows, in the order of the policies."""
    return [json.loads(line)["ratio"] for line in rows.read_text().splitlines()] if rows.exists() else []


def compared(network: Network, policies: list[Policy], table: LatencyTable, rows: Path, population: str) -> Study:
    """The timed policies beside what `table` predicts for them."""
    model = CostModel(network, table)
    costs = [model.cost(policy) for policy in policies]
    return Study(
        network.name,
        table.header.target,
        population,
        1e3 * np.array([cost.latency_ms for cost in costs]),
        1e3 * table.header.reference_ms * np.array(measured_ratios(rows)[: len(policies)]),
        np.array([len(cost.interpolated) for cost in costs], np.float64),
    )


def draw(studies: list[Study]) -> None:
    """One scatter plot a network and target, with the band of 10 % around equality."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    places = list(dict.fromkeys((study.network, study.target) for study in studies))
    columns = len({target for _, target in places})
    rows = -(-len(places) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4 * columns, 10 / 3 * rows), squeeze=False)
    for (network, target), place in zip(places, axes.flat, strict=False):
        here = [study for study in studies if (study.network, study.target) == (network, target)]
        measured = np.concatenate([study.measured_us for study in here])
        ends = np.array([measured.min(), measured.max()])
        place.fill_between(ends, 0.9 * ends, 1.1 * ends, color="0.9", label="within 10 %")
        place.plot(ends, ends, color="0.6", linewidth=1)
        for study in here:
            place.scatter(study.measured_us, study.predicted_us, s=12, label=f"layers {study.population}")
        place.set(title=f"{network}, {target}", xlabel="measured, us", ylabel="predicted, us")
        place.legend()
    figure.tight_layout()
    figure.savefig(FIGURE, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
