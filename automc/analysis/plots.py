"""Drawing the figures with matplotlib: no screen, no global state, and equal data gives equal bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from automc.analysis.figures import LearningFigure, ParetoFigure, learning_figure, pareto_figure
from automc.analysis.ranking import Ranking, rank
from automc.analysis.runs import Task, read_run
from automc.analysis.units import QUANTITIES
from automc.errors import ConfigError
from automc.files import suggest, write_atomic
from automc.search.result import LayerRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which people with any colour vision can tell apart; the shapes differ as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
_SHAPES = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", (0, (5, 2)), (0, (2, 2)), (0, (7, 2, 2, 2)), (0, (1, 1.5)))
_MARKS = {
    "dense_int8": ("s", "#7F7F7F"),
    "uniform": ("D", "#E69F00"),
    "searched": ("*", "#CC0000"),
    "finetuned": ("P", "#CC0000"),
}
_INK = "#24292f"
_QUIET = "#8c959f"
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a name is never a formula
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _QUIET,
    "grid.alpha": 0.25,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "savefig.dpi": 200,
    "svg.hashsalt": "automc",  # else the ids in the file are random
    "pdf.fonttype": 42,
}
FORMATS = ("png", "pdf", "svg")


@contextmanager
def _styled() -> Iterator[None]:
    """The house style, for drawing and for saving; matplotlib's own settings are as before afterwards."""
    with matplotlib.rc_context(_STYLE):
        yield


def _canvas(width: float, height: float, panels: Sequence[float] = (1,)) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches with panels side by side, of the given relative widths."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=panels)
    return figure, list(axes[0])


def _margin(bottom: float, top: float) -> float:
    """Some air above the highest value of an axis."""
    return 0.06 * max(top - bottom, 1e-3)


def _look(position: int) -> tuple[str, str]:
    """Colour and shape of the searcher at this place in the alphabet."""
    again = position // len(_COLOURS)  # a colour that is used again has another shape
    return _COLOURS[position % len(_COLOURS)], _SHAPES[(position + again) % len(_SHAPES)]


@_styled()
def draw_pareto(data: ParetoFigure) -> Figure:
    """Quality over cost: a cloud and a front for each searcher, the networks to compare with, the budget."""
    quantity, reading = QUANTITIES[data.metric], data.reading
    figure, (axes,) = _canvas(7.2, 4.6)
    right = max(float(cloud.cost.max()) for cloud in data.clouds)
    for position, cloud in enumerate(data.clouds):
        colour, shape = _look(position)
        axes.scatter(
            cloud.cost / quantity.divisor,
            reading.factor * cloud.quality,
            s=15,
            c=colour,
            marker=shape,
            alpha=0.45,
            linewidths=0,
        )
        cost, quality = cloud.cost[cloud.front], reading.factor * cloud.quality[cloud.front]
        axes.step(
            np.append(cost, right) / quantity.divisor, np.append(quality, quality[-1]), where="post",
            color=colour, marker=shape, markersize=4, markevery=range(len(cost)), linewidth=1.4, label=cloud.searcher,
        )  # fmt: skip
    for mark in data.marks:
        shape, colour = _MARKS[mark.kind]
        axes.scatter(
            mark.cost / quantity.divisor, reading.factor * mark.quality, s=110 if shape == "*" else 60, marker=shape,
            c=colour, edgecolors=_INK, linewidths=0.8, zorder=5, label=mark.label,
        )  # fmt: skip
    if data.limit is not None:
        axes.axvline(data.limit / quantity.divisor, color=_INK, linestyle=(0, (4, 3)), linewidth=1, label="budget")
    if data.dense_quality is not None:
        axes.axhline(
            reading.factor * data.dense_quality, color=_QUIET, linestyle=":", linewidth=1.2, label="dense float32"
        )
    highest = [*(float(cloud.quality.max()) for cloud in data.clouds), *(mark.quality for mark in data.marks)]
    top = max(highest if data.dense_quality is None else [*highest, data.dense_quality])
    axes.set_ylim(reading.factor * data.floor, reading.factor * (top + _margin(data.floor, top)))
    axes.set_xlabel(f"predicted {quantity.label}" if data.metric == "latency_ms" else quantity.label)
    axes.set_ylabel(reading.axis("the search images"))
    figure.legend(loc="outside lower center", ncols=4)
    return figure


@_styled()
def draw_learning(data: LearningFigure) -> Figure:
    """Best reward so far by trial: the interquartile mean over seeds, in its 95 % interval."""
    figure, (axes,) = _canvas(7.2, 4.0)
    if data.rewards is not None:
        number = np.arange(1, len(data.rewards) + 1)
        axes.scatter(number, data.rewards, s=12, c=_QUIET, alpha=0.6, linewidths=0, label="a trial")
    for position, curve in enumerate(data.curves):
        colour, _ = _look(position)
        number = np.arange(1, len(curve.mean) + 1)
        dashes = _DASHES[position % len(_DASHES)]  # so that a curve under another can be seen
        axes.step(number, curve.mean, where="post", color=colour, linestyle=dashes, linewidth=1.8, label=curve.searcher)
        if curve.seeds > 1:
            axes.fill_between(number, curve.lower, curve.upper, step="post", color=colour, alpha=0.15, linewidth=0)
    top = max(float(np.nanmax(curve.upper)) for curve in data.curves)
    axes.set_ylim(data.floor, top + _margin(data.floor, top))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trials")
    seeds = sorted({curve.seeds for curve in data.curves})
    over = (
        ""
        if seeds == [1]
        else f"\ninterquartile mean over {' to '.join(map(str, sorted({seeds[0], seeds[-1]})))} seeds"
    )
    axes.set_ylabel(f"best reward so far{over}")
    figure.legend(loc="outside lower center", ncols=5)
    return figure


