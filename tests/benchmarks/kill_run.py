"""`kill -9` at random moments of a whole `automc run`, each followed by the same command, against one left in peace.

    python tests/benchmarks/kill_run.py [--kills 10] [--run quickstart]

Each kill comes at a random moment after the run has written something new, so that ten of them are spread over search,
selection, fine-tuning, compiling and verifying. What must be byte-identical at the end: every trial log, every agent,
the winner's policy and program. Exits with 1 where something differs.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMPARED = ("trials.log", "agent.safetensors", "policy.json", "program.safetensors")


def start(run: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "automc", "run", run, "--out", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def whole(run: str, folder: Path) -> float:
    """Run to the end; the seconds it took."""
    started = time.monotonic()
    process = start(run, folder)
    if process.wait() != 0:
        sys.exit(f"automc run {run} ended with {process.returncode}")
    return time.monotonic() - started


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.name in COMPARED)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def written(folder: Path) -> int:
    """How many bytes stand in the run's folder, but for files that are still being written."""
    files = (path for path in folder.rglob("*") if not path.name.startswith("."))
    return sum(path.stat().st_size for path in files if path.is_file())


def wait_for_progress(process: subprocess.Popen[bytes], folder: Path) -> None:
    before = written(folder)
    while process.poll() is None and written(folder) == before:
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--run", default="quickstart")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        peaceful, disturbed = Path(name) / "peaceful", Path(name) / "disturbed"
        whole(asked.run, peaceful)  # also measures the host once, if need be
        length = whole(asked.run, Path(name) / "timed")
        moments, struck = random.Random(asked.kills), 0
        while struck < asked.kills:
            process = start(asked.run, disturbed)
            wait_for_progress(process, disturbed)
            time.sleep(moments.uniform(0, length / asked.kills))
            if process.poll() is not None:
                break
            process.kill()
            process.wait()
            struck += 1
            print(f"killed; {written(disturbed)} bytes are there", flush=True)
        whole(asked.run, disturbed)
        expected, found = contents(peaceful), contents(disturbed)
        differing = [path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path)]
        print(f"{struck} of {asked.kills} runs were killed before their end; {len(expected)} files compared, "
              f"{len(differing)} differ {' '.join(sorted(differing))}")  # fmt: skip
        sys.exit(1 if differing or not struck else 0)


if __name__ == "__main__":
    main()
