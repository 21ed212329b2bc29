"""Runs another program within limits of time, memory and output, and ends it with all that it started."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

# The limits hold before the program begins: set from outside, they come too late for what it starts at once, and code
# between fork and exec could hang in a process with threads. A limit that cannot be set is already a stricter one, or
# one that this system does not have.
_START = 'ulimit -f "$1" 2>/dev/null; ulimit -v "$2" 2>/dev/null; shift 2; exec "$@"'
_FILE_BLOCK, _MEMORY_BLOCK = 512, 1024  # bytes, that `ulimit` counts in


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

    Raises `OSError` where it cannot be started, `subprocess.TimeoutExpired` with what it wrote where it takes too long.
    """
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
    blocks = (str(limits.file_bytes // _FILE_BLOCK), str(limits.memory_bytes // _MEMORY_BLOCK))
    limited = ["/bin/sh", "-c", _START, "sh", *blocks, *command]
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        source.write(given)
        source.seek(0)
        # A session of its own, so that a hanging program goes with the processes that it started.
        process = subprocess.Popen(
            limited, stdin=source, stdout=output, stderr=errors, env=environment, start_new_session=True
        )
        try:
            process.wait(limits.seconds)
        except BaseException as reason:
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself just now
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(reason, subprocess.TimeoutExpired):
                reason.output, reason.stderr = _content(output), _content(errors)
            raise
        return Ended(process.returncode, _content(output), _content(errors))


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
