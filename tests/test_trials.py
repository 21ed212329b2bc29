"""The trial log: what it keeps, what it refuses, and what it repairs."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automc.compression.policy import Policy
from automc.errors import CorruptFile, RunMismatch, StorageError, StudyLocked
from automc.search.trials import LOG_NAME, Trial, TrialLog, read_log, read_trials

HEADER = {"searcher": "random", "seed": 0, "hashes": {"table": "abc"}}


def make_trial(number: int) -> Trial:
    policy = Policy(keep_ratio={"conv1": 1 / (number + 1)}, activation_bits={"conv1": 2 + number % 7})
    return Trial(number, policy, {"accuracy": 0.5 + number / 100, "latency_ms": 1.5}, 0.5 + number / 100)


def write_log(folder: Path, trials: int) -> bytes:
    notes: list[str] = []
    with TrialLog(folder, HEADER, notes.append) as log:
        for number in range(len(log.trials), trials):
            log.append(make_trial(number))
    return (folder / LOG_NAME).read_bytes()


def test_a_log_gives_back_what_was_appended(tmp_path: Path) -> None:
    write_log(tmp_path, 5)
    header, trials = read_log(tmp_path)
    assert header == HEADER
    assert trials == [make_trial(number) for number in range(5)]


def test_reopening_appends_and_never_rewrites(tmp_path: Path) -> None:
    first = write_log(tmp_path, 3)
    assert write_log(tmp_path, 6).startswith(first)
    assert write_log(tmp_path, 6) == write_log(tmp_path / "uninterrupted", 6)


def test_a_log_becomes_a_frame_in_one_call(tmp_path: Path) -> None:
    with TrialLog(tmp_path, HEADER, pytest.fail) as log:
        log.append(make_trial(0))
        log.append(Trial(1, make_trial(1).policy, {}, 0.25, "failed", "accuracy is nan"))
    frame = read_trials(tmp_path)
    assert list(frame["number"]) == [0, 1]
    assert list(frame["state"]) == ["complete", "failed"]
    assert frame["accuracy"][0] == 0.5
    assert math.isnan(frame["accuracy"][1])
    assert frame["reason"][1] == "accuracy is nan"
    assert frame["policy"][1] == make_trial(1).policy
    assert frame.attrs["header"] == HEADER


def test_a_log_without_trials_becomes_an_empty_frame(tmp_path: Path) -> None:
    write_log(tmp_path, 0)
    assert len(read_trials(tmp_path / LOG_NAME)) == 0


def test_a_torn_tail_is_cut_with_a_note_wherever_it_was_torn(tmp_path: Path) -> None:
    whole = write_log(tmp_path, 3)
    path = tmp_path / LOG_NAME
    last_line = whole.rindex(b"\n", 0, len(whole) - 1) + 1
    for length in range(last_line + 1, len(whole)):
        path.write_bytes(whole[:length])
        notes: list[str] = []
        assert len(read_log(path)[1]) == 2  # a reader of a log that is being written sees whole lines only
        with TrialLog(tmp_path, HEADER, notes.append) as log:
            assert len(log.trials) == 2
            assert path.read_bytes() == whole[:last_line]
            assert "unfinished" in notes[0]
            log.append(make_trial(2))
        assert path.read_bytes() == whole


def test_a_torn_header_begins_the_log_anew(tmp_path: Path) -> None:
    whole = write_log(tmp_path, 0)
    (tmp_path / LOG_NAME).write_bytes(whole[:20])
    assert write_log(tmp_path, 0) == whole


def test_every_flipped_bit_is_refused_with_its_line(tmp_path: Path) -> None:
    whole = write_log(tmp_path, 4)
    path = tmp_path / LOG_NAME
    random = np.random.default_rng(0)
    positions = [*random.integers(0, len(whole) * 8, 150), *range(len(whole) * 8 - 16, len(whole) * 8)]
    for position in positions:
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        line = whole.count(b"\n", 0, position // 8) + 1
        for reading in (lambda: read_log(path), lambda: TrialLog(tmp_path, HEADER, pytest.fail)):
            with pytest.raises(CorruptFile, match=f"{LOG_NAME}:{line}: "):
                reading()
        assert path.read_bytes() == damaged


def test_a_missing_line_is_refused(tmp_path: Path) -> None:
    lines = write_log(tmp_path, 4).splitlines(keepends=True)
    (tmp_path / LOG_NAME).write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(CorruptFile, match=r":3: trial 2 stands where trial 1 belongs"):
        read_log(tmp_path)


def test_a_missing_or_empty_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        read_log(tmp_path)
    (tmp_path / LOG_NAME).touch()
    with pytest.raises(CorruptFile, match="has not begun"):
        read_log(tmp_path)


def test_another_header_is_refused_field_by_field(tmp_path: Path) -> None:
    before = write_log(tmp_path, 2)
    changed = {"searcher": "random", "seed": 1, "hashes": {"table": "xyz"}, "threads": 2}
    with pytest.raises(RunMismatch) as caught:
        TrialLog(tmp_path, changed, pytest.fail)
    message = str(caught.value)
    assert "hashes.table: abc when the log was begun, xyz now" in message
    assert "seed: 0 when the log was begun, 1 now" in message
    assert "threads: absent when the log was begun, 2 now" in message
    assert "searcher:" not in message
    assert "begin a new run" in message
    assert (tmp_path / LOG_NAME).read_bytes() == before


def test_a_second_opening_names_the_holder(tmp_path: Path) -> None:
    with TrialLog(tmp_path, HEADER, pytest.fail), pytest.raises(StudyLocked, match=f"{os.getpid()}@"):
        TrialLog(tmp_path, HEADER, pytest.fail)
    with TrialLog(tmp_path, HEADER, pytest.fail) as log:
        assert log.trials == []


def failing_at(call: int, real: Callable[..., Any], code: int, partial: bool) -> Callable[..., Any]:
    """`real`, which fails with the system's error `code` at its `call`-th call, for a write after half of the data."""
    calls = iter(range(1_000_000))

    def function(*arguments: Any) -> Any:
        if next(calls) == call:
            if partial:
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise OSError(code, os.strerror(code))
        return real(*arguments)

    return function


