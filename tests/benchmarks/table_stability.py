"""How much two latency tables of one machine, measured at different times, differ.

    python tests/benchmarks/table_stability.py FIRST.csv SECOND.csv

Each table is measured by `automc measure --out`, or by `table_error.py`. Prints the median and the 95th percentile of
how much the latency of a kernel that both know differs, and the kernels that differ most.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from automc.cost.table import read_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--worst", type=int, default=5)
    options = parser.parse_args()

    first, second = read_table(options.first), read_table(options.second)
    both = [kernel for kernel in first.by_kernel if kernel in second.by_kernel]
    ratios = np.array([second.by_kernel[kernel].latency_ms / first.by_kernel[kernel].latency_ms for kernel in both])
    apart = np.abs(ratios - 1)
    scaled = np.abs(ratios / np.median(ratios) - 1)
    print(
        f"{len(both)} kernels; reference {first.header.reference_ms * 1e3:.4f} and "
        f"{second.header.reference_ms * 1e3:.4f} us; they differ by {100 * np.median(apart):.1f} % in the median, "
        f"{100 * np.quantile(apart, 0.95):.1f} % at the 95th percentile; with the references made equal, by "
        f"{100 * np.median(scaled):.1f} and {100 * np.quantile(scaled, 0.95):.1f} %"
    )
    for place in np.argsort(-apart)[: options.worst]:
        row = first.by_kernel[both[place]]
        print(f"  {ratios[place]:.3f} of {row.latency_ms * 1e3:.3f} us: {both[place]}")


if __name__ == "__main__":
    main()
