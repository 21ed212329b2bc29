"""Names on the command line to checked specifications and loaded problems."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from automc.catalog import find
from automc.commands.console import note
from automc.reading import Checks, Place, read_spec
from automc.schema import EnvironmentSpec, ExperimentSpec, SearchSpaceSpec

if TYPE_CHECKING:
    from automc.environment.problem import Problem


def read_environment(name: str, overrides: tuple[str, ...] = ()) -> tuple[EnvironmentSpec, Path]:
    """An environment's specification with the overrides laid over it, and its file."""
    path = find("envs", name)
    return read_spec(EnvironmentSpec, path, overrides), path


def check_environment(path: Path, overrides: tuple[str, ...] = (), weights: Path | None = None) -> EnvironmentSpec:
    """An environment's specification, all that it names being there; its weights, unless others are given."""
    return read_spec(EnvironmentSpec, path, overrides, partial(_named_by_environment, path, weights))


def check_experiment(
    path: Path, overrides: tuple[str, ...] = (), of_environments: tuple[str, ...] = (), weights: Path | None = None
) -> ExperimentSpec:
    """An experiment's specification, its searchers being known, and its environments as `check_environment` asks.

    The overrides `of_environments` lie over the experiment's own.
    """
    return read_spec(ExperimentSpec, path, overrides, partial(_named_by_experiment, of_environments, weights))


def open_problem(name: str, overrides: tuple[str, ...], weights: Path | None, may_measure: bool = True) -> Problem:
    """Everything that an environment names, loaded; says what it measures on the way, if it may."""
    path = find("envs", name)
    spec = check_environment(path, overrides, weights)
    from automc.environment.loading import load_problem

    return load_problem(spec, path, weights, note, may_measure=may_measure)


def _named_by_environment(path: Path, weights: Path | None, spec: EnvironmentSpec) -> Checks:
    from automc.environment.loading import own_weights
    from automc.environment.quality import find_metric
    from automc.network.datasets import find_dataset
    from automc.network.zoo import find_network

    return {
        ("network",): lambda: find_network(spec.network),
        ("weights",): lambda: weights or spec.weights is None or own_weights(spec, path),
        ("data", "name"): lambda: spec.data.folder or find_dataset(spec.data.name),
        ("metric",): lambda: find_metric(spec.metric),
        ("device",): lambda: spec.device == "host" or find("latency_tables", spec.device),
        ("search_space",): lambda: read_spec(SearchSpaceSpec, find("search_spaces", spec.search_space)),
    }


def _named_by_experiment(of_environments: tuple[str, ...], weights: Path | None, spec: ExperimentSpec) -> Checks:
    from automc.search.experiment import members

    def environment(name: str) -> None:
        check_environment(find("envs", name), (*spec.overrides, *of_environments), weights)

    checks: dict[Place, Callable[[], object]] = {("searchers",): lambda: members(spec)}
    for position, name in enumerate(spec.envs):
        checks["envs", position] = partial(environment, name)
    return checks
