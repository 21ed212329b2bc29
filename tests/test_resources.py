"""Memory that a process keeps."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """
import resource, sys
import torch
from automc.network.resources import keep_memory

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    keep_memory()
maps = torch.zeros(1000, 16, 32, 32)  # 64 MiB
for _ in range(12):  # until there is room enough to go on with
    maps = maps.clamp(-1, 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    maps = maps.clamp(-1, 1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    """Pages that the system had to clear for ten activations of maps of 64 MiB."""
    done = subprocess.run([sys.executable, "-c", _SCRIPT, how], capture_output=True, text=True, check=True, timeout=120)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_kept_memory_is_not_cleared_again() -> None:
    # Not none: something small may lie where a map would fit, which then takes new room.
    assert _faults("keep") < _faults("give back") / 2
