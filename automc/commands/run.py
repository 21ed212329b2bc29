"""`automc run`: from a name to searched policies, a verified library and a report; the same command resumes it."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automc.catalog import entries, find
from automc.commands.console import Meter, note, say
from automc.commands.plugins import import_plugins
from automc.commands.specs import check_environment, check_experiment, open_problem
from automc.environment.reward import HARD_GOALS
from automc.errors import ConfigError, NameNotFound
from automc.files import suggest
from automc.reading import make_spec
from automc.schema import EnvironmentSpec, ExperimentSpec, GoalSpec, MonitorSpec
from automc.search.identity import begun_identity, identify

if TYPE_CHECKING:
    from automc.environment.problem import Problem
    from automc.search.experiment import Member
    from automc.search.result import Result
    from automc.search.study import Progress
    from automc.search.trials import Trial

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)([smh])$")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_SEARCHER, _TRIALS = "ppo", 200  # of an environment that is run by itself
_SETTINGS_FOR_A_FRONT: Mapping[str, Mapping[str, Any]] = {
    "ppo": {"least_budget": 0.5},
    "nsga2": {"front": True},
    "nsga3": {"front": True},
}
_OF_ENVIRONMENT = "env."  # how an override of an experiment says that it is for its environments' files


def run_command(
    name: str,
    overrides: tuple[str, ...],
    weights: Path | None,
    searcher: str | None,
    trials: int | None,
    seed: int | None,
    time: str | None,
    only: str | None,
    workers: int,
    monitor: int | None,
    front: int | None,
    out: Path | None,
    plugins: tuple[str, ...],
) -> None:
    """Search, deliver and report, or go on with it."""
    seconds = _seconds(time)
    folder = out or Path("runs") / name
    spec, of_environments = _specification(name, overrides, weights, searcher, trials, seed, front, folder)
    if monitor is not None:
        spec = spec.model_copy(update={"monitor": MonitorSpec(every=monitor)})
    from automc.network.resources import take_threads
    from automc.search.experiment import members, run_experiment

    # One thread a study: its log then does not depend on the machine's cores. Studies run side by side instead.
    take_threads(1)
    chosen = members(spec, only)
    # The number of trials may grow, monitor and front change none of them; everything else makes another run.
    identity = spec.model_dump(mode="json", exclude={"trials", "description", "monitor", "front"})
    weights_file = None if weights is None else str(weights)
    identify(folder, {**identity, "overrides": list(of_environments), "weights": weights_file})
    load: Callable[[str], Problem] = partial(_load, overrides=of_environments, weights=weights, plugins=plugins)
    if workers == 1:  # else each study's process loads its own
        load = lru_cache(1)(load)  # what the last study calibrated serves its delivery
    meter = Meter(name, len(chosen) * spec.trials)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how job schedulers say Ctrl-C
    searched = dict.fromkeys(member.environment for member in chosen)
    try:
        with meter.running():
            run_experiment(
                spec, folder, load, only=only, workers=workers, seconds=seconds, report=partial(_show, meter),
                ended=lambda member, trials: meter.leave_out(spec.trials - trials),
            )  # fmt: skip
        if only is not None:
            note(f"these {len(chosen)} studies are done; the same command without --only delivers the winner")
            for environment in searched:
                _keep(load, folder / environment)
            return
        for environment in spec.envs:
            problem = load(environment)
            _deliver(problem, folder / environment)
            if spec.front:
                _deliver_front(problem, folder / environment, spec.front)
    except KeyboardInterrupt:
        for environment in searched:
            _keep(load, folder / environment)
        raise
    _report(folder)


def _keep(load: Callable[[str], Problem], folder: Path) -> None:
    """Compile the best of what has been found of an environment."""
    from automc.search.kept import keep_undelivered
    from automc.search.trials import begun_logs

    if begun_logs(folder, "*-*"):  # else there is nothing to load a problem for
        note(f"{folder.name}: compiling the best policies so far (Ctrl-C leaves at once)")
        keep_undelivered(load(folder.name), folder, note)


def _specification(
    name: str,
    overrides: tuple[str, ...],
    weights: Path | None,
    searcher: str | None,
    trials: int | None,
    seed: int | None,
    front: int | None,
    folder: Path,
) -> tuple[ExperimentSpec, tuple[str, ...]]:
    """The experiment of that name, or one of an environment and one searcher; and the environments' overrides.

    Whatever they name is there. `folder` is the run's.
    """
    if name in entries("experiments"):
        if searcher is not None:
            raise ConfigError(
                f"--searcher is for an environment, and {name} is an experiment, which names its own: "
                f"lay others over it, as in searchers=[{searcher}]"
            )
        inner = tuple(text.removeprefix(_OF_ENVIRONMENT) for text in overrides if text.startswith(_OF_ENVIRONMENT))
        outer = tuple(text for text in overrides if not text.startswith(_OF_ENVIRONMENT))
        for text in outer:
            field = text.partition("=")[0].partition(".")[0]
            if field in EnvironmentSpec.model_fields.keys() - ExperimentSpec.model_fields.keys():
                field = f"{_OF_ENVIRONMENT}{field}"
                raise ConfigError(f"override '{text}': {name} is an experiment; a field of its environments is {field}")
        options = {"trials": trials, "seeds": None if seed is None else [seed], "front": front}
        asked = tuple(f"{field}={value}" for field, value in options.items() if value is not None)
        experiment = check_experiment(find("experiments", name), outer + asked, inner, weights)
        return experiment, (*experiment.overrides, *inner)
    if name not in entries("envs"):
        known = [*entries("experiments"), *entries("envs")]
        raise NameNotFound(f"no '{name}' in experiments/ or envs/{suggest(name, known)}")
    spec = check_environment(find("envs", name), overrides, weights)
    chosen = searcher or _SEARCHER
    content = {
        "description": spec.description,
        "envs": [name],
        "searchers": [{"name": chosen, "settings": _settings(chosen, spec.goal, front, folder)}],
        "seeds": [seed or 0],
        "trials": trials or _TRIALS,
        "front": front or 0,
    }
    return make_spec(ExperimentSpec, content, f"automc run {name}"), overrides


def _settings(searcher: str, goal: GoalSpec, front: int | None, folder: Path) -> Mapping[str, Any]:
    """What suits a front, if one is asked for; but a run that has begun keeps its own, and has the front of its trials.

    An agent's budgets are shares of limits that are hard.
    """
    suited = {} if searcher == "ppo" and goal.reward not in HARD_GOALS else _SETTINGS_FOR_A_FRONT.get(searcher, {})
    asked = suited if front else {}
    for begun in (begun_identity(folder) or {}).get("searchers", []):
        if begun["name"] == searcher and begun["settings"] != asked:
            settings: Mapping[str, Any] = begun["settings"]
            if front:
                note(f"{folder} was begun without --front, so {searcher} did not search for one; --out begins anew")
            return settings
    return asked


def _seconds(text: str | None) -> float:
    if text is None:
        return math.inf
    match = _DURATION.match(text)
    if not match:
        raise ConfigError(f"--time must be a number and a unit, as in 90s, 10m or 2h. Got {text!r} instead.")
    return float(match[1]) * _SECONDS[match[2]]


def _load(name: str, overrides: tuple[str, ...], weights: Path | None, plugins: tuple[str, ...]) -> Problem:
    import_plugins(plugins)  # again, because a study's own process knows nothing of them
    return open_problem(name, overrides, weights)


def _show(meter: Meter, member: Member, progress: Progress) -> None:
    """One trial more, and the best of its study so far."""
    best = progress.best
    found = "no policy yet" if best is None else (
        f"best of {member}: reward {best.reward:.4f}, {best.metrics['latency_ms']:.4f} ms"
    )  # fmt: skip
    meter.advance(found + _timed(progress.trial), progress.replayed)
    for line in progress.remark.splitlines():
        note(line)


def _timed(trial: Trial) -> str:
    """How far the table is from a trial that was timed."""
    measured = trial.metrics.get("measured_latency_ms")
    if measured is None:
        return ""
    return f"; timed: {measured:.4f} ms, the table says {trial.metrics['latency_ms'] / measured - 1:+.1%}"


def _deliver(problem: Problem, folder: Path) -> None:
    from automc.search.deliver import deliver

    result = deliver(problem, folder, report=note)
    for line in _summary(result):
        say(line)
    say(f"library: {folder / 'winner' / result.artifact}")


def _deliver_front(problem: Problem, folder: Path, count: int) -> None:
    from automc.search.kept import INDEX_NAME, keep_front

    kept = keep_front(problem, folder, count, note)
    say(f"front:   {len(kept)} libraries, the cheapest first in {kept[0].parent / INDEX_NAME}")


def _summary(result: Result) -> list[str]:
    """The rows that a reader compares, as plain lines."""
    from automc.analysis.tables import interval

    lines = [
        f"{result.environment}: {result.goal}",
        f"{'':26s} {f'test {result.metric.title}':>13s} {'95 % interval':>15s} {'predicted':>12s} {'measured':>12s} "
        f"{'weights':>10s}",
    ]
    for row in result.rows:
        bounds = interval(row.lower, row.upper, result.metric)
        predicted = "-" if row.latency_ms is None else f"{row.latency_ms:.4f} ms"
        measured = "-" if row.measured is None else f"{row.measured.median_ms:.4f} ms"
        size = f"{row.size_bytes / 1000:.1f} kB"
        lines.append(
            f"{row.label:26s} {result.metric.show(row.quality):>13s} {bounds:>15s} "
            f"{predicted:>12s} {measured:>12s} {size:>10s}"
        )
    found = result.verification
    lines.append(f"verified: {found.images} images, {found.different_logits} of {found.logits} output values differ")
    return lines


def _report(folder: Path) -> None:
    from automc.analysis.report import write_report
    from automc.analysis.tables import write_tables

    write_tables(folder)
    say(f"report:  {write_report(folder)}")
