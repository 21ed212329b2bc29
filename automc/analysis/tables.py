"""A run's comparison and front as tables: text for the page and for LaTeX, plain numbers for CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from automc.analysis.ranking import rank
from automc.analysis.runs import Run, Task, read_run
from automc.analysis.stats import Interval
from automc.analysis.units import QUANTITIES, digits
from automc.environment.quality import Reading
from automc.files import write_atomic
from automc.search.pareto import pareto_front
from automc.search.result import Result, Row

MISSING = "—"
_COSTS = tuple(QUANTITIES)
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", MISSING: "--", "–": "--"}
)


def comparison_head(result: Result) -> tuple[str, ...]:
    """The heads of the comparison's columns."""
    return (
        "network",
        f"test {result.metric.title}",
        "95 % interval",
        "predicted latency (ms)",
        "measured latency (ms)",
        *(QUANTITIES[name].label for name in _COSTS if name != "latency_ms"),
    )


def comparison_table(result: Result) -> list[tuple[str, ...]]:
    """One line of text a row of the result, under `comparison_head`; what does not exist is a dash."""
    return [_texts(row, result.metric) for row in result.rows]


def _texts(row: Row, reading: Reading) -> tuple[str, ...]:
    latency, *others = (_cost(name, getattr(row, name)) for name in _COSTS)
    measured = MISSING if row.measured is None else digits(row.measured.median_ms)
    bounds = interval(row.lower, row.upper, reading)
    return (row.label, reading.show(row.quality), bounds, latency, measured, *others)


def interval(lower: float | None, upper: float | None, reading: Reading) -> str:
    """The confidence interval of a quality, as text."""
    if lower is None or upper is None:
        return MISSING
    return f"{reading.number(lower)}–{reading.show(upper)}"


def front_head(reading: Reading) -> tuple[str, ...]:
    """The heads of the columns of a delivered front."""
    costs = (QUANTITIES[name].label for name in _COSTS)
    return ("folder in front/", f"{reading.title} on selection images", "95 % interval", *costs)


def front_table(task: Task) -> list[tuple[str, ...]]:
    """One line of text a network of the delivered front, under `front_head`."""
    return [_front_texts(row, task.reading) for row in task.front]


def _front_texts(row: Mapping[str, str], reading: Reading) -> tuple[str, ...]:
    column = f"selection_{reading.column}"
    bounds = interval(_known(row[f"{column}_lower"]), _known(row[f"{column}_upper"]), reading)
    costs = (_cost(name, _known(row[name])) for name in _COSTS)
    return (row["folder"], reading.show(float(row[column])), bounds, *costs)


def _known(text: str) -> float | None:
    return float(text) if text else None


def _cost(name: str, value: float | None) -> str:
    return MISSING if value is None else digits(value / QUANTITIES[name].divisor)


def write_tables(run_folder: Path) -> list[Path]:
    """Write `comparison.csv`, `comparison.tex`, `front.csv`, `ranking.csv` and `trials.csv` into a run's `tables`.

    The CSV files hold plain numbers in the units that their heads name; only tables that have a row are written, and
    their paths are the answer. Raises as `read_run`.
    """
    run = read_run(run_folder)
    delivered = [(task.environment, task.result) for task in run.tasks if task.result is not None]
    contents = {
        "comparison.csv": _csv(
            [_record(name, row, result.metric.column) for name, result in delivered for row in result.rows]
        ),
        "comparison.tex": "\n".join(_tabular(name, result) for name, result in delivered),
        "front.csv": _csv(list(_front(run))),
        "ranking.csv": _csv([row for task in run.tasks for row in _ranking(task)]),
        "trials.csv": _csv([_numbers(trial) for task in run.tasks for trial in _complete_trials(task)]),
    }
    written = [run_folder / "tables" / name for name, content in contents.items() if content]
    for path in written:
        write_atomic(path, contents[path.name])
    return written


def _csv(records: list[dict[str, Any]]) -> str:
    import pandas

    return str(pandas.DataFrame(records).to_csv(index=False, lineterminator="\n")) if records else ""


def _record(environment: str, row: Row, column: str) -> dict[str, Any]:
    return {
        "environment": environment,
        "network": row.label,
        column: row.quality,
        f"{column}_lower": row.lower,
        f"{column}_upper": row.upper,
        "test_images": row.images,
        "measured_latency_ms": None if row.measured is None else row.measured.median_ms,
        **{name: getattr(row, name) for name in _COSTS},
    }


def _ranking(task: Task) -> Iterator[dict[str, Any]]:
    """The searchers of an environment, the best first: interquartile means over seeds with their 95 % intervals.

    Hypervolumes are shares of the box from the best quality at cost 0 to the reference point, which is named.
    """
    cost, lowest = task.reference
    for standing in rank(task).standings:
        yield {
            "environment": task.environment,
            "searcher": standing.searcher,
            "seeds": len(standing.rewards),
            "trials": standing.trials,
            **_bounded("reward", standing.reward),
            **_bounded("hypervolume", standing.hypervolume),
            f"reference_{task.cost_metric}": cost,
            f"reference_{task.reading.column}": lowest,
        }


def _bounded(name: str, interval: Interval) -> dict[str, float | None]:
    """An interval's numbers; the bounds of a single seed do not exist."""
    known = np.isfinite(interval.lower)
    bounds = {f"{name}_lower": interval.lower if known else None, f"{name}_upper": interval.upper if known else None}
    return {name: interval.estimate, **bounds}


def _front(run: Run) -> Iterator[dict[str, Any]]:
    """The trials of each environment that no other trial beats, over the cost that its figure is drawn over."""
    for task in run.tasks:
        trials = _complete_trials(task)
        if not trials:
            continue
        cost = np.array([trial[task.cost_metric] for trial in trials], np.float64)
        front = pareto_front(cost, np.array([trial[task.reading.column] for trial in trials], np.float64))
        yield from (trials[index] for index in front)


def _complete_trials(task: Task) -> list[dict[str, Any]]:
    """Every complete trial with its quality and costs, in the order of searcher, seed and number."""
    records = []
    for studies in task.by_searcher.values():
        for study in studies:
            quality = task.reading.column
            columns = {name: study.column(name) for name in ("reward", quality, *_COSTS)}
            known = np.isfinite(columns[quality]) & np.isfinite(columns[task.cost_metric])
            for number in np.flatnonzero(known):
                place = {"environment": task.environment, "searcher": study.searcher, "seed": study.seed}
                numbers = {name: float(values[number]) for name, values in columns.items()}
                policy = study.trials["policy"].iloc[number].model_dump_json()
                records.append({**place, "trial": int(number), **numbers, "policy": policy})
    return records


def _numbers(trial: dict[str, Any]) -> dict[str, Any]:
    """A trial without its policy, which would make the table a hundred times as large."""
    return {name: value for name, value in trial.items() if name != "policy"}


def _tabular(environment: str, result: Result) -> str:
    """A LaTeX `tabular` for the booktabs package."""
    lines = [_latex_line(texts) for texts in comparison_table(result)]
    head = comparison_head(result)
    columns = "l" + "r" * (len(head) - 1)
    body = "\n".join(lines)
    return (
        f"% {_latex(environment)}\n\\begin{{tabular}}{{{columns}}}\n"
        f"\\toprule\n{_latex_line(head)}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


def _latex_line(texts: tuple[str, ...]) -> str:
    return " & ".join(map(_latex, texts)) + r" \\"


def _latex(text: str) -> str:
    """The text on one line, every character that LaTeX would obey made visible."""
    return " ".join(text.split()).translate(_LATEX)
