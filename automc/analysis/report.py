"""The report of a run: one HTML page that needs nothing else, no network, no script, no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from automc.analysis import narrative
from automc.analysis.figures import learning_figure, pareto_figure
from automc.analysis.plots import draw_learning, draw_pareto, draw_policy, draw_ranking, to_svg
from automc.analysis.ranking import Ranking, rank, verdict
from automc.analysis.runs import Task, read_run
from automc.analysis.stats import Interval
from automc.analysis.tables import MISSING, comparison_head, comparison_table, front_head, front_table
from automc.analysis.units import QUANTITIES, digits
from automc.files import write_atomic
from automc.search.result import LayerRow, Result

REPORT_NAME = "report.html"
_TEMPLATE = Path(__file__).with_name("report.html.j2")
_LAYER_HEAD = (
    "layer", "kind", "channels", "weight bits", "activation bits", "MACs (million)", "size (KiB)",
    "predicted latency (ms)", "of dense int8 (ms)", "kernel",
)  # fmt: skip
_TEST_HEAD = ("first", "second", "P(first beats second)", "p-value (Mann-Whitney, Holm)")


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run's folder and return its path.

    Equal runs give equal pages. A run without a winner gets the report of its studies. Raises as `read_run`.
    """
    run = read_run(run_folder)
    sections = [_section(task, f"t{position}", run.folder) for position, task in enumerate(run.tasks)]
    page = Environment(autoescape=True, undefined=StrictUndefined)
    template = page.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    path = run.folder / REPORT_NAME
    write_atomic(path, template.render(run=run, summary=narrative.summary(run), sections=sections) + "\n")
    return path


def _section(task: Task, prefix: str, folder: Path) -> dict[str, Any]:
    """Everything that the template says about one environment; `prefix` makes the ids of its figures unique."""
    ranking = rank(task)
    section: dict[str, Any] = {
        "title": task.environment,
        "quality": task.reading.title[:1].upper() + task.reading.title[1:],
        "description": "",
        "headline": "",
        "verdict": verdict(ranking),
        "pareto": None,
        "learning": None,
        "front_head": front_head(task.reading),
        "front": front_table(task),
        "front_caption": narrative.front_caption(task),
        "policy": None,
        "ranking": None,
        "method": narrative.method(task),
        "steps": narrative.next_steps(task, folder),
    }
    if task.result is not None:
        section |= _delivered(task.result, prefix)
    if (pareto := pareto_figure(task)) is not None:
        section["pareto"] = _figure(to_svg(draw_pareto(pareto), f"{prefix}-pareto"), narrative.pareto_caption(pareto))
    if (learning := learning_figure(task)) is not None:
        caption = narrative.learning_caption(learning)
        section["learning"] = _figure(to_svg(draw_learning(learning), f"{prefix}-learning"), caption)
    if ranking.compares:
        section |= _compared(ranking, task, prefix)
    return section


def _figure(svg: str, caption: str) -> dict[str, str]:
    # matplotlib escapes the texts that it writes into an SVG, so the picture is safe to stand in the page as it is.
    return {"svg": Markup(svg), "caption": caption}


def _delivered(result: Result, prefix: str) -> dict[str, Any]:
    """What the winner adds to a section."""
    caption = "What remains of each layer of the delivered network; a full track is the dense network at 8 bits."
    if any(layer.keep_ratio > 1 for layer in result.layers):
        caption += " A bar that is longer than its track is of a layer that was given more channels."
    policy = _figure(to_svg(draw_policy(result.layers), f"{prefix}-policy"), caption) if result.layers else None
    return {
        "description": result.description,
        "headline": narrative.headline(result),
        "verification": narrative.verification(result),
        "verified": result.verification.different_logits == 0,
        "comparison_head": comparison_head(result),
        "comparison": comparison_table(result),
        "won": result.rows.index(result.delivered),
        "policy": policy,
        "layer_head": _LAYER_HEAD,
        "layers": [_layer(layer) for layer in result.layers],
    }


def _layer(layer: LayerRow) -> tuple[str, ...]:
    return (
        layer.name,
        layer.kind,
        f"{layer.kept_channels} {'of' if layer.keep_ratio <= 1 else 'instead of'} {layer.channels}",
        layer.weights,
        "float" if layer.activation_bits is None else str(layer.activation_bits),
        digits(layer.macs / QUANTITIES["macs"].divisor),
        digits(layer.size_bytes / QUANTITIES["size_bytes"].divisor),
        MISSING if layer.latency_ms is None else digits(layer.latency_ms),
        MISSING if layer.dense_latency_ms is None else digits(layer.dense_latency_ms),
        layer.kernel or MISSING,
    )


def _compared(ranking: Ranking, task: Task, prefix: str) -> dict[str, Any]:
    """What several searchers or seeds add to a section."""
    cost, lowest = task.reference
    quantity = QUANTITIES[task.cost_metric]
    caption = (
        "A dot is the best reward of one seed, a diamond their interquartile mean, a bar its 95 % interval (stratified "
        f"bootstrap). Hypervolume is the share of the box up to {quantity.show(cost)} and down to "
        f"{task.reading.title} {task.reading.show(lowest)} that the trials of a seed dominate."
    )
    return {
        "ranking": _figure(to_svg(draw_ranking(ranking), f"{prefix}-ranking"), caption),
        "standing_head": (
            "searcher",
            "seeds",
            "trials",
            "best reward",
            "95 % interval",
            "hypervolume",
            "95 % interval",
        ),
        "standings": [
            (
                standing.searcher,
                str(len(standing.rewards)),
                str(standing.trials),
                f"{standing.reward.estimate:.4f}",
                _bounds(standing.reward),
                f"{standing.hypervolume.estimate:.4f}",
                _bounds(standing.hypervolume),
            )
            for standing in ranking.standings
        ],
        "test_head": _TEST_HEAD,
        "tests": [
            (test.first, test.second, f"{test.probability_of_improvement:.2f}", f"{test.p_value:.3f}")
            for test in ranking.tests
        ],
    }


def _bounds(interval: Interval) -> str:
    """The interval as text; that of a single seed has no bounds."""
    return f"{interval.lower:.4f}–{interval.upper:.4f}" if np.isfinite(interval.lower) else MISSING
