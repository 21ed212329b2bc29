"""`automc list`, `automc check` and `automc doctor`: what there is, whether it is well written, what was understood."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from automc.catalog import Kind, entries
from automc.commands.console import note, say
from automc.commands.specs import check_environment, check_experiment
from automc.errors import AutomcError, ConfigError, NameNotFound
from automc.files import cache_directory, closest, first_line, suggest
from automc.reading import read_spec
from automc.schema import EnvironmentSpec, ExperimentSpec, SearchSpaceSpec

if TYPE_CHECKING:
    from automc.environment.problem import Problem

_TRIED_POLICIES = 5
_KINDS: tuple[Kind, ...] = ("envs", "search_spaces", "latency_tables", "experiments")
_MODELS: dict[Kind, type[EnvironmentSpec | SearchSpaceSpec | ExperimentSpec]] = {
    "envs": EnvironmentSpec,
    "search_spaces": SearchSpaceSpec,
    "experiments": ExperimentSpec,
}


def list_command(what: str, clear: bool) -> None:
    """Print one kind of thing, or all of them but runs and cache."""
    listings: dict[str, Callable[[], list[str]]] = {kind: partial(_files, kind) for kind in _KINDS}
    listings |= {
        "networks": _networks,
        "data": _data,
        "metrics": _metrics,
        "searchers": _searchers,
        "targets": _targets,
    }
    others: dict[str, Callable[[], list[str]]] = {"runs": _runs, "cache": lambda: _cache(clear)}
    if clear and what != "cache":
        raise ConfigError("--clear goes with: automc list cache --clear")
    if what == "all":
        for name, listing in listings.items():
            say(f"{name}:")
            for line in listing():
                say(f"  {line}")
    elif what in listings | others:
        for line in (listings | others)[what]():
            say(line)
    else:
        raise NameNotFound(f"automc list {what}: no such kind{suggest(what, [*listings, *others])}")


def _files(kind: Kind) -> list[str]:
    lines = []
    for name, path in entries(kind).items():
        model = _MODELS.get(kind)
        try:
            described = str(path) if model is None else " ".join(read_spec(model, path).description.split())
        except ConfigError:
            described = f"(faulty; see automc check {name})"
        lines.append(f"{name:24s} {described}")
    return lines


def _networks() -> list[str]:
    from automc.network.zoo import network_names, zoo

    networks = zoo()

    def state(name: str) -> str:
        if name not in networks:
            return "registered by a plugin"
        return f"{networks[name].title} ({' x '.join(map(str, networks[name].shape))})"

    return [f"{name:24s} {state(name)}" for name in network_names()]


def _data() -> list[str]:
    from automc.network.datasets import dataset_names, stored_path
    from automc.network.download import fetchable_names

    def state(name: str) -> str:
        if name not in fetchable_names():
            return "here"  # shipped with a library, or registered by a plugin
        return f"here: {stored_path(name)}" if stored_path(name).exists() else f"fetch it with: automc data get {name}"

    return [f"{name:24s} {state(name)}" for name in dataset_names()]


def _metrics() -> list[str]:
    from automc.environment.quality import find_metric, metric_names

    return [f"{name:24s} {first_line(find_metric(name).measure)}" for name in metric_names()]


def _searchers() -> list[str]:
    from automc.search.searchers import searcher_names, searcher_settings, searcher_title

    lines = []
    for name in searcher_names():
        lines.append(f"{name:24s} {searcher_title(name)}")
        for setting, field in searcher_settings(name).model_fields.items():
            default = f"{setting}: {json.dumps(field.default)}"  # as an experiment's file would have it
            lines.append(f"  {default:22s} {field.description or ''}".rstrip())
    return lines


def _targets() -> list[str]:
    from automc.compiler.emulators import first_available, remedy
    from automc.compiler.isa import Target
    from automc.compiler.targets import TARGETS, host_target, runs_here

    def how_it_runs(target: Target) -> str:
        if runs_here(target):
            return "runs here" + (", this machine's default" if target.name == host_target() else "")
        machine = first_available(target.machines)
        if machine is not None:
            return f"runs under {machine.emulator} ({machine.model.partition(',')[0]})"
        if target.machines:
            return f"compiles only; to run it here: {remedy(target.machines)}"
        return "compiles only: this processor lacks it"

    def arithmetic(target: Target) -> str:
        return ", ".join(f"{path.name} ({path.weight_type.removesuffix('_t')})" for path in target.paths)

    rows = [(name, known.description, arithmetic(known), how_it_runs(known)) for name, known in TARGETS.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [" ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _runs() -> list[str]:
    from automc.search.identity import runs_below

    lines = []
    for folder in runs_below(Path("runs")):
        logs = sorted(folder.rglob("trials.log"))
        trials = sum(max(0, log.read_bytes().count(b"\n") - 1) for log in logs)
        report = folder / "report.html"
        state = f"report: {report}" if report.exists() else "not finished; the same command goes on"
        lines.append(f"{folder.name:24s} {len(logs)} studies, {trials} trials, {state}")
    return lines or ["no runs in this folder yet; start one with: automc run quickstart"]


def _cache(clear: bool) -> list[str]:
    root = cache_directory()
    lines = []
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        lines.append(f"{folder.name:24s} {size / 1e6:10.1f} MB  {folder}")
    if clear and lines:
        from automc.cost.device import host_tables

        for folder in root.iterdir():
            if folder != host_tables():
                shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        note(f"emptied {root}, but for the measured tables: runs on them could not go on with others")
    return lines or [f"{root} is empty"]


def check_command(names: list[str]) -> None:
    """Read every named file, or all, and print every fault. Raises `ConfigError` at the end if there were any."""
    files = [(kind, name, path) for kind in _KINDS for name, path in entries(kind).items()]
    known = [name for _, name, _ in files]
    for name in names:
        if name not in known and not Path(name).is_file():
            raise NameNotFound(f"no file or name '{name}'{closest(name, known)}")
    chosen = [(kind, f"{kind}/{name}", path) for kind, name, path in files if not names or name in names]
    chosen += [(_kind_of(Path(name)), name, Path(name)) for name in names if name not in known]
    faults = []
    for kind, place, path in chosen:
        try:
            _check(kind, path)
            say(f"{place}: good")
        except AutomcError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))


def _kind_of(path: Path) -> Kind:
    for kind in _KINDS:
        if path.resolve().parent.name == kind:
            return kind
    raise ConfigError(f"{path}: files are told apart by their folder, which must be one of {', '.join(_KINDS)}")


def _check(kind: Kind, path: Path) -> None:
    match kind:
        case "envs":
            check_environment(path)
        case "search_spaces":
            read_spec(SearchSpaceSpec, path)
        case "experiments":
            check_experiment(path)
        case "latency_tables":
            from automc.cost.table import read_table

            read_table(path)


def doctor_command(name: str, overrides: tuple[str, ...], weights: Path | None) -> None:
    """Print what was understood of an environment's network, and what a search will cost."""
    from automc.commands.specs import open_problem
    from automc.network.describe import describe
    from automc.network.resources import take_threads

    take_threads(1)  # as in a search
    problem = open_problem(name, overrides, weights)
    say(describe(problem.network))
    say("")
    for line in _outlook(problem):
        say(line)