@_styled()
def draw_policy(layers: Sequence[LayerRow]) -> Figure:
    """A row a layer: how many channels remain, in how many bits it computes, and its latency before and after."""
    timed = any(layer.latency_ms is not None for layer in layers)
    titles = ["channels kept", "weight bits", "activation bits", *(["predicted latency (ms)"] if timed else [])]
    figure, panels = _canvas(8.0, 0.9 + 0.21 * len(layers), [1.3, 1, 1, 1.3][: len(titles)])
    rows = np.arange(len(layers))
    slowest = max((max(layer.latency_ms or 0.0, layer.dense_latency_ms or 0.0) for layer in layers), default=0.0)
    kept = [layer.keep_ratio for layer in layers]
    _bars(panels[0], kept, 1.0, _COLOURS[0], [f"{layer.kept_channels}/{layer.channels}" for layer in layers])
    weights: list[float] = [layer.weight_bits for layer in layers]
    _bars(panels[1], weights, 8.0, _COLOURS[2], [layer.weights for layer in layers])
    stored = [layer.activation_bits for layer in layers]
    _bars(
        panels[2],
        [bits or 0.0 for bits in stored],
        8.0,
        _COLOURS[4],
        ["float" if bits is None else str(bits) for bits in stored],
    )
    if timed:
        panels[3].barh(rows, [layer.dense_latency_ms or 0.0 for layer in layers], color=_QUIET, alpha=0.35, height=0.72)
        panels[3].barh(rows, [layer.latency_ms or 0.0 for layer in layers], color=_COLOURS[1], height=0.72)
        panels[3].set_xlim(0, slowest * 1.04)
        panels[3].xaxis.set_major_locator(MaxNLocator(3))
        panels[3].set_xlabel("grey: dense int8", fontsize=8)
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_ylim(len(layers) - 0.4, -0.6)
        axes.set_yticks(rows, [layer.name for layer in layers] if axes is panels[0] else [""] * len(layers))
        axes.tick_params(length=0, labelsize=8)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        if axes is not panels[-1] or not timed:
            axes.set_xticks([])
    return figure


def _bars(axes: Axes, values: Sequence[float], full: float, colour: str, texts: Sequence[str]) -> None:
    """Bars over a pale track that ends where nothing was compressed; only what was grown goes beyond it."""
    rows, end = np.arange(len(values)), max(full, *values)
    axes.barh(rows, full, color=_QUIET, alpha=0.2, height=0.72)
    axes.barh(rows, values, color=colour, height=0.72)
    for row, text in enumerate(texts):
        axes.text(end * 1.03, row, text, va="center", ha="left", fontsize=7.5)
    axes.set_xlim(0, end * 1.3)


@_styled()
def draw_ranking(ranking: Ranking) -> Figure:
    """The searchers' final best rewards: every seed as a dot, the interquartile mean with its 95 % interval."""
    figure, (axes,) = _canvas(7.2, 0.9 + 0.42 * len(ranking.standings))
    alphabet = sorted(standing.searcher for standing in ranking.standings)
    for row, standing in enumerate(ranking.standings):
        colour, _ = _look(alphabet.index(standing.searcher))
        axes.scatter(standing.rewards, np.full(len(standing.rewards), row), s=18, c=_QUIET, alpha=0.7, linewidths=0)
        if np.isfinite(standing.reward.lower):
            axes.hlines(row, standing.reward.lower, standing.reward.upper, color=colour, linewidth=3, alpha=0.6)
        axes.scatter(standing.reward.estimate, row, s=55, marker="D", c=colour, zorder=3)
    axes.set_yticks(range(len(ranking.standings)), [standing.searcher for standing in ranking.standings])
    axes.set_ylim(len(ranking.standings) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("best reward (interquartile mean, 95 % interval; a dot is a seed)")
    return figure


def figures(task: Task) -> Iterator[tuple[str, Figure]]:
    """Every figure that the state of `task` allows, with its name."""
    if (pareto := pareto_figure(task)) is not None:
        yield "pareto", draw_pareto(pareto)
    if task.result is not None and task.result.layers:
        yield "policy", draw_policy(task.result.layers)
    if (learning := learning_figure(task)) is not None:
        yield "learning", draw_learning(learning)
    if (ranking := rank(task)).compares:
        yield "ranking", draw_ranking(ranking)


@_styled()
def _render(figure: Figure, form: str) -> bytes:
    """The figure as a file's bytes: equal figures give equal bytes, so nothing in them tells when they were made."""
    _settle(figure)
    stream = io.BytesIO()
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[form]
    figure.savefig(stream, format=form, metadata=metadata, transparent=form == "svg")
    return stream.getvalue()


def _settle(figure: Figure) -> None:
    """Lay the figure out for good, without the last digits, in which the constraint solver is not repeatable."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(Bbox(axes.get_position().get_points().round(5)))


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an element for a page: its ink is the page's text colour, and `name` makes its ids unique there."""
    svg = _render(figure, "svg").decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return svg.replace(_INK, "currentColor")


def save_figures(run_folder: Path, folder: Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write every figure of a run into `folder` as `<environment>-<figure>.<format>`; the paths written.

    Raises `ConfigError` for an unknown format, and as `read_run`.
    """
    if unknown := [form for form in formats if form not in FORMATS]:
        raise ConfigError(f"no figure format '{unknown[0]}'{suggest(unknown[0], FORMATS)}")
    written = []
    for task in read_run(run_folder).tasks:
        for name, figure in figures(task):
            for form in formats:
                written.append(folder / f"{task.environment}-{name}.{form}")
                write_atomic(written[-1], _render(figure, form))
    return written
