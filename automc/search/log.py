"""A log of records: one checksummed line each, appended, never rewritten; what resumable work keeps its state in."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from automc.errors import CorruptFile, RunMismatch, StorageError, StudyLocked
from automc.files import canonical_json

_LOCK_NAME = "study.lock"

Header = Mapping[str, Any]  # what identifies a study, as JSON; numbers, texts and mappings of them
Record = dict[str, Any]


class RecordLog:
    """A log, opened by the one process that works on it; a context manager. `records` are its lines but the header.

    Opening makes the file, or checks that it belongs to `header`, cuts an unfinished last line (a process was killed
    while it wrote) and tells `note` so.

    Raises `StudyLocked` while another process has a log of the folder open, `RunMismatch` where the header differs,
    `CorruptFile` where a line is not what was written, `StorageError` where reading or writing fails.
    """

    def __init__(self, path: Path, header: Header, note: Callable[[str], None]) -> None:
        self.path = path
        self.records: list[Record] = []
        self._lock = _lock(path.parent)
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
            note(f"{self.path}: the last line was unfinished and has been cut; what it told is computed again")
        if records:
            _check_header(records[0], header, self.path)
            self.records = records[1:]
            self._check()
        else:
            self._append(dict(header))
            _sync_folder(self.path.parent)

    def _check(self) -> None:
        """Raise `CorruptFile` where a record is not one of this log's kind."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record so that it survives a crash; where that fails, the log is as it was before."""
        self._append(record)
        self.records.append(dict(record))

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        os.close(self._lock)


def read_records(path: Path) -> tuple[Header, list[Record]]:
    """The header and the records of a log, also while a process is writing it.

    Raises `CorruptFile` naming the line that is not what was written, `StorageError` where the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        _fail(f"cannot read {path}", error)
    records, _ = _parse(content, path)
    if not records:
        raise CorruptFile(f"{path} is empty: its study has not begun")
    return records[0], records[1:]


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
