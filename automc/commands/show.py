"""`automc show`, `automc report` and `automc plot`: what a folder holds, as lines, as a page and as figures."""

from __future__ import annotations

from pathlib import Path

from automc.commands.console import say
from automc.errors import NameNotFound
from automc.files import suggest
from automc.search.identity import is_run, runs_below


def show_command(folder: Path) -> None:
    """Print a tuning's trials and what uses the best recipe, or the best trial so far of each study of a run."""
    from automc.search.tuning import RECIPE_NAME

    for line in _found(folder):
        say(line)
    if (folder / RECIPE_NAME).is_file():
        say((folder / RECIPE_NAME).read_text().rstrip())


def _found(folder: Path) -> list[str]:
    from automc.commands.tune import OUTPUT_NAME
    from automc.search.tuning import LOG_NAME, read_tuning

    if (folder / LOG_NAME).is_file():
        return read_tuning(folder)
    if (folder / OUTPUT_NAME).is_file() and not is_run(folder):
        return [f"{folder}: no trial has begun; {folder / OUTPUT_NAME} says what comes before, or why there is none"]
    return _studies(run_at(folder))


def _studies(run: Path) -> list[str]:
    from automc.search.trials import begun_logs, read_log

    lines = []
    for log in begun_logs(run, "*/*-*"):
        _, trials = read_log(log)
        best = max((trial for trial in trials if trial.complete), key=lambda trial: trial.reward, default=None)
        found = "no policy yet" if best is None else f"best reward {best.reward:.4f} in trial {best.number}"
        lines.append(f"{log.parent.relative_to(run)!s:40s} {len(trials)} trials, {found}")
    return lines or [f"{run}: no study has begun"]


def report_command(run_folder: Path) -> None:
    """Write the report and its tables again."""
    from automc.analysis.report import write_report
    from automc.analysis.tables import write_tables

    folder = run_at(run_folder)
    say(str(write_report(folder)))
    for path in write_tables(folder):
        say(str(path))


def plot_command(run_folder: Path, out: Path | None, formats: str) -> None:
    """Draw the figures as files."""
    from automc.analysis.plots import save_figures

    folder = run_at(run_folder)
    for path in save_figures(folder, out or folder / "figures", tuple(form.strip() for form in formats.split(","))):
        say(str(path))


def run_at(run_folder: Path) -> Path:
    """A run's folder, given as a path or as a name under `runs/`."""
    for folder in (run_folder, Path("runs") / run_folder):
        if is_run(folder):
            return folder
    known = [folder.name for folder in runs_below(Path("runs"))]
    raise NameNotFound(f"no run at {run_folder}{suggest(run_folder.name, known)}")
