"""Which kernels are timed, the programs that time them, and one small table measured for real."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from automc.choices import Choice, Codebook, Gated, LowRank, Sparse, Uniform
from automc.compiler.targets import host_target
from automc.compression.interpreter import interpret
from automc.compression.operations import Convolve, Dequantise
from automc.compression.policy import Policy, unfit
from automc.cost.device import host_table, measure_host, open_device
from automc.cost.kernels import Kernel
from automc.cost.measure import Need, empty_for, fill, measure, random_policy
from automc.cost.model import CostModel
from automc.cost.probes import Probe, probes_of, random_program
from automc.cost.recognise import kernel_of
from automc.cost.sampling import kernels_to_measure
from automc.cost.table import LatencyTable, Row, read_table, write_table
from automc.errors import NameNotFound, TableError
from automc.files import locked
from automc.network.graph import Network
from automc.schema import SearchSpaceSpec
from tests.cost_examples import kernels_of, residual_network, splitting_network
from tests.networks import TINY_NETWORKS, TinyDepthwise, TinyPlain, traced

ONE_POINT = SearchSpaceSpec(description="nothing but 8 bits")
SPACE = SearchSpaceSpec(
    description="a small joint space", keep_ratio=[0.5, 1.0], weight_bits=[4, 8], activation_bits=[4, 7, 8]
)
KERNELS = [
    Kernel("quantise", 8, 8, 3, 3),
    Kernel("convolve", 8, 8, 3, 12, 3, 3, 1, 1, 4, 8),
    Kernel("convolve", 8, 8, 12, 12, 3, 3, 1, 1, 8, 8, True),
    Kernel("convolve", 4, 4, 12, 20, 3, 3, 2, 2, 2, 5),
    Kernel("convolve", 4, 4, 12, 20, 1, 1, 2, 2, 6, 7),
    Kernel("convolve", 1, 1, 6, 10, 4, 4, 1, 1, 8, 8),
    Kernel("convolve", 5, 3, 6, 10, 4, 2, 1, 1, 8, 8),
    Kernel("convolve", 4, 4, 16, 32, 3, 3, 1, 1, 8, 8, False, "codebook"),
    Kernel("convolve", 4, 4, 16, 32, 3, 3, 1, 1, 8, 8, False, "sparse", 10),
    Kernel("convolve", 4, 4, 16, 32, 3, 3, 1, 1, 4, 8, False, "sparse", 90),
    Kernel("convolve", 4, 4, 16, 32, 3, 3, 1, 1, 8, 8, True, "blocks", 25),
    Kernel("convolve", 6, 6, 5, 12, 3, 3, 1, 2, 8, 8, dilation_height=2, dilation_width=3),
    Kernel("depthwise", 4, 4, 9, 9, 3, 3, 2, 2, 8, 8),
    Kernel("depthwise", 4, 4, 9, 9, 3, 3, 1, 1, 8, 8, dilation_height=2),
    Kernel("sum", 8, 8, 12, 12),
    Kernel("join", 8, 8, 13, 13),
    Kernel("select", 4, 4, 6, 12, 1, 1, 2, 2),
    Kernel("pool_mean", 1, 1, 12, 12, 8, 8, 8, 8),
    Kernel("pool_max", 4, 4, 12, 12, 3, 3, 2, 2),
    Kernel("lookup", 8, 8, 12, 12),
    Kernel("scale", 8, 8, 13, 13),
    Kernel("shuffle", 8, 8, 12, 3, 2, 2),
    Kernel("rank", 1, 1, 12, 12),
    Kernel("dequantise", 8, 8, 3, 3),
    Kernel("dequantise", 8, 8, 13, 13),
]

METHODS = (
    Codebook(entries=4),
    Sparse(density=0.5),
    Sparse(density=0.5, pattern="blocks"),
    LowRank(rank_ratio=0.5),
    Gated(active_ratio=0.5),
)


def test_probes_hold_every_kernel_in_its_shape() -> None:
    probes = probes_of(KERNELS, most=3)
    known = {kernel for probe in probes for kernel in probe.kernels.values()}
    assert known == {*KERNELS, *(kernel._replace(residual=False) for kernel in KERNELS)}
    for probe in probes:
        assert len(probe.kernels) <= 4
        for operation in probe.program.operations:
            if operation.target not in probe.kernels:
                continue
            kernel = probe.kernels[operation.target]
            if isinstance(operation, Dequantise):
                assert probe.program.outputs == kernel.outputs * kernel.height * kernel.width
                continue
            tensor = probe.program.tensors[operation.target]
            assert tensor.shape == (kernel.outputs, kernel.height, kernel.width)
            if isinstance(operation, Convolve):
                assert operation.weight.size == kernel.weights
                assert operation.weight_bits == kernel.weight_bits
                assert abs(kernel_of(operation, probe.program).density_percent - kernel.density_percent) <= 10
                assert operation.dilation == (kernel.dilation_height, kernel.dilation_width)
                assert probe.program.tensors[operation.source].bits == kernel.activation_bits
                assert (operation.residual is not None) == kernel.residual


def test_the_grid_holds_its_ends_and_every_count_of_vectors() -> None:
    space = SearchSpaceSpec(
        description="", keep_ratio=[0.25, 0.5, 0.75, 1.0], weight_bits=[4, 8], activation_bits=[4, 8]
    )
    chosen = kernels_to_measure([(residual_network(), space)])
    inner = [
        kernel for kernel in chosen if (kernel.height, kernel.stride_height, kernel.operation) == (4, 1, "convolve")
    ]
    plain = [kernel for kernel in inner if not kernel.residual]
    assert {(kernel.weight_bits, kernel.activation_bits) for kernel in plain} == {(4, 4), (4, 8), (8, 4), (8, 8)}
    slowest = {(kernel.inputs, kernel.outputs) for kernel in plain if kernel.activation_bits == kernel.weight_bits == 8}
    assert slowest == {(inputs, outputs) for inputs in (4, 12, 16) for outputs in (8, 16)}
    added = {(kernel.inputs, kernel.outputs) for kernel in inner if kernel.residual}
    assert added == {(4, 8), (4, 16), (16, 16)}  # the last is the dense network's own


def test_a_space_without_choices_needs_exactly_the_networks_kernels() -> None:
    network = splitting_network()
    assert set(kernels_to_measure([(network, ONE_POINT)])) == set(kernels_of(network, Policy()))


@pytest.mark.parametrize("module", TINY_NETWORKS)
def test_a_random_program_calls_the_kernels_that_its_policy_names(module: type) -> None:
    network = traced(module())
    policy = random_policy(network, SPACE, np.random.default_rng(0))
    program = random_program(network, policy, seed=0)
    convolutions = [operation for operation in program.operations if isinstance(operation, Convolve)]
    weighted = [kernel for kernel in kernels_of(network, policy) if kernel.weight_bits]
    assert [operation.weight.size for operation in convolutions] == [kernel.weights for kernel in weighted]
    assert [operation.weight_bits for operation in convolutions] == [kernel.weight_bits for kernel in weighted]
    bits = [program.tensors[operation.source].bits for operation in convolutions]
    assert bits == [kernel.activation_bits for kernel in weighted]
    assert program.macs == sum(kernel.macs for kernel in weighted)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
    assert np.isfinite(interpret(program, pixels)).all()


@pytest.mark.parametrize("choice", METHODS, ids=str)
def test_a_random_program_calls_the_kernels_of_every_method(choice: Choice) -> None:
    network = traced(TinyPlain())
    layers = [layer.name for layer in network.convs if unfit(choice, layer.name, network) is None]
    policy = Policy(weights=dict.fromkeys(layers, choice))
    program = random_program(network, policy, seed=0)
    convolutions = [operation for operation in program.operations if isinstance(operation, Convolve)]
    weighted = [kernel for kernel in kernels_of(network, policy) if kernel.weight_bits]
    assert [operation.weight.size for operation in convolutions] == [kernel.weights for kernel in weighted]
    assert [operation.encoding for operation in convolutions] == [kernel.encoding for kernel in weighted]
    assert len(program.operations) == len(kernels_of(network, policy))


@pytest.fixture(scope="module")
def network() -> Network:
    return traced(TinyDepthwise())


@pytest.fixture(scope="module")
def table_file(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("measured") / "here.csv"
    measure([(network, ONE_POINT)], host_target(), path, lambda line: None)
    return path


def test_a_measured_table_prices_the_network_without_interpolation(network: Network, table_file: Path) -> None:
    table = read_table(table_file)
    cost = CostModel(network, table).cost(Policy())
    assert cost.interpolated == ()
    assert cost.source == "measured"
    assert cost.latency_ms == pytest.approx(
        table.header.overhead_ms + sum(table.by_kernel[kernel].latency_ms for kernel in kernels_of(network, Policy()))
    )
    assert cost.energy_mj is not None
    fewer = Policy(weights={layer.name: Uniform(weight_bits=4) for layer in network.convs})
    assert CostModel(network, table).cost(fewer).interpolated == tuple(layer.name for layer in network.convs)


def test_measuring_again_keeps_what_is_known_and_adds_what_is_missing(network: Network, table_file: Path) -> None:
    whole = read_table(table_file)
    assert measure([(network, ONE_POINT)], host_target(), table_file, lambda line: None).rows == whole.rows
    lost = next(row for row in whole.rows if row.kernel.operation == "pool_mean")
    write_table(replace(whole, rows=tuple(row for row in whole.rows if row is not lost)), table_file)
    lines: list[str] = []
    again = measure([(network, ONE_POINT)], host_target(), table_file, lines.append)
    assert again.by_kernel.keys() == whole.by_kernel.keys()
    assert "1 kernels to time" in lines[0]
    kept = {row.kernel: row.latency_ms / again.header.reference_ms for row in again.rows if row.kernel != lost.kernel}
    before = {row.kernel: row.latency_ms / whole.header.reference_ms for row in whole.rows if row is not lost}
    assert kept == pytest.approx(before, rel=1e-4)


class DoubtingTimer:
    """Times every kernel at 1 ms, and later one of them at 2."""

    def __init__(self) -> None:
        self.asked: list[set[Kernel]] = []

    def rows(self, probes: Sequence[Probe], folder: Path) -> Iterator[list[Row]]:
        self.asked.append({kernel for probe in probes for kernel in probe.kernels.values()})
        latency_ms = 1.0 if len(self.asked) == 1 else 2.0
        doubted = self.asked[-1] if len(self.asked) == 1 else self.doubtful()
        yield [Row(kernel, latency_ms, 0.0, 20, "measured") for kernel in sorted(doubted)]

    def added(self, table: LatencyTable, rows: Sequence[Row]) -> LatencyTable:
        return table.extended(rows)

    def doubtful(self) -> list[Kernel]:
        return [min(self.asked[0])]

    def overhead_ms(self, needs: Sequence[Need], table: LatencyTable, folder: Path) -> float:
        return float(len(self.asked))


def test_kernels_of_bad_moments_are_timed_again(network: Network, tmp_path: Path) -> None:
    timer = DoubtingTimer()
    lines: list[str] = []
    path = tmp_path / "here.csv"
    table = fill(
        empty_for("here", "a processor", "portable"), [(network, ONE_POINT)], path, lambda: timer, lines.append, 60
    )
    assert len(timer.asked) == 2
    assert {row.kernel for row in table.rows if row.latency_ms == 2.0} == {*timer.doubtful()}
    assert read_table(path).sha256 == table.sha256
    assert table.header.overhead_ms == 2.0
    assert "here: 1 kernels were timed while the machine was busy; they are timed again" in lines


def test_a_table_of_another_machine_is_not_extended(network: Network, table_file: Path, tmp_path: Path) -> None:
    table = read_table(table_file)
    write_table(replace(table, header=replace(table.header, cpu="another processor")), tmp_path / "other.csv")
    with pytest.raises(TableError, match=r"was made with another cpu \(another processor\)"):
        measure([(network, SPACE)], host_target(), tmp_path / "other.csv", lambda line: None)


def test_the_host_is_measured_once(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = [(splitting_network(), ONE_POINT)]
    monkeypatch.setattr("automc.cost.device.cache_directory", lambda: tmp_path)
    lines: list[str] = []
    with pytest.raises(TableError, match="holds no table of this machine"):
        open_device("host", needs, lines.append, may_measure=False)
    assert lines == []
    table = open_device("host", needs, lines.append)
    assert lines
    assert host_table(host_target(), needs).exists()
    assert host_table(host_target(), needs) != host_table(host_target(), [(network, ONE_POINT)])
    lines.clear()
    assert open_device("host", needs, lines.append, may_measure=False).sha256 == table.sha256
    assert lines == []


def test_two_processes_share_one_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second waits, and takes the table of the first."""
    monkeypatch.setattr("automc.cost.device.cache_directory", lambda: tmp_path)
    monkeypatch.setattr("automc.cost.device.measure", lambda *arguments: pytest.fail("measured twice"))
    needs = [(splitting_network(), ONE_POINT)]
    path = host_table(host_target(), needs)
    lines: list[str] = []
    first = threading.Event()

    def hold() -> None:
        with locked(path.parent / "unfinished" / f"{path.stem}.lock", lambda: None):
            first.set()
            while not lines:
                time.sleep(0.001)
            path.write_text("the table of the first")

    other = threading.Thread(target=hold)
    other.start()
    first.wait()
    assert measure_host(host_target(), needs, lines.append).read_text() == "the table of the first"
    other.join()
    assert "another process" in lines[0]


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NameNotFound, match=r"no 'hosst' in latency_tables/"):
        open_device("hosst", [], print)