@pytest.mark.parametrize("name", ["write", "fsync", "ftruncate"])
def test_each_failed_call_leaves_a_log_that_resumes_to_the_same_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_log(tmp_path / "uninterrupted", 4)
    failures: list[str] = []
    for call in range(100):
        folder = tmp_path / str(call)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing_at(call, getattr(os, name), errno.ENOSPC, partial=name == "write"))
            try:
                write_log(folder, 4)
            except StorageError as error:
                failures.append(str(error))
            else:
                break  # the call's turn did not come: every one has failed once
        assert write_log(folder, 4) == whole
        assert str(folder) in failures[-1]
        assert "No space left" in failures[-1]
    assert len(failures) >= 5


def test_an_append_that_fails_is_undone_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TrialLog(tmp_path, HEADER, pytest.fail) as log:
        log.append(make_trial(0))
        before = log.path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing_at(0, os.fsync, errno.EIO, partial=False))
            with pytest.raises(StorageError):
                log.append(make_trial(1))
        assert log.path.read_bytes() == before
        log.append(make_trial(1))
    assert [trial.number for trial in read_log(tmp_path)[1]] == [0, 1]


def test_an_append_whose_cut_fails_too_is_undone_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TrialLog(tmp_path, HEADER, pytest.fail) as log:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", failing_at(0, os.write, errno.ENOSPC, partial=True))
            patch.setattr(os, "ftruncate", failing_at(1, os.ftruncate, errno.EIO, partial=False))
            with pytest.raises(StorageError, match="No space left"):
                log.append(make_trial(0))
        assert not log.path.read_bytes().endswith(b"\n")
        log.append(make_trial(0))
    assert len(read_log(tmp_path)[1]) == 1
