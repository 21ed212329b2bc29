"""Options and arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FIELD=VALUE]...", help="Fields laid over the file, as in goal.limits.latency_ms=0.3"),
]
Weights = Annotated[Path | None, typer.Option(help="Dense weights (safetensors) instead of the environment's own.")]
Out = Annotated[Path | None, typer.Option(help="The folder to write to.")]
Compiler = Annotated[str, typer.Option(help="The C compiler: zig, gcc or clang.")]
Target = Annotated[str | None, typer.Option(help="The instruction set (automc list targets).")]
