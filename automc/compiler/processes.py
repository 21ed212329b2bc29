"""Runs another program within limits of time, memory and output, and ends it with all that it started."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    seconds: float
    memory_bytes: int  # of addresses
    file_bytes: int  # of any file that it writes, its output included


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit status, negative if a signal ended it, and what it wrote."""

    status: int
    output: bytes
    errors: bytes


def run_limited(
    command: Sequence[str], limits: Limits, given: bytes = b"", environment: Mapping[str, str] | None = None
) -> Ended:
    """Run `command` with `given` as its standard input.

    Raises `OSError` where it cannot be started, `subprocess.TimeoutExpired` where it takes too long.
    """
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        source.write(given)
        source.seek(0)
        # A session of its own, so that a hanging program goes with the processes that it started.
        process = subprocess.Popen(
            command, stdin=source, stdout=output, stderr=errors, env=environment, start_new_session=True
        )
        try:
            _limit(process.pid, limits)
            process.wait(limits.seconds)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself just now
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        output.seek(0)
        errors.seek(0)
        return Ended(process.returncode, output.read(), errors.read())


def _limit(process: int, limits: Limits) -> None:
    """Set the limits from outside: code between fork and exec could hang in a process with threads."""
    if not hasattr(resource, "prlimit"):
        return
    for kind, limit in ((resource.RLIMIT_AS, limits.memory_bytes), (resource.RLIMIT_FSIZE, limits.file_bytes)):
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process, kind, (limit, limit))
