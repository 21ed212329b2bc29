"""Ends that tests put to a run from inside it."""

from __future__ import annotations

from typing import Any

from automc.search.study import Progress


class Killed(Exception):
    """Stands in for the end of a process."""


def stop_after(trials: int) -> Any:
    """A report that interrupts an experiment after so many trials."""
    left = iter(range(trials))

    def stop(member: object, progress: Progress) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    return stop
