"""The program for a device: it checks the network there, and what it prints is a table of the network's kernels."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
from torch import nn

from automc.compiler.artifact import compile_program
from automc.compiler.sizes import program_bytes
from automc.compiler.targets import host_target
from automc.compression.operations import Convolve
from automc.compression.policy import Policy
from automc.compression.program import Program
from automc.cost.bench import build_bench, kernels_of_program
from automc.cost.bench_source import Timed, bench_source
from automc.cost.kernels import KernelPlan
from automc.cost.model import CostModel
from automc.cost.probes import random_program
from automc.cost.recognise import kernel_of
from automc.cost.table import empty_table, parse_table, read_table
from automc.network.graph import Network
from tests.cost_examples import kernels_of, table_for
from tests.networks import TINY_NETWORKS, Custom, TinyResidual, head, parts, traced
from tests.shapes import Grouped

NETWORK = traced(TinyResidual())


@pytest.fixture(scope="module")
def program() -> Program:
    return random_program(NETWORK, Policy(), seed=0)


def run_bench(program: Program, built: Program, folder: Path, load: float = 0.0) -> subprocess.CompletedProcess[str]:
    """What the bench of `built` does that expects the results of `program`."""
    artifact = compile_program(built, host_target(), folder / "library")
    program.save(folder / "library" / "program.safetensors")
    build_bench(artifact, "board", "a processor", folder / "bench", load)
    return subprocess.run([folder / "bench"], capture_output=True, text=True, timeout=120, check=False)


def test_what_it_prints_prices_the_network(program: Program, tmp_path: Path) -> None:
    done = run_bench(program, program, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "board.csv").write_text(done.stdout)
    table = read_table(tmp_path / "board.csv")
    assert (table.header.device, table.header.cpu, table.header.target) == ("board", "a processor", host_target())
    assert {row.kernel for row in table.rows} == {step.kernel for step in KernelPlan(NETWORK).steps(Policy())}
    assert all(row.latency_ms > 0 and row.count > 1 for row in table.rows)
    assert CostModel(NETWORK, table).cost(Policy()).interpolated == ()


def test_the_load_for_a_power_meter_is_told_beside_the_table(program: Program, tmp_path: Path) -> None:
    done = run_bench(program, program, tmp_path, load=0.05)
    told = re.fullmatch(r"load: (\d+) inferences in (\d+\.\d{9}) seconds\n", done.stderr)
    assert told
    assert int(told[1]) > 1
    assert float(told[2]) >= 0.05
    assert parse_table(done.stdout, "printed").rows


def test_the_groups_of_a_convolution_share_its_time() -> None:
    grouped = random_program(traced(Grouped()), Policy(), seed=0)
    kernels = kernels_of_program(grouped)
    table = empty_table("board", "a processor", "portable", "a compiler", (), "")
    source = bench_source({"model": Timed(grouped, 1 << 20, kernels)}, table, whole=True)
    timed = re.search(r"first\[KERNELS\]\[3\] = \{(.*)\};", source)
    whole = re.search(r"kernel_of\[\]\[2\] = \{(.*)\};", source)
    assert timed
    assert whole
    groups = [each.groups if isinstance(each, Convolve) and not each.is_depthwise else 1 for each in grouped.operations]
    assert {1, 2, 3} == set(groups)
    for _, position, calls in re.findall(r"\{(\d+), (\d+), (\d+)\}", timed[1]):
        assert int(calls) == groups[int(position)]
    assert [int(calls) for _, calls in re.findall(r"\{(\d+), (\d+)\}", whole[1])] == groups


def test_another_result_is_found_out(program: Program, tmp_path: Path) -> None:
    last = program.operations[-1]
    assert isinstance(last, Convolve)
    other = Program(program.name, program.tensors, (*program.operations[:-1], _with_another_bias(last)))
    done = run_bench(program, other, tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "results differ" in done.stderr


def _dilated() -> nn.Module:
    """A convolution of fewer channels than a step has, whose window has gaps."""
    layers = parts(6, dilated=nn.Conv2d(8, 6, 3, padding=(2, 1), dilation=(2, 3)))
    return Custom(layers, lambda self, x: head(self, F.relu(self.dilated(F.relu(self.stem(x))))))


@pytest.mark.parametrize("module", [*TINY_NETWORKS, Grouped, _dilated])
@pytest.mark.parametrize("ratio", [0.5, 0.01])
def test_a_program_calls_the_kernels_that_the_plan_says(module: Callable[[], nn.Module], ratio: float) -> None:
    network: Network = traced(module())
    policy = Policy(keep_ratio={group.name: ratio for group in network.groups if group.prunable})
    program = random_program(network, policy, seed=0)
    planned = [step.kernel for step in KernelPlan(network).steps(policy)]
    assert [kernel_of(operation, program) for operation in program.operations] == planned
    table = table_for(dict.fromkeys((*planned, *kernels_of(network, Policy())), 1.0))
    cost = CostModel(network, table).cost(policy)
    assert cost.size_bytes == sum(program_bytes(program).values())
    assert cost.interpolated == ()


def _with_another_bias(last: Convolve) -> Convolve:
    from dataclasses import replace

    return replace(last, bias=last.bias + np.int32(1))
