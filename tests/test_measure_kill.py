"""A measurement that is killed at any moment loses at most the kernel that was being timed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from automc.cost.sampling import kernels_to_measure
from automc.cost.table import read_table
from tests.measure_child import NEEDS

KILLS = 10


@pytest.mark.slow
def test_a_kill_loses_at_most_the_kernel_being_timed(tmp_path: Path) -> None:
    path, wanted = tmp_path / "table.csv", set(kernels_to_measure(NEEDS))
    random = np.random.default_rng(0)
    timed: list[str] = []
    lost: set[str] = set()
    for _ in range(KILLS):
        child = subprocess.Popen([sys.executable, "-m", "tests.measure_child", path], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(int(random.integers(1, len(wanted) // KILLS + 1))):
            timed.append(child.stdout.readline().strip())
        signal_after = float(random.uniform(0, 0.02))
        try:
            child.wait(signal_after)
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
        timed += child.stdout.read().splitlines()
        assert child.wait() == -signal.SIGKILL
        known = {str(row.kernel) for row in read_table(path).rows} if path.exists() else set()
        missing = {kernel for kernel in timed if kernel not in known}
        assert len(missing - lost) <= 1
        lost = missing
    done = subprocess.run(
        [sys.executable, "-m", "tests.measure_child", path], capture_output=True, text=True, check=True, timeout=600
    )
    timed += done.stdout.splitlines()
    assert {row.kernel for row in read_table(path).rows} >= wanted
    assert len(timed) <= len(set(timed)) + KILLS  # no kernel but those that were lost was timed again
