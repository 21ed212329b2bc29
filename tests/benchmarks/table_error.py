"""How far a latency table's predictions are from whole libraries timed on this machine.

    python tests/benchmarks/table_error.py resnet20 latency_tables/NAME.csv [--policies 30]

Random joint policies are drawn, compiled whole with random weights (their bounds decide the instructions as trained
weights' do), and timed interleaved with the reference kernel, as the table's rows were. Prints a line a policy, then
the mean absolute percentage error, the share within 10 %, and Kendall's tau.

Both sides are multiples of one reference time, so a wrong reference would not show here.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau

from automc.catalog import find
from automc.compiler.artifact import compile_batch
from automc.cost.measure import random_policy
from automc.cost.model import CostModel
from automc.cost.probes import random_program
from automc.cost.table import read_table
from automc.cost.timing import Reference
from automc.network.trace import trace
from automc.network.zoo import build_network
from automc.schema import SearchSpaceSpec, read_spec

SHAPES = {"resnet8": (1, 8, 8)}  # of the images; 3 x 32 x 32 for the others


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("table", type=Path)
    parser.add_argument("--space", default="joint")
    parser.add_argument("--policies", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    torch.set_num_threads(1)
    shape = SHAPES.get(options.network, (3, 32, 32))
    module = build_network(options.network, 10, shape[0])
    network = trace(module, shape, (0.5,) * shape[0], (0.5,) * shape[0], options.network)
    table = read_table(options.table)
    model = CostModel(network, table)
    random = np.random.default_rng(options.seed)
    space = read_spec(SearchSpaceSpec, find("search_spaces", options.space))
    policies = [random_policy(network, space, random) for _ in range(options.policies)]

    pairs = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        reference = Reference(table.header.target, folder / "reference", table.header.reference_ms)
        for number, policy in enumerate(policies):
            program = random_program(network, policy, seed=options.seed)
            (library,) = compile_batch([program], table.header.target, folder / str(number))
            measured = reference.time_whole(library).ratio * reference.floor_ms
            cost = model.cost(policy)
            pairs.append((cost.latency_ms, measured))
            error = 100 * (cost.latency_ms / measured - 1)
            print(
                f"{number:3d}  predicted {cost.latency_ms * 1e3:7.1f} us  measured {measured * 1e3:7.1f} us  "
                f"{error:+5.1f} %  {len(cost.interpolated)} layers interpolated",
                flush=True,
            )
    predicted, measured_all = np.transpose(pairs)
    errors = np.abs(predicted / measured_all - 1)
    print(
        f"{options.network}, {len(pairs)} policies: mean absolute percentage error {100 * errors.mean():.1f} %, "
        f"within 10 %: {100 * (errors <= 0.1).mean():.0f} %, "
        f"Kendall tau {kendalltau(predicted, measured_all).statistic:.3f}"
    )


if __name__ == "__main__":
    main()
