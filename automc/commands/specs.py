"""Names on the command line to checked specifications and loaded problems."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from automc.catalog import find
from automc.commands.console import note
from automc.reading import read_spec
from automc.schema import EnvironmentSpec

if TYPE_CHECKING:
    from automc.environment.problem import Problem


def read_environment(name: str, overrides: tuple[str, ...] = ()) -> tuple[EnvironmentSpec, Path]:
    """An environment's specification with the overrides laid over it, and its file."""
    path = find("envs", name)
    return read_spec(EnvironmentSpec, path, overrides), path


def open_problem(name: str, overrides: tuple[str, ...], weights: Path | None, may_measure: bool = True) -> Problem:
    """Everything that an environment names, loaded; says what it measures on the way, if it may."""
    spec, path = read_environment(name, overrides)
    from automc.environment.loading import load_problem

    return load_problem(spec, path, weights, note, may_measure=may_measure)
