"""What a person sees on the way: a bar that comes to its end, and a time left that only real work tells."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from automc.commands import console
from automc.commands.console import Meter
from automc.commands.run import _summary
from tests.runs import make_result


def test_known_steps_do_not_tell_how_long_the_others_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "messages", Console(file=io.StringIO(), force_terminal=True))
    meter = Meter("mine", 100)
    with meter.running():
        assert meter._bar is not None
        [task] = meter._bar.tasks
        for _ in range(60):
            meter.advance("replayed", known=True)
        assert (task.completed, task.time_remaining) == (60, None)
        for _ in range(3):
            meter.advance("computed")
        assert task.completed == 63
        assert task.time_remaining is not None
        meter.leave_out(37)
        assert (task.completed, task.total, task.finished) == (63, 63, True)


def test_without_a_terminal_the_last_line_is_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    meter = Meter("mine", 100)
    with meter.running():
        for _ in range(7):
            meter.advance("found")
        meter.leave_out(93)
        meter.leave_out(0)
    assert capsys.readouterr().err.splitlines() == ["mine 1/100  found", "mine 5/100  found", "mine 7/7"]


def test_the_summary_says_how_sure_its_numbers_are() -> None:
    result = make_result()
    for row, line in zip(result.rows, _summary(result)[2:-1], strict=True):
        assert row.lower is not None
        assert row.upper is not None
        assert f"{100 * row.quality:.2f} %" in line
        assert f"{100 * row.lower:.2f}–{100 * row.upper:.2f} %" in line
