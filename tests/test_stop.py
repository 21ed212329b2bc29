"""A run that is stopped at any moment: what stands in `best/` is whole, and the same command completes the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from automc.catalog import own_folder
from automc.compiler.artifact import open_artifact
from automc.compression.interpreter import interpret
from automc.compression.program import Program
from automc.cost.table import write_table
from automc.network.datasets import load_dataset
from automc.network.trace import trace
from automc.network.zoo import build_network
from automc.search.result import RESULT_PATH, read_result
from automc.search.trials import LOG_NAME, read_log
from tests.problems import macs_table

COMMAND = (
    "run", "resnet8_digits", "device=test_table", "data.search=100", "data.selection=100", "finetuning.epochs=0.1",
    "--searcher", "ppo", "--trials", "12", "--front", "2", "goal.limits.latency_ms=80%",
)  # fmt: skip
STUDY = Path("resnet8_digits", "ppo-0")
INT, TERM, KILL = signal.SIGINT, signal.SIGTERM, signal.SIGKILL
STOPS = [  # what the run has said or done before, and what it is sent
    ("", [TERM]),
    ("resnet8_digits/ppo-0/trials.log", [INT]),  # which is before the sensitivities are measured
    ("resnet8_digits 4/12", [INT]),
    ("resnet8_digits 6/12", [INT, INT]),
    ("resnet8_digits 9/12", [TERM, KILL]),
    ("selection: candidate 3/", [INT]),
    ("compiling the winner", [INT, KILL]),
    ("verifying the library", [TERM]),
]


def begin(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(own_folder()), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "automc", *COMMAND, "--out", "mine"],
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=(folder / "said").open("ab"),
    )  # fmt: skip


def prepare(folder: Path) -> Path:
    """A folder to run in, with a table of made-up prices; and the run's folder in it."""
    (folder / "latency_tables").mkdir(parents=True)
    network = trace(build_network("resnet8", 10, 1), (1, 8, 8), (0.3,), (0.4,), "resnet8")
    write_table(macs_table(network), folder / "latency_tables" / "test_table.csv")
    return folder / "mine"


def stop(folder: Path, after: str, signals: list[signal.Signals], random: np.random.Generator) -> int:
    """Begin the run, and send it the signals, each a random while later; its exit code."""
    known = (folder / "said").stat().st_size if (folder / "said").exists() else 0
    process = begin(folder)
    while after and after not in (folder / "said").read_text()[known:] and not (folder / "mine" / after).is_file():
        assert process.poll() is None, f"it ended before '{after}'"
        time.sleep(0.02)
    for sent in signals:
        time.sleep(float(random.uniform(0, 1.5)))
        process.send_signal(sent)  # nothing where it has ended
    return process.wait()


def whole(place: Path) -> bool:
    """Whether the library in `place` is what its manifest says, loads, and answers as the program beside it means."""
    pixels = load_dataset("digits").test.pixels[:20]
    found = open_artifact(place / "library").load().run(pixels)
    meant = interpret(Program.load(place / "program.safetensors"), pixels)
    return bool(np.array_equal(found.view(np.int32), meant.view(np.int32)))


def libraries(run: Path, name: str) -> list[Path]:
    """The networks that somebody finds who looks into a folder."""
    return [path for path in (run / "resnet8_digits" / name).glob("[!.]*") if path.is_dir()]


@pytest.mark.slow
def test_a_run_that_is_stopped_at_any_moment_has_verified_libraries_and_completes(tmp_path: Path) -> None:
    undisturbed, run = prepare(tmp_path / "undisturbed"), prepare(tmp_path / "stopped")
    assert begin(tmp_path / "undisturbed").wait() == 0, (tmp_path / "undisturbed" / "said").read_text()
    random = np.random.default_rng(0)
    for after, signals in STOPS:
        code = stop(tmp_path / "stopped", after, signals, random)
        assert code != 0, "it had ended before it was stopped"
        assert all(whole(place) for name in ("best", "front") for place in libraries(run, name))
        if code == 130 and len(signals) == 1 and (run / STUDY / LOG_NAME).exists() and read_log(run / STUDY)[1]:
            assert libraries(run, "best"), f"nothing was kept after '{after}'"
    assert begin(tmp_path / "stopped").wait() == 0, (tmp_path / "stopped" / "said").read_text()
    assert (run / STUDY / LOG_NAME).read_bytes() == (undisturbed / STUDY / LOG_NAME).read_bytes()
    first, second = (read_result(folder / "resnet8_digits" / RESULT_PATH) for folder in (undisturbed, run))
    assert first.policy == second.policy
    assert first.delivered.quality == second.delivered.quality
    assert whole(run / "resnet8_digits" / "winner")
    assert sorted(path.name for path in libraries(run, "front")) == sorted(
        path.name for path in libraries(undisturbed, "front")
    )
