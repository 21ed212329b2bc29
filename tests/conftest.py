"""Tests compute on one thread: their tensors are tiny, and threads that wait for each other cost far more."""

import os
import sys

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy and torch are imported

import numpy as np

from automc.__main__ import main
from tests.machines import NOT_RUN
from tests.programs import random_program


@pytest.fixture
def automc(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder with an empty cache: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOMC_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["automc", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def small():
    """A program that is soon compiled."""
    return random_program(np.random.default_rng(11), steps=1)


@pytest.fixture
def one_thread():
    """Whatever a test before has set: logs are bound to the number of threads."""
    import torch

    torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    """Say how much code for other processors was compiled at most, but not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    missing = [report for report in skipped if isinstance(report.longrepr, tuple) and NOT_RUN in report.longrepr[2]]
    terminalreporter.write_line(f"cases of code for other processors that no emulator ran: {len(missing)}")
