"""An experiment: environments x searchers x seeds, one study each, run here or spread over processes and machines."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

from automc.errors import ConfigError
from automc.reporting import silent
from automc.schema import ExperimentSpec, MonitorSpec, SearcherSpec
from automc.search.identity import library_versions
from automc.search.log import Header
from automc.search.pool import EvaluationPool, end_with_the_parent
from automc.search.scale import write_scale
from automc.search.searchers import build_searcher, check_settings
from automc.search.study import Progress, Study

if TYPE_CHECKING:
    from automc.environment.evaluator import Evaluator
    from automc.environment.problem import Problem

_LOGGER = logging.getLogger(__name__)
_FORMAT = 1  # of the log's lines
_PART = re.compile(r"^([1-9]\d*)/([1-9]\d*)$")


@dataclass(frozen=True)
class Member:
    """One study of an experiment, the `position`-th (from 1) of `of`."""

    environment: str
    searcher: SearcherSpec
    seed: int
    position: int
    of: int

    @property
    def folder(self) -> Path:
        """Where its log stands, relative to the run's folder."""
        return Path(self.environment, f"{self.searcher.name}-{self.seed}")

    def __str__(self) -> str:
        return f"{self.environment} {self.searcher.name}-{self.seed}"


def members(spec: ExperimentSpec, only: str | None = None) -> list[Member]:
    """The studies of an experiment in the order of running; with `only`, as in `2/8`, every eighth from the second.

    Raises `ConfigError` for settings that a searcher does not have or that name a file that is not there, for two
    searchers that would share a folder, and for an `only` that is not K/N; `NameNotFound` for an unknown searcher.
    """
    names = [searcher.name for searcher in spec.searchers]
    for searcher in spec.searchers:
        if names.count(searcher.name) > 1:
            raise ConfigError(f"'{searcher.name}' appears twice; its studies would share their folders")
        check_settings(searcher.name, searcher.settings).hashes()  # reads the files that they name
    product = [(env, searcher, seed) for env in spec.envs for searcher in spec.searchers for seed in spec.seeds]
    found = [Member(*one, position, len(product)) for position, one in enumerate(product, start=1)]
    if only is None:
        return found
    part = _PART.match(only)
    if not part or int(part[1]) > int(part[2]):
        raise ConfigError(f"only must be K/N with K from 1 to N, as in 2/8. Got {only!r} instead.")
    return found[int(part[1]) - 1 :: int(part[2])]


def study_header(problem: Problem, searcher: SearcherSpec, seed: int) -> Header:
    """All that decides what a study's log will hold; not how many trials it may have, so that more can be added."""
    import torch

    settings = check_settings(searcher.name, searcher.settings)
    return {
        "format": _FORMAT,
        "environment": problem.name,
        "metric": problem.metric.reading.model_dump(),
        "searcher": searcher.name,
        "settings": settings.model_dump(),
        "seed": seed,
        "hashes": {**problem.identity, **settings.hashes()},
        "versions": library_versions(),
        "threads": torch.get_num_threads(),
    }


def run_experiment(
    spec: ExperimentSpec,
    folder: Path,
    load: Callable[[str], Problem],
    *,
    only: str | None = None,
    workers: int = 1,
    seconds: float = math.inf,
    report: Callable[[Member, Progress], None] = silent,
    ended: Callable[[Member, int], None] = silent,
) -> None:
    """Run every study of `spec` in its folder below `folder`; the same call goes on where a stopped one was.

    Before the first study begins, every environment is loaded and every searcher built once, so that whatever they
    refuse is told before any time is spent; `seconds` count from then on.

    `load` makes the problem of an environment's name. Several `workers` are processes: studies run side by side, and
    where there are more workers than studies, so do the evaluations that a searcher asks for at once. `load` must then
    be picklable, as each process loads its own. After `seconds` no study makes a trial more, and no other one begins.
    `ended` is told of every study how many trials it has in the end. Raises as `members`, `load`, `build_searcher` and
    `Study.run`.
    """
    chosen = members(spec, only)
    if not chosen:  # a part of more parts than there are studies
        return
    studies = min(workers, len(chosen))
    known = lru_cache(1)(_evaluator)  # studies of one environment share what is known
    _check(chosen, load, known if studies == 1 else _evaluator)
    deadline = time.monotonic() + seconds
    run = partial(
        _run_member,
        load=load,
        workers=workers // studies,
        trials=spec.trials,
        folder=folder,
        deadline=deadline,
        monitor=spec.monitor,
    )
    if studies > 1:
        _run_in_processes(chosen, run, studies, report, ended)
        return
    for member in chosen:
        ended(member, run(member, known, report=report))


