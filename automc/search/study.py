"""`Study`: one searcher with one seed, its budget of trials and its log. To resume is to run it again."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from automc.compression.policy import Policy
from automc.environment.metrics import FAILED_REWARD, Outcome
from automc.errors import AutomcError, BudgetSpent, RunMismatch, RunnerError, StorageError
from automc.reporting import silent
from automc.search.log import Header
from automc.search.searchers.base import Evaluate
from automc.search.trials import Trial, TrialLog

_LOGGER = logging.getLogger(__name__)
_TIMES_NAME = "times.csv"


@dataclass(frozen=True)
class Progress:
    """How far a study has come: the trial just answered, the best so far, and whether the log knew the answer.

    `remark` is what a listener on the way found worth saying.
    """

    study: str
    trial: Trial
    best: Trial | None
    trials: int
    replayed: bool
    remark: str = ""


class Search(Protocol):
    """What a study needs of a searcher that knows its search space and seed."""

    def run(self, evaluate: Evaluate) -> None:
        """Call `evaluate` until nothing is left to try, or it raises `BudgetSpent`."""

    def save(self, folder: Path, trials: Sequence[Trial]) -> None:
        """Write what was learned, which is from these trials."""


class Pool(Protocol):
    """What a study needs to evaluate policies side by side, so many at once."""

    @property
    def workers(self) -> int: ...

    def begin(self, policy: Policy) -> Callable[[], Outcome]:
        """Begin an evaluation; what comes back waits for its outcome."""


@dataclass(frozen=True)
class Study:
    """One search, from its first trial or from where it was stopped.

    `header` identifies it: a log that was begun under another is refused. `evaluate` is a pure function of the policy.
    A trial fails, and the search goes on, where it raises an `AutomcError` or returns a number that is not finite;
    any other exception ends the run. `seconds` stops the run between two trials; no decision depends on it. A `pool`
    computes what a searcher asks for at once side by side; the log is the same, in the order of asking. What was
    learned is saved at the end, and when Ctrl-C ends the search.
    """

    folder: Path
    header: Header
    search: Search
    evaluate: Callable[[Policy], Outcome]
    trials: int
    report: Callable[[Progress], None] = silent
    seconds: float = math.inf
    pool: Pool | None = None

    def run(self) -> list[Trial]:
        """Search until the trials are spent, the searcher is done or the time is over; all trials so far.

        Raises `StudyLocked`, `RunMismatch`, `CorruptFile` and `StorageError` as `TrialLog`, and `RunMismatch` where the
        searcher asks for another policy than the log has at that place.
        """
        with TrialLog(self.folder, self.header, _LOGGER.warning) as log:
            answers = _Answers(self, log)
            try:
                self.search.run(answers)
            except BudgetSpent as stop:
                _LOGGER.info("%s: %s", self.folder, stop)
            except KeyboardInterrupt:
                self._save(answers, log)
                raise
            self._save(answers, log)
            return log.trials[: self.trials]

    def _save(self, answers: _Answers, log: TrialLog) -> None:
        if answers.told == log.trials:  # else it was told less than it had learned from when it was saved before
            self.search.save(self.folder, answers.told)


class _Answers(Evaluate):
    """What a searcher calls: the log answers what it knows, everything else is computed and appended.

    A policy that the study has evaluated before is a trial like any other, but is not computed again.
    """

    def __init__(self, study: Study, log: TrialLog) -> None:
        self._study = study
        self._log = log
        self._times = _Times(study.folder)
        self._deadline = time.monotonic() + study.seconds
        self._asked = 0
        self._known: dict[str, Trial] = {}  # by the policy's fingerprint
        self._begun: dict[str, Callable[[], Outcome]] = {}
        self._worst: float | None = None
        self._best: Trial | None = None

    @property
    def told(self) -> list[Trial]:
        """The trials that the searcher has asked for so far."""
        return self._log.trials[: self._asked]

    def __call__(self, policy: Policy) -> Trial:
        return next(self.many([policy]))

    def many(self, policies: Iterable[Policy]) -> Iterator[Trial]:
        waiting: deque[Policy] = deque()
        ahead = 1 if self._study.pool is None else self._study.pool.workers
        for policy in policies:
            self._begin(policy, self._asked + len(waiting))
            waiting.append(policy)
            if len(waiting) == ahead:
                yield self._answer(waiting.popleft())
        while waiting:
            yield self._answer(waiting.popleft())

    def _begin(self, policy: Policy, number: int) -> None:
        """Begin what is to be trial `number` in the pool, unless its answer is known or nobody will ask for it."""
        name, pool = policy.fingerprint, self._study.pool
        asked = len(self._log.trials) <= number < self._study.trials and time.monotonic() <= self._deadline
        if pool is not None and asked and name not in self._known and name not in self._begun:
            self._begun[name] = pool.begin(policy)

    def _answer(self, policy: Policy) -> Trial:
        number, study = self._asked, self._study
        if number >= study.trials:
            raise BudgetSpent(f"all {study.trials} trials are spent")
        replayed = number < len(self._log.trials)
        trial = self._recall(number, policy) if replayed else self._compute(number, policy)
        self._asked += 1
        self._known[policy.fingerprint] = trial
        if trial.complete:
            self._worst = trial.reward if self._worst is None else min(self._worst, trial.reward)
            if self._best is None or trial.reward > self._best.reward:
                self._best = trial
        with self._times.paused():
            study.report(Progress(study.folder.name, trial, self._best, study.trials, replayed))
        return trial

    def _recall(self, number: int, policy: Policy) -> Trial:
        trial = self._log.trials[number]
        asked, logged = policy.fingerprint, trial.policy.fingerprint
        if asked != logged:
            raise RunMismatch(
                f"{self._log.path}: replay diverged at trial {number}: the searcher now asks for policy {asked[:12]}, "
                f"the log has {logged[:12]}. The searcher or the machine is not the one that wrote the log; begin a "
                "new run under another name."
            )
        return trial

    def _compute(self, number: int, policy: Policy) -> Trial:
        if time.monotonic() > self._deadline:
            raise BudgetSpent(f"the time is over after {number} of {self._study.trials} trials")
        known = self._known.get(policy.fingerprint)
        with self._times.evaluation(number):
            if known is None:
                trial = self._evaluate(number, policy)
            elif known.complete:
                trial = replace(known, number=number)
            else:
                trial = self._failed(number, policy, known.reason)
        self._log.append(trial)
        return trial

    def _evaluate(self, number: int, policy: Policy) -> Trial:
        try:
            begun = self._begun.pop(policy.fingerprint, None)
            outcome = self._study.evaluate(policy) if begun is None else begun()
        except (StorageError, RunnerError):
            raise  # a full disk or a killed process says nothing about the policy
        except AutomcError as error:
            return self._failed(number, policy, f"{type(error).__name__}: {error}")
        if outcome.reason:
            return self._failed(number, policy, outcome.reason)
        numbers = {**outcome.metrics, "reward": outcome.reward}
        wrong = {
            name: value for name, value in numbers.items() if isinstance(value, float) and not math.isfinite(value)
        }
        if wrong:
            return self._failed(number, policy, ", ".join(f"{name} is {value}" for name, value in wrong.items()))
        return Trial(number, policy, outcome.metrics, outcome.reward)

    def _failed(self, number: int, policy: Policy, reason: str) -> Trial:
        worst = FAILED_REWARD if self._worst is None else self._worst
        return Trial(number, policy, {}, worst, "failed", reason)


class _Times:
    """Seconds of every computed trial, in a file beside the log, because no clock may enter the log.

    `evaluation_s` is the evaluation itself, or the wait for it where a pool began it before; `search_s` what searcher,
    environment and log took since the one before.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _TIMES_NAME
        self._ended = time.perf_counter()
        if not self._path.exists():
            self._write("trial,evaluation_s,search_s\n")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What runs inside it is no part of the search."""
        begun = time.perf_counter()
        yield
        self._ended += time.perf_counter() - begun

    @contextmanager
    def evaluation(self, trial: int) -> Iterator[None]:
        """Time what runs inside it."""
        begun = time.perf_counter()
        before, self._ended = begun - self._ended, begun
        yield
        self._ended = time.perf_counter()
        self._write(f"{trial},{self._ended - begun:.6f},{before:.6f}\n")

    def _write(self, line: str) -> None:
        try:
            with self._path.open("a") as stream:
                stream.write(line)
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror or error}") from error