def _energy(problem: Problem) -> list[str]:
    """What causes the dense network's energy, according to the device's model."""
    from automc.cost.model import CostModel

    pricing = problem.pricing
    if not isinstance(pricing, CostModel) or pricing.table.energy is None:
        return ["Energy: nothing is known of this device's"]
    return [f"Energy by a model, dense at 8 bits: {pricing.energy(problem.dense)}; {pricing.table.energy.source}"]


def _outlook(problem: Problem) -> list[str]:
    """What may be chosen, what it costs, and how long it will take, by judging a few policies."""
    import numpy as np

    from automc.compiler.memory import plan_memory
    from automc.cost.probes import random_program
    from automc.environment.evaluator import Evaluator
    from automc.environment.factors import COSTS
    from automc.search.searchers.random import random_policy

    note(f"judging {_TRIED_POLICIES} random policies, to see how long a search takes ...")
    evaluator, random, seconds = Evaluator(problem), np.random.default_rng(0), []
    for _ in range(_TRIED_POLICIES):
        policy = random_policy(problem, random)
        started = time.perf_counter()
        evaluator.outcome(policy)
        seconds.append(time.perf_counter() - started)
    dense, limits = problem.dense_cost, problem.limits.costs
    known = [metric for metric in COSTS if getattr(dense, metric) is not None]
    fewest = random_program(problem.network, problem.space.policy(problem.space.smallest()), seed=0)
    return [
        f"Search space: {len(problem.space.decisions)} decisions, 10^{problem.space.size:.0f} policies",
        f"Dense at 8 bits: {dense.latency_ms:.4g} ms, {dense.size_bytes} bytes of weights, {dense.macs} MACs",
        *_energy(problem),
        "Limits: " + ", ".join(f"{metric} {limit:.4g}" for metric, limit in limits.items()),
        "Reachable, each alone:",
        *(f"  {problem.lowest_line(metric)}" for metric in known),
        f"  peak memory: {plan_memory(fewest, problem.target)} bytes with the fewest channels",
        f"A trial takes about {min(seconds):.2g} s once its layers are prepared: "
        f"200 trials in about {max(1, round(200 * min(seconds) / 60))} min",
    ]
