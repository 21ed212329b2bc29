"""Measuring on a device by commands: what fails, hangs or prints garbage is tried again, told, and costs nothing."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from automc.compiler.targets import host_target
from automc.compression.policy import Policy
from automc.cost.measure import Need, empty_for
from automc.cost.model import CostModel
from automc.cost.remote import Runner, measure_device
from automc.cost.sampling import kernels_to_measure
from automc.cost.table import LatencyTable, Row, read_table, write_table
from automc.errors import ConfigError, RunnerError, TableError
from automc.schema import SearchSpaceSpec
from tests.cost_examples import kernels_of, splitting_network

NEEDS: list[Need] = [(splitting_network(), SearchSpaceSpec(description="nothing but 8 bits"))]
KERNELS = kernels_to_measure(NEEDS)

# Does on its first calls what is asked for, one word a call, and afterwards what a good device does.
_DEVICE = """
import pathlib, subprocess, sys, time
calls, program, *faults = sys.argv[1:]
number = len(pathlib.Path(calls).read_text()) if pathlib.Path(calls).exists() else 0
pathlib.Path(calls).write_text("x" * (number + 1))
fault = faults[number] if number < len(faults) else ""
if fault == "hangs":
    print("now it hangs", flush=True)
    time.sleep(60)
if fault == "fails":
    sys.exit("no route to host")
printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
if fault == "garbage":
    printed = "Segmentation fault\\n"
if fault == "cut":
    printed = printed[:-9]
if fault == "rows":
    printed = printed[:printed[:-1].rindex("\\n") + 1]
