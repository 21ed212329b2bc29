"""Tests compute on one thread: their tensors are tiny, and threads that wait for each other cost far more."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.machines import NOT_RUN


def pytest_terminal_summary(terminalreporter):
    """Say how much code for other processors was compiled at most, but not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    missing = [report for report in skipped if isinstance(report.longrepr, tuple) and NOT_RUN in report.longrepr[2]]
    terminalreporter.write_line(f"cases of code for other processors that no emulator ran: {len(missing)}")
