"""Options and arguments that several commands have."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from typer.models import OptionInfo

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FIELD=VALUE]...", help="Fields laid over the file, as in goal.limits.latency_ms=0.3"),
]
Weights = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Dense weights (safetensors) instead of the environment's own."),
]
Out = Annotated[Path | None, typer.Option(help="The folder to write to.")]
Compiler = Annotated[str, typer.Option(help="The C compiler: zig, gcc or clang.")]
Target = Annotated[str | None, typer.Option(help="The instruction set (automc list targets).")]


def amount(help: str, least: float, most: float | None = None) -> OptionInfo:
    """An option that is a number of something: finite, and within its bounds, neither of which keeps NaN away."""
    option: OptionInfo = typer.Option(min=least, max=most, help=help, callback=_finite)
    return option


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise typer.BadParameter(f"must be a finite number. Got {value} instead.")
    return value