sys.stdout.write(printed)
"""


def runner_of(folder: Path, *faults: str, seconds: float = 20.0, tries: int = 3) -> Runner:
    (folder / "device.py").write_text(_DEVICE)
    command = (sys.executable, str(folder / "device.py"), str(folder / "calls"), "{program}", *faults)
    return Runner((command,), seconds, tries, pause_seconds=0)


def measured(runner: Runner, path: Path, lines: list[str]) -> LatencyTable:
    return measure_device(NEEDS, "board", host_target(), runner, path, lines.append, cpu="a processor")


def test_what_goes_wrong_is_told_and_tried_again(tmp_path: Path) -> None:
    lines: list[str] = []
    table = measured(runner_of(tmp_path, "fails", "garbage", "cut", "rows", tries=5), tmp_path / "board.csv", lines)
    tries = [line for line in lines if line.startswith("try ")]
    assert len(tries) == 4
    assert "ended with status 1; it wrote:\nno route to host" in tries[0]
    assert "try 2 of 5: the device printed no table: the device's output: the header lacks '# device" in tries[1]
    assert "it wrote:\nSegmentation fault" in tries[1]
    assert "the device printed no table: the device's output:" in tries[2]
    assert "the device printed another table than was asked for; it wrote:\n# device: board" in tries[3]
    assert {row.kernel for row in table.rows} == set(KERNELS)
    assert {row.source for row in table.rows} == {"measured"}
    assert (table.header.device, table.header.cpu) == ("board", "a processor")
    assert read_table(tmp_path / "board.csv").sha256 == table.sha256
    assert CostModel(NEEDS[0][0], table).cost(Policy()).interpolated == ()


def test_a_command_that_hangs_is_ended_and_what_it_wrote_is_told(tmp_path: Path) -> None:
    runner = runner_of(tmp_path, "hangs", "hangs", seconds=1.0, tries=2)
    with pytest.raises(RunnerError, match=r"tried 2 times.*ran longer than 1 s; it wrote:\nnow it hangs"):
        measured(runner, tmp_path / "board.csv", [])
    assert not (tmp_path / "board.csv").exists()


def test_a_device_that_stops_answering_leaves_the_table_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "board.csv"
    measured(runner_of(tmp_path), path, [])
    whole = read_table(path)
    lost = whole.rows[0]
    write_table(LatencyTable(whole.header, whole.energy, whole.rows[1:]), path)
    before = path.read_bytes()
    (tmp_path / "calls").unlink()
    with pytest.raises(RunnerError, match="tried 3 times"):
        measured(runner_of(tmp_path, "fails", "garbage", "fails"), path, [])
    assert path.read_bytes() == before
    lines: list[str] = []
    again = measured(runner_of(tmp_path), path, lines)
    assert "1 kernels to time" in lines[0]
    assert again.by_kernel.keys() == whole.by_kernel.keys()
    assert [row for row in again.rows if row.kernel != lost.kernel] == list(whole.rows[1:])


def test_what_was_simulated_is_measured_and_the_rest_put_in_proportion(tmp_path: Path) -> None:
    path = tmp_path / "board.csv"
    empty = empty_for("board", "Cortex (simulated)", host_target(), "simulated, not measured")
    other = KERNELS[0]._replace(height=77)
    rows = tuple(Row(kernel, 1000.0, 100.0, 1, "simulated") for kernel in (*KERNELS, other))
    write_table(LatencyTable(empty.header, empty.energy, rows), path)
    table = measured(runner_of(tmp_path), path, [])
    assert {table.by_kernel[kernel].source for kernel in KERNELS} == {"measured"}
    assert table.by_kernel[other].source == "simulated"
    assert table.header.cpu == "a processor"
    assert "simulated" not in table.header.notes
    factor = float(np.median([table.by_kernel[kernel].latency_ms / 1000 for kernel in KERNELS]))
    assert table.header.calibration == pytest.approx(factor)
    assert table.by_kernel[other].latency_ms == pytest.approx(1000 * factor)
    assert table.by_kernel[other].spread_ms == pytest.approx(100 * factor)


def test_a_table_of_another_processor_is_not_mixed_in(tmp_path: Path) -> None:
    empty = empty_for("board", "another", host_target())
    write_table(
        LatencyTable(empty.header, empty.energy, (Row(KERNELS[0], 1.0, 0.1, 9, "measured"),)), tmp_path / "b.csv"
    )
    with pytest.raises(TableError, match=r"was made with another cpu \(another\)"):
        measured(runner_of(tmp_path), tmp_path / "b.csv", [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ssh pi4 ./bench", "write {program} for its file"),
        ("scp {program} pi4:b && ", "a command is missing"),
        ("scp {program} 'pi4:b", "cannot be read"),
        ("{program} > out.csv", "no shell reads it, so '>' has no meaning"),
    ],
)
def test_a_runner_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match="the runner") as refused:
        Runner.parse(text)
    assert message in str(refused.value)


def test_a_runner_is_words_and_no_shell_sees_them() -> None:
    runner = Runner.parse("scp {program} 'my pi:a;b' && ssh pi $HOME/x", 5.0, 2)
    assert runner.commands == (("scp", "{program}", "my pi:a;b"), ("ssh", "pi", "$HOME/x"))
    assert (runner.seconds, runner.tries) == (5.0, 2)


def test_a_command_that_is_not_installed_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="cannot be started"):
        measured(Runner((("no-such-command", "{program}"),), tries=1), tmp_path / "board.csv", [])


def test_a_table_made_elsewhere_says_that_it_is_imported(tmp_path: Path) -> None:
    network = NEEDS[0][0]
    empty = empty_for("board", "a processor", host_target())
    rows = tuple(Row(kernel, 0.5, 0.0, 1, "imported") for kernel in kernels_of(network, Policy()))
    write_table(LatencyTable(empty.header, empty.energy, rows), tmp_path / "board.csv")
    assert CostModel(network, read_table(tmp_path / "board.csv")).cost(Policy()).source == "imported"
    text = (tmp_path / "board.csv").read_text()
    (tmp_path / "board.csv").write_text(text.replace(",0.5,0,1,imported", ",nan,0,1,imported", 1))
    with pytest.raises(TableError, match=r"board\.csv:\d+: column latency_ms: must be a number"):
        read_table(tmp_path / "board.csv")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="needs qemu-user")
def test_another_processor_by_an_emulator(tmp_path: Path) -> None:
    runner = Runner.parse("qemu-aarch64 -cpu cortex-a76 {program}", 120.0)
    table = measure_device(NEEDS, "arm", "neon", runner, tmp_path / "arm.csv", lambda line: None)
    assert table.by_kernel.keys() == set(KERNELS)
    assert table.header.target == "neon"
