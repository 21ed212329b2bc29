"""What it takes to price policies, to find the cheapest one, and to make the staircases of a search space.

    python tests/benchmarks/pricing.py TABLE.csv [--networks resnet20 ...] [--spaces joint staircase]

Processor time of one core: the least of several repeats, after a first batch that prices each layer's choices once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from automc.catalog import find
from automc.cost.model import CostModel
from automc.cost.table import read_table
from automc.environment.factors import Factors
from automc.environment.space import SearchSpace
from automc.network.trace import trace
from automc.network.zoo import build_network, zoo
from automc.reading import read_spec
from automc.schema import SearchSpaceSpec

POLICIES, ALONE, REPEATS = 10_000, 2_000, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--networks", nargs="+", default=["resnet20"])
    parser.add_argument("--spaces", nargs="+", default=["joint", "staircase"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = read_table(options.table)
    print("| network | space | space made | 10,000 policies, first | then | one, by choices | by policy | cheapest |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.networks:
        entry = zoo()[name]
        channels = entry.shape[0]
        module = build_network(name, entry.classes, channels)
        network = trace(module, entry.shape, (0.5,) * channels, (0.5,) * channels, name)
        for asked in options.spaces:
            spec = read_spec(SearchSpaceSpec, find("search_spaces", asked))
            print(row(name, asked, CostModel(network, table), spec), flush=True)


def row(name: str, asked: str, model: CostModel, spec: SearchSpaceSpec) -> str:
    """One line of the table."""
    made = seconds(lambda: SearchSpace(model.network, spec, latency=lambda policy: model.cost(policy).latency_ms))
    space = SearchSpace(model.network, spec, latency=lambda policy: model.cost(policy).latency_ms)
    factors = Factors(space, model)
    sizes = np.array([len(decision.choices) for decision in space.decisions])
    choices = np.random.default_rng(0).integers(0, sizes, (POLICIES, len(sizes)))
    first = seconds(lambda: factors.costs(choices))
    batch = min(seconds(lambda: factors.costs(choices)) for _ in range(REPEATS))
    alone = [tuple(each) for each in choices[:ALONE].tolist()]
    policies = [space.policy(each) for each in alone]
    one = min(seconds(lambda: [factors.cost(each) for each in alone]) for _ in range(REPEATS)) / ALONE
    by_policy = min(seconds(lambda: [model.cost(policy) for policy in policies]) for _ in range(REPEATS)) / ALONE
    cheapest = seconds(lambda: factors.cheapest([1, 0, 0, 0]))
    return (
        f"| {name} | {asked} | {made:.2f} s | {first:.3f} s | {batch:.3f} s | {one * 1e6:.0f} us "
        f"| {by_policy * 1e6:.0f} us | {cheapest:.2f} s |"
    )


def seconds(work: Callable[[], object]) -> float:
    """Of the processor."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
