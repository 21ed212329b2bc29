"""How fast each operation is said to be: by rows, between rows, where a table knows nothing, and measured."""

import dataclasses

import numpy as np
import pytest

from automc.commands.artifacts import compile_command
from automc.compiler.artifact import compile_batch
from automc.compiler.targets import host_target
from automc.cost.rates import Rate, rates, table_for
from automc.cost.recognise import kernel_of
from automc.cost.table import Row, empty_table
from tests.programs import Builder


@pytest.fixture
def program():
    builder = Builder(np.random.default_rng(0), (3, 8, 8))
    inner = builder.convolve(builder.input, 16)
    return builder.finish(builder.pool(builder.convolve(inner, 16), "max", (2, 2)))


def test_a_table_estimates_what_it_knows_of(program):
    known = kernel_of(program.operations[2], program)
    table = empty_table("device", "cpu", "portable", "zig", (), "").extended([Row(known, 0.5, 0.0, 9, "measured")])
    quantised, first, second, pooled, logits = rates(program, table, None)
    assert second == Rate(16 * 16 * 9 * 64, 0.5, False, None)
    assert str(second) == "in the table 500.0 us (0.3 GMAC/s)"
    assert first.interpolated
    assert 0 < first.estimated_ms < 0.5  # of fewer channels
    assert logits.interpolated
    assert quantised == pooled == Rate(0)
    assert str(pooled) == ""


def test_a_grouped_convolution_calls_its_kernel_for_each_group():
    builder = Builder(np.random.default_rng(0), (3, 8, 8))
    program = builder.finish(builder.convolve(builder.convolve(builder.input, 16), 16, groups=4))
    known = kernel_of(program.operations[2], program)
    table = empty_table("device", "cpu", "portable", "zig", (), "").extended([Row(known, 0.5, 0.0, 9, "measured")])
    assert rates(program, table, None)[2] == Rate(16 * 4 * 9 * 64, 2.0, False, None)


def test_a_library_is_measured(program, tmp_path):
    (library,) = compile_batch([program], host_target(), tmp_path)
    found = rates(program, None, library)
    assert len(found) == len(program.operations)
    assert all(rate.measured_ms > 0 and rate.estimated_ms is None for rate in found)
    assert str(dataclasses.replace(found[3], measured_ms=0.002)) == "measured 2.0 us"


def test_the_first_table_of_a_target_is_found():
    assert table_for("avx2").header.target == "avx2"
    assert table_for("rv32") is None


def test_the_command_prints_the_speed_of_each_layer(program, tmp_path, capsys):
    program.save(tmp_path / "program.safetensors")
    compile_command(tmp_path, host_target(), "zig", None, True, False)
    lines = capsys.readouterr().out.splitlines()
    assert "dot products" in lines[1]
    assert "measured" in lines[1]
    assert "GMAC/s" in lines[1]


def test_targets_without_a_table_say_so(program, tmp_path, capsys):
    program.save(tmp_path / "program.safetensors")
    compile_command(tmp_path, "armv7", "zig", None, True, False)
    assert "no table of armv7: it takes about" in capsys.readouterr().out
