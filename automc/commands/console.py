"""Speaking to a person: results on standard output, progress and errors on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

_SPEED_OF_S = 600  # the last seconds that tell how long the rest will take: a trial may need minutes
output = Console(highlight=False, soft_wrap=True)
messages = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line of result."""
    output.print(text, markup=False)


def note(text: str) -> None:
    """A line about what is going on."""
    messages.print(text, markup=False)


def show_error(error: Exception) -> None:
    """One block: what kind of fault it is, and all that is known of it."""
    title = "".join(" " + letter.lower() if letter.isupper() else letter for letter in type(error).__name__).strip()
    if messages.is_terminal:
        messages.print(Panel(Text(str(error)), title=title, border_style="red", expand=False))
    else:
        note(f"{title}: {error}")


class Meter:
    """Progress over at most `total` steps: a live bar on a terminal, else now and then a plain line."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def advance(self, description: str = "", known: bool = False) -> None:
        """One step is done; `description` says what came of it. A `known` one tells nothing of the time of others."""
        self.done += 1
        if self._bar is not None and known:
            self._bar.reset(self._task, completed=self.done, total=self.total, description=description)
        elif self._bar is not None:
            self._bar.update(self._task, advance=1, description=description)
        elif self.done in (1, self.total) or self.done % max(1, self.total // 20) == 0:
            note(f"{self.title} {self.done}/{self.total}  {description}")

    def leave_out(self, steps: int) -> None:
        """So many steps will not be needed."""
        self.total -= steps
        if self._bar is not None:
            self._bar.update(self._task, total=self.total)
        elif steps and self.done == self.total:
            note(f"{self.title} {self.done}/{self.total}")

    @contextmanager
    def running(self) -> Iterator[Meter]:
        """Show the bar while the steps are being done."""
        if not messages.is_terminal:
            yield self
            return
        columns = (
            TextColumn(self.title, style="bold", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=messages, speed_estimate_period=_SPEED_OF_S) as bar:
            self._bar = bar
            self._task = bar.add_task("", total=self.total)
            yield self
            self._bar = None
