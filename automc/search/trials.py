"""The trial log: the only state of a search. One checksummed line a finished evaluation, appended, never rewritten."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from automc.compression.policy import Policy
from automc.errors import CorruptFile, RunMismatch, StorageError, StudyLocked
from automc.files import canonical_json

if TYPE_CHECKING:
    import pandas

LOG_NAME = "trials.log"
_LOCK_NAME = "study.lock"

Header = Mapping[str, Any]  # what identifies a study, as JSON; numbers, texts and mappings of them


@dataclass(frozen=True)
class Trial:
    """One evaluated policy.

    `metrics` are numbers by name (empty when the evaluation failed, with the `reason`). `reward` is what the searcher
    was told: of a failed trial, the worst reward before it.
    """

    number: int
    policy: Policy
    metrics: Mapping[str, Any]
    reward: float
    state: Literal["complete", "failed"] = "complete"
    reason: str = ""

    @property
    def complete(self) -> bool:
        return self.state == "complete"

    def to_record(self) -> dict[str, Any]:
        """The trial as plain data, with its policy's fingerprint."""
        return {
            "number": self.number,
            "policy": self.policy.model_dump(mode="json"),
            "fingerprint": self.policy.fingerprint(),
            "metrics": dict(self.metrics),
            "reward": self.reward,
            "state": self.state,
            "reason": self.reason,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Trial:
        """The trial of a record that `to_record` made. Raises `ValueError` or `KeyError` for anything else."""
        trial = cls(
            record["number"],
            Policy.model_validate(record["policy"]),
            record["metrics"],
            record["reward"],
            record["state"],
            record["reason"],
        )
        if trial.policy.fingerprint() != record["fingerprint"]:
            raise ValueError("the policy's fingerprint is not that of the policy")
        return trial


class TrialLog:
    """A study's log, opened by the one process that works on it; a context manager.

    Opening makes the file, or checks that it belongs to `header`, cuts an unfinished last line (a process was killed
    while it wrote) and tells `note` so.

    Raises `StudyLocked` while another process has it open, `RunMismatch` where the header differs, `CorruptFile` where
    a line is not what was written, `StorageError` where reading or writing fails.
    """

    def __init__(self, folder: Path, header: Header, note: Callable[[str], None]) -> None:
        self.path = folder / LOG_NAME
        self.trials: list[Trial] = []
        self._lock = _lock(folder)
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                self._open(header, note)
            except BaseException:
                os.close(self._descriptor)
                raise
        except OSError as error:
            os.close(self._lock)
            _fail(f"cannot open {self.path}", error)
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self, header: Header, note: Callable[[str], None]) -> None:
        content = self.path.read_bytes()
        records, self._size = _parse(content, self.path)
        if self._size < len(content):
            os.ftruncate(self._descriptor, self._size)
            note(f"{self.path}: the last line was unfinished and has been cut; its trial is evaluated again")
        if records:
            _check_header(records[0], header, self.path)
            self.trials = _trials_of(records, self.path)
        else:
            self._append(dict(header))
            _sync_folder(self.path.parent)

    def append(self, trial: Trial) -> None:
        """Write one trial so that it survives a crash; where that fails, the log is as it was before."""
        self._append(trial.to_record())
        self.trials.append(trial)

    def _append(self, record: Mapping[str, Any]) -> None:
        line = _line(record)
        try:
            os.ftruncate(self._descriptor, self._size)  # of a failed append whose cut failed, too
            written = 0
            while written < len(line):  # a full disk may take a part of it
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except BaseException as error:
            # Should the cut fail, too, it is made when the log is opened again: what is reported is the first failure.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            if isinstance(error, OSError):
                _fail(f"cannot write to {self.path}", error)
            raise
        self._size += len(line)

    def __enter__(self) -> TrialLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        os.close(self._lock)


def read_log(path: Path) -> tuple[Header, list[Trial]]:
    """The header and the trials of a study's folder or log, also while a study is writing it.

    Raises `CorruptFile` naming the line that is not what was written, `StorageError` where the file cannot be read.
    """
    path = path / LOG_NAME if path.is_dir() else path
    try:
        content = path.read_bytes()
    except OSError as error:
        _fail(f"cannot read {path}", error)
    records, _ = _parse(content, path)
    if not records:
        raise CorruptFile(f"{path} is empty: its study has not begun")
    return records[0], _trials_of(records, path)


def read_trials(path: Path) -> pandas.DataFrame:
    """A study's trials, one row each: number, state, reward, every metric by its name, reason, policy, fingerprint.

    `path` is the study's folder or its log; `attrs["header"]` is what identifies the study. Raises as `read_log`.
    """
    import pandas

    header, trials = read_log(path)
    rows = []
    for trial in trials:
        row = {"number": trial.number, "state": trial.state, "reward": trial.reward, **trial.metrics}
        rows.append(row | {"reason": trial.reason, "policy": trial.policy, "fingerprint": trial.policy.fingerprint()})
    frame = pandas.DataFrame(rows)
    frame.attrs["header"] = dict(header)
    return frame


def _line(record: Mapping[str, Any]) -> bytes:
    text = canonical_json(record).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _is_whole(line: bytes) -> bool:
    return line[:9] == b"%08x " % zlib.crc32(line[9:])


def _parse(content: bytes, path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records of all finished lines, and how many bytes they take."""
    *lines, tail = content.split(b"\n")
    # A line that was cut short is never whole, so this tail lost its line end after it was written.
    if len(tail) > 1 and _is_whole(tail[:-1]):
        lines.append(tail)
    for number, line in enumerate(lines, start=1):
        if not _is_whole(line):
            raise CorruptFile(
                f"{path}:{number}: the line's checksum is wrong: it was changed after automc wrote it. "
                f"Restore the file from a copy, or delete this line and all after it to repeat those trials."
            )
    return [json.loads(line[9:]) for line in lines], len(content) - len(tail)


def _trials_of(records: list[dict[str, Any]], path: Path) -> list[Trial]:
    trials = []
    for number, record in enumerate(records[1:]):
        try:
            trial = Trial.from_record(record)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFile(f"{path}:{number + 2}: not a trial: {error}") from error
        if trial.number != number:
            raise CorruptFile(f"{path}:{number + 2}: trial {trial.number} stands where trial {number} belongs")
        trials.append(trial)
    return trials


def _check_header(old: Header, new: Header, path: Path) -> None:
    before, now = _flat(old), _flat(new)
    faults = [
        f"  {name}: {before.get(name, 'absent')} when the log was begun, {now.get(name, 'absent')} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if faults:
        raise RunMismatch(
            f"{path} was written under another configuration:\n" + "\n".join(faults) + "\n"
            "Restore what has changed to go on with it, or begin a new run under another name."
        )


def _flat(value: Header, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        flat |= _flat(entry, f"{prefix}{name}.") if isinstance(entry, Mapping) else {f"{prefix}{name}": entry}
    return flat


def _lock(folder: Path) -> int:
    """A descriptor that holds the study's lock until it is closed, or its process ends in whatever way."""
    path = folder / _LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        _fail(f"cannot open {path}", error)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}@{socket.gethostname()}".encode(), 0)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        os.close(descriptor)
        raise StudyLocked(f"{folder} is being worked on by {holder}; wait for it, or stop it first") from None
    except OSError as error:
        os.close(descriptor)
        _fail(f"cannot lock {path}", error)
    return descriptor


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fail(what: str, error: OSError) -> NoReturn:
    raise StorageError(f"{what}: {error.strerror or error}") from error
