"""How work that takes a while says what it is doing: to somebody who is told a line, or to nobody."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str], None]


def silent(*said: object) -> None:
    """Report nothing."""
