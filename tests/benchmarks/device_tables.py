"""Makes the tables of `latency_tables/` for processors that are not here: simulated, never measured.

All kernels of ResNet-20's joint space, see `automc.cost.simulate`. Needs llvm-mca 19 (apt-get install llvm-19) and QEMU
(apt-get install qemu-user). A table that is not finished is gone on with.
Run: python -m tests.benchmarks.device_tables [CORE ...]
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from automc import catalog
from automc.cost.measure import begun
from automc.cost.probes import probes_of
from automc.cost.sampling import kernels_to_measure
from automc.cost.simulate import CORES, empty_simulation, simulate
from automc.cost.table import write_table
from automc.network.trace import trace
from automc.network.zoo import build_network
from automc.reading import read_spec
from automc.schema import SearchSpaceSpec

KERNELS_A_PROBE, PROBES_A_BATCH = 6, 6


def main(names: list[str]) -> None:
    space = read_spec(SearchSpaceSpec, catalog.find("search_spaces", "joint"))
    network = trace(build_network("resnet20", 10, 3), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, "resnet20")
    kernels = kernels_to_measure([(network, space)])
    for name in names or CORES:
        core = CORES[name]
        path = catalog.own_folder() / "latency_tables" / f"{name}.csv"
        empty = empty_simulation(core)
        table = replace(empty, rows=begun(path, empty).rows)
        missing = [kernel for kernel in kernels if kernel not in table.by_kernel]
        probes = probes_of(missing, KERNELS_A_PROBE)
        for start in range(0, len(probes), PROBES_A_BATCH):
            with tempfile.TemporaryDirectory() as folder:
                rows = simulate(probes[start : start + PROBES_A_BATCH], core, Path(folder))
            table = table.extended(rows)
            write_table(table, path)
            print(f"{name}: {len(table.rows)} of about {len(kernels)} kernels", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
