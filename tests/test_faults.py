"""A search that is killed, or met by a second one, ends with the log of one that was left in peace."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from automc.search.searchers import searcher_names
from automc.search.trials import LOG_NAME
from tests.faults_child import search

PAUSE_S = 0.01
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults_child"])  # a process a kill, but not an import of torch a kill


def begin(folder: Path, searcher: str, trials: int, pause_s: float = PAUSE_S) -> BaseProcess:
    process = CONTEXT.Process(target=search, args=(folder, searcher, trials, pause_s))
    process.start()
    return process


def finish(folder: Path, searcher: str, trials: int) -> str:
    """Run a search that must succeed; what it and those before it said."""
    process = begin(folder, searcher, trials, pause_s=0)
    process.join()
    said = (folder / "said").read_text()
    assert process.exitcode == 0, said
    return said


def logged(folder: Path) -> bytes:
    path = folder / LOG_NAME
    return path.read_bytes() if path.exists() else b""


def wait_for_log(process: BaseProcess, folder: Path, beyond: int) -> None:
    """Until the log has more bytes than that."""
    while process.is_alive() and len(logged(folder)) <= beyond:
        time.sleep(0.002)


def kill_again_and_again(folder: Path, searcher: str, trials: int, kills: int) -> None:
    """Kill a search at random moments, each time after some progress, then let it finish."""
    random = np.random.default_rng(kills)
    struck = 0
    for _ in range(kills):
        process = begin(folder, searcher, trials)
        wait_for_log(process, folder, len(logged(folder)))
        time.sleep(random.uniform(0, 10 * PAUSE_S))
        process.kill()
        process.join()
        struck += process.exitcode == -signal.SIGKILL
    assert struck > 0, "every process had ended before it was killed"
    finish(folder, searcher, trials)


def leftovers(folder: Path) -> dict[str, bytes]:
    """All files of a study that must not depend on how often it was stopped."""
    names = (LOG_NAME, "agent.safetensors", "agent.json")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


@pytest.mark.parametrize("searcher", ["random", "tpe", "ppo"])
def test_kills_do_not_change_the_log(searcher: str, tmp_path: Path) -> None:
    finish(tmp_path / "whole", searcher, 40)
    kill_again_and_again(tmp_path / "killed", searcher, 40, kills=3)
    assert leftovers(tmp_path / "killed") == leftovers(tmp_path / "whole")
    assert logged(tmp_path / "whole").count(b"\n") == 41
    assert b'"failed"' in logged(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("searcher", searcher_names())
def test_ten_kills_do_not_change_the_log(searcher: str, tmp_path: Path) -> None:
    trials = 60 if searcher == "gp" else 200  # what it fits grows with every trial
    finish(tmp_path / "whole", searcher, trials)
    kill_again_and_again(tmp_path / "killed", searcher, trials, kills=10)
    assert leftovers(tmp_path / "killed") == leftovers(tmp_path / "whole")


def test_a_torn_tail_is_cut_with_a_note_and_its_trial_repeated(tmp_path: Path) -> None:
    assert finish(tmp_path, "random", 6) == ""
    whole = logged(tmp_path)
    (tmp_path / LOG_NAME).write_bytes(whole[:-40])
    assert "unfinished" in finish(tmp_path, "random", 6)
    assert logged(tmp_path) == whole


def test_ctrl_c_leaves_a_log_that_goes_on(tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    process = begin(stopped, "random", 1000)
    wait_for_log(process, stopped, 2000)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 1
    assert "KeyboardInterrupt" in (stopped / "said").read_text()
    assert logged(stopped).endswith(b"\n")
    trials = logged(stopped).count(b"\n") - 1
    assert 0 < trials < 1000
    finish(tmp_path / "whole", "random", trials + 5)
    finish(stopped, "random", trials + 5)
    assert logged(stopped) == logged(tmp_path / "whole")


def test_a_second_process_is_refused_and_told_who_holds_the_study(tmp_path: Path) -> None:
    first = begin(tmp_path, "random", 1000, pause_s=0.05)
    wait_for_log(first, tmp_path, 0)
    second = begin(tmp_path, "random", 1000)
    second.join()
    assert second.exitcode == 1
    said = (tmp_path / "said").read_text()
    assert "StudyLocked" in said
    assert f"{first.pid}@{os.uname().nodename}" in said
    assert first.is_alive()
    first.kill()
    first.join()
    finish(tmp_path, "random", 3)  # the lock went with the process that held it
