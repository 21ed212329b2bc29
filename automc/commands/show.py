"""`automc report` and `automc plot`: a run's page and figures, from what its folder holds."""

from __future__ import annotations

from pathlib import Path

from automc.commands.console import say
from automc.errors import NameNotFound
from automc.files import closest
from automc.search.identity import is_run, runs_below


def report_command(run_folder: Path) -> None:
    """Write the report and its tables again."""
    from automc.analysis.report import write_report
    from automc.analysis.tables import write_tables

    folder = _run(run_folder)
    say(str(write_report(folder)))
    for path in write_tables(folder):
        say(str(path))


def plot_command(run_folder: Path, out: Path | None, formats: str) -> None:
    """Draw the figures as files."""
    from automc.analysis.plots import save_figures

    folder = _run(run_folder)
    for path in save_figures(folder, out or folder / "figures", tuple(form.strip() for form in formats.split(","))):
        say(str(path))


def _run(run_folder: Path) -> Path:
    """A run's folder, given as a path or as a name under `runs/`."""
    for folder in (run_folder, Path("runs") / run_folder):
        if is_run(folder):
            return folder
    known = [folder.name for folder in runs_below(Path("runs"))]
    raise NameNotFound(f"no run at {run_folder}{closest(run_folder.name, known)} (known: {', '.join(known) or 'none'})")
