"""Tables of processors that are not here: brackets from counts and models, and what is said about them."""

import shutil
from pathlib import Path

import pytest

from automc import catalog
from automc.compression.policy import Policy
from automc.cost import simulate as simulation
from automc.cost.kernels import Kernel
from automc.cost.model import CostModel
from automc.cost.probes import probes_of
from automc.cost.simulate import CORES, MCA, Core, simulate
from automc.cost.table import read_table
from automc.errors import CompileError
from automc.network.trace import trace
from automc.network.zoo import build_network

SMALL, LARGE = Kernel("convolve", 8, 8, 8, 8, 3, 3, 1, 1, 8, 8), Kernel("convolve", 16, 16, 8, 8, 3, 3, 1, 1, 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize("core", CORES.values(), ids=lambda core: core.name)
def test_brackets_hold_and_grow_with_the_work(core: Core, tmp_path: Path) -> None:
    for tool in (MCA, core.machine.emulator):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    rows = {row.kernel: row for row in simulate(probes_of([SMALL, LARGE], 2), core, tmp_path)}
    assert {row.source for row in rows.values()} == {"simulated"}
    for row in rows.values():
        assert 0 < row.spread_ms < 2 * row.latency_ms  # the lower end is above zero
    assert 3 < rows[LARGE].latency_ms / rows[SMALL].latency_ms < 5  # four times the pixels


def test_without_llvm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(simulation.shutil, "which", lambda tool: None)
    with pytest.raises(CompileError, match="llvm-mca-19 is not installed: apt-get install llvm-19"):
        simulate(probes_of([SMALL], 1), CORES["cortex_a76"], tmp_path)


@pytest.mark.parametrize("name", CORES)
def test_a_shipped_table_says_that_it_is_simulated_and_prices_resnet20(name: str) -> None:
    table = read_table(catalog.find("latency_tables", name))
    assert {row.source for row in table.rows} == {"simulated"}
    assert "simulated" in table.header.cpu
    assert table.header.notes.startswith("simulated, not measured")
    network = trace(build_network("resnet20", 10, 3), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, "resnet20")
    cost = CostModel(network, table).cost(Policy())
    assert cost.source == "simulated"
    assert cost.interpolated == ()
