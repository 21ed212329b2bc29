"""Energy from meters: a made-up folder of counters, and traces whose area can be worked out by hand."""

from pathlib import Path

import pytest

from automc.commands.energy import energy_command
from automc.compiler.artifact import compile_program
from automc.compression.policy import Policy
from automc.cost import power
from automc.cost.energy import Energy, EnergyCoefficients, published_energies
from automc.cost.model import CostModel
from automc.cost.power import Rapl, meter_here, meter_trace, modelled_energy, read_trace
from automc.cost.probes import random_program
from automc.cost.table import read_table, write_table
from automc.errors import RunnerError, TableError
from tests.cost_examples import kernels_of, table_for
from tests.networks import TinyResidual, traced


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages and a part of one, which must not count twice."""
    monkeypatch.setattr(power, "_IDLE_SECONDS", 0.0)
    for name, energy in (("intel-rapl:0", 100), ("intel-rapl:1", 9_000_000), ("intel-rapl:0:0", 50)):
        zone = tmp_path / name
        zone.mkdir()
        (zone / "energy_uj").write_text(f"{energy}\n")
        (zone / "max_energy_range_uj").write_text("10000000\n")
    return tmp_path


def spend(folder: Path, zone: str, microjoules: int) -> None:
    path = folder / zone / "energy_uj"
    path.write_text(f"{(int(path.read_text()) + microjoules) % 10_000_000}\n")


def test_packages_add_up_and_a_wrapped_counter_goes_on(counters: Path) -> None:
    rapl = Rapl(counters)
    spend(counters, "intel-rapl:0", 500_000)
    spend(counters, "intel-rapl:0:0", 400_000)
    spend(counters, "intel-rapl:1", 2_000_000)  # it wraps
    assert rapl.joules() == pytest.approx(2.5)
    assert rapl.joules() == 0


def test_a_run_is_metered_per_inference(counters: Path) -> None:
    calls = []

    def run() -> None:
        calls.append(1)
        spend(counters, "intel-rapl:0", 7_000)

    metered = meter_here(run, 0.01, counters)
    assert metered.inferences == len(calls)
    assert metered.inference_mj == pytest.approx(7.0)
    assert (metered.idle_watts, metered.above_idle_mj) == (0, metered.inference_mj)


def test_without_counters_the_remedy_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=r"has no energy counters .* external meter \(--trace\)"):
        Rapl(tmp_path)


def trace_of(folder: Path, text: str) -> Path:
    path = folder / "meter.csv"
    path.write_text(text)
    return path


def test_the_run_is_found_in_the_trace_by_its_length(tmp_path: Path) -> None:
    """3 W for 4 s, between 1 W before and after; the meter's clock is another one."""
    samples = [(1000 + step / 10, 3.0 if 30 <= step < 70 else 1.0) for step in range(120)]
    path = trace_of(tmp_path, "time_s,watts\n" + "".join(f"{time:.1f},{watts}\n" for time, watts in samples))
    metered = meter_trace(path, inferences=1000, seconds=4.0)
    assert metered.inference_mj == pytest.approx(12.0, rel=0.02)
    assert metered.idle_watts == pytest.approx(1.0, rel=0.02)
    assert metered.above_idle_mj == pytest.approx(8.0, rel=0.03)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"meter\.csv:1: the first line must be 'time_s,watts'"),
        ("time_ms,watts\n0,1\n1,1\n", r"meter\.csv:1: the first line"),
        ("time_s,watts\n0,1\n1\n", r"meter\.csv:3: has 1 values"),
        ("time_s,watts\n0,1\n1,nan\n", r"meter\.csv:3: column watts: must be a number"),
        ("time_s,watts\n0,1\n1,-2\n", r"meter\.csv:3: column watts: must not be negative"),
        ("time_s,watts\n1,1\n1,2\n", r"meter\.csv:3: column time_s: must be later"),
        ("time_s,watts\n1,1\n", r"holds 1 samples"),
    ],
)
def test_a_trace_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        read_trace(trace_of(tmp_path, text))


def test_a_trace_must_show_where_the_run_ends(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="must be longer than the 10 s of the run"):
        meter_trace(trace_of(tmp_path, "time_s,watts\n0,1\n10,1\n"), 5, 10.0)


def test_a_table_without_energies_says_nothing_of_a_program() -> None:
    program = random_program(traced(TinyResidual()), Policy(), seed=0)
    with pytest.raises(TableError, match="the latency table of bench states no energies; add '# energy"):
        modelled_energy(program, table_for({}, energy=None))


MODEL = EnergyCoefficients(1.0, 2.0, 3.0, 4.0, 100.0, "made up", 5.0, 0.5)
MODELLED = Energy(multiply_mj=1.0, far_memory_mj=2.0, static_mj=1.0)


def test_what_the_model_lacks_becomes_static_power() -> None:
    found = MODEL.calibrated(MODELLED, latency_ms=2.0, measured_mj=7.0, by="a meter")
    assert found.static_mw == pytest.approx(2000.0)  # 4 mJ in 2 ms
    assert found.far_byte_pj == MODEL.far_byte_pj
    assert "7 mJ for one network, a meter" in found.source


def test_where_the_model_says_too_much_it_shrinks() -> None:
    found = MODEL.calibrated(MODELLED, latency_ms=2.0, measured_mj=1.5, by="a meter")
    assert found.static_mw == 0
    assert (found.multiply_8x8_pj, found.far_byte_pj, found.instruction_pj) == (0.5, 2.0, 2.5)
    assert found.instructions_per_mac == MODEL.instructions_per_mac


def test_published_energies_invent_nothing() -> None:
    assert published_energies("neondot").static_mw == 0
    assert published_energies("neondot").instructions_per_mac == 0.154
    assert published_energies("rv32").instruction_pj == 0
    assert "rv32 were not counted" in published_energies("rv32").source


def test_the_command_puts_a_table_in_proportion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = traced(TinyResidual())
    compile_program(random_program(network, Policy(), seed=0), "portable", tmp_path / "library")
    table = table_for(dict.fromkeys(kernels_of(network, Policy()), 0.01))
    (tmp_path / "latency_tables").mkdir()
    write_table(table, tmp_path / "latency_tables" / "board.csv")
    monkeypatch.chdir(tmp_path)
    trace = trace_of(tmp_path, "time_s,watts\n0,1\n0.999,1\n1,3\n3,3\n3.001,1\n4,1\n")
    energy_command(tmp_path / "library", "board", 2.0, trace, 1000, tmp_path / "out.csv")
    told = capsys.readouterr().out
    assert "model " in told
    assert "measured   6 mJ an inference, 3.998 mJ of it above idle (1 W); 1000 inferences in 2 s" in told
    written = read_table(tmp_path / "out.csv")
    assert written.sha256 == table.sha256
    assert written.energy is not None
    assert CostModel(network, written).cost(Policy()).energy_mj == pytest.approx(6.0, rel=0.01)
