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
STOPS = [
    (signal.SIGINT,),
    (signal.SIGTERM,),
    (signal.SIGINT, signal.SIGINT),
    (signal.SIGTERM, signal.SIGKILL),
    (signal.SIGINT, signal.SIGKILL),
    (signal.SIGINT,),
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


def stop(process: subprocess.Popen[bytes], moments_s: list[float], signals: tuple[signal.Signals, ...]) -> int:
    """Send the signals, each after so many seconds, to a process that may have ended; its exit code."""
    for moment, sent in zip(moments_s, signals, strict=True):
        time.sleep(moment)
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
    begun = time.monotonic()
    undisturbed = prepare(tmp_path / "undisturbed")
    assert begin(tmp_path / "undisturbed").wait() == 0, (tmp_path / "undisturbed" / "said").read_text()
    whole_s = time.monotonic() - begun
    run, random, struck = prepare(tmp_path / "stopped"), np.random.default_rng(0), 0
    for signals in STOPS:
        moments_s = [float(random.uniform(0.1, 0.9)) * whole_s, *(float(random.uniform(0, 5)) for _ in signals[1:])]
        code = stop(begin(tmp_path / "stopped"), moments_s, signals)
        struck += code != 0
        assert all(whole(place) for name in ("best", "front") for place in libraries(run, name))
        if code == 130 and len(signals) == 1 and (run / STUDY / LOG_NAME).exists() and read_log(run / STUDY)[1]:
            assert (run / "resnet8_digits" / RESULT_PATH).exists() or libraries(run, "best"), "nothing was kept"
    assert struck > 0, "every process had ended before it was stopped"
    assert begin(tmp_path / "stopped").wait() == 0, (tmp_path / "stopped" / "said").read_text()
    assert (run / STUDY / LOG_NAME).read_bytes() == (undisturbed / STUDY / LOG_NAME).read_bytes()
    first, second = (read_result(folder / "resnet8_digits" / RESULT_PATH) for folder in (undisturbed, run))
    assert first.policy == second.policy
    assert first.delivered.quality == second.delivered.quality
    assert whole(run / "resnet8_digits" / "winner")
    assert sorted(path.name for path in libraries(run, "front")) == sorted(
        path.name for path in libraries(undisturbed, "front")
    )