def _check(
    chosen: list[Member],
    load: Callable[[str], Problem],
    evaluator_of: Callable[[Callable[[str], Problem], str], Evaluator],
) -> None:
    """Load every environment, last the one that is searched first; let each searcher refuse what it will."""
    for environment in reversed(dict.fromkeys(member.environment for member in chosen)):
        problem = evaluator_of(load, environment).problem
        for member in chosen:
            if member.environment == environment:
                build_searcher(member.searcher.name, member.searcher.settings, problem, member.seed)


def _evaluator(load: Callable[[str], Problem], environment: str) -> Evaluator:
    from automc.environment.evaluator import Evaluator

    return Evaluator(load(environment))


def _run_member(
    member: Member,
    evaluator_of: Callable[[Callable[[str], Problem], str], Evaluator],
    load: Callable[[str], Problem],
    workers: int,
    trials: int,
    folder: Path,
    deadline: float,
    monitor: MonitorSpec | None,
    report: Callable[[Member, Progress], None],
) -> int:
    """How many trials the study of `member` has in the end."""
    from automc.search.monitor import Monitor

    if time.monotonic() > deadline:
        return 0
    evaluator = evaluator_of(load, member.environment)
    problem, searcher = evaluator.problem, member.searcher
    write_scale(problem, folder / member.environment)
    place, header = folder / member.folder, study_header(problem, searcher, member.seed)
    search = build_searcher(searcher.name, searcher.settings, problem, member.seed)
    if workers > 1 and not search.asks_side_by_side:
        _LOGGER.warning("%s asks for one policy after the other, so that one process evaluates them", member)
        workers = 1
    listener: Callable[[Progress], None] = partial(report, member)
    with ExitStack() as stack:
        if monitor is not None:
            listener = stack.enter_context(Monitor(problem, monitor, place / "monitor", header, listener))
        pool = stack.enter_context(EvaluationPool(load, member.environment, workers)) if workers > 1 else None
        seconds = max(0.0, deadline - time.monotonic())
        return len(Study(place, header, search, evaluator.outcome, trials, listener, seconds, pool).run())


def _run_in_processes(
    chosen: list[Member],
    run: Callable[..., int],
    workers: int,
    report: Callable[[Member, Progress], None],
    ended: Callable[[Member, int], None],
) -> None:
    """Run each study in a process of its own kind, and report here what they report there."""
    import torch

    context = multiprocessing.get_context("spawn")  # a forked child would inherit torch's threads in mid-work
    processes = ProcessPoolExecutor(workers, context, initializer=end_with_the_parent)
    with context.Manager() as manager, processes as pool:
        messages = manager.Queue()
        threads = torch.get_num_threads()  # the same for all, because a study's log is bound to it
        running = {pool.submit(_run_there, run, member, threads, messages): member for member in chosen}
        try:
            while running:
                done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                while not messages.empty():
                    report(*messages.get())
                for future in done:
                    ended(running.pop(future), future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # Ctrl-C reaches all processes of a terminal, a job scheduler's signal this one alone.
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGINT)  # type: ignore[arg-type]
            raise


def _run_there(run: Callable[..., int], member: Member, threads: int, messages: Queue[Any]) -> int:
    from automc.network.resources import take_threads

    take_threads(threads)
    return run(member, _evaluator, report=lambda member, progress: messages.put((member, progress)))
