"""`EvaluationPool`: policies of one problem evaluated in several processes; no answer depends on which computed it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from automc.compression.policy import Policy
from automc.environment.metrics import Outcome
from automc.errors import RunnerError

if TYPE_CHECKING:
    from automc.environment.evaluator import Evaluator
    from automc.environment.problem import Problem

Load = Callable[[str], "Problem"]


class EvaluationPool:
    """`workers` processes that evaluate policies of the environment `name`, which each of them loads for itself.

    A context manager. `load` makes the problem of the name and must be picklable. An evaluation is a pure function of
    environment and policy, so the processes share nothing.
    """

    def __init__(self, load: Load, name: str, workers: int) -> None:
        import torch

        self.workers = workers
        context = multiprocessing.get_context("spawn")  # a forked child would inherit torch's threads in mid-work
        self._executor = ProcessPoolExecutor(workers, context, initializer=_begin)
        self._evaluate = partial(_outcome, load, name, torch.get_num_threads())

    def begin(self, policy: Policy) -> Callable[[], Outcome]:
        """Begin an evaluation; what comes back waits for its outcome.

        That raises what the evaluation raises, and `RunnerError` where a process died.
        """
        try:
            return partial(_wait, self._executor.submit(self._evaluate, policy))
        except BrokenProcessPool as error:
            raise _died() from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(cancel_futures=True)


def _wait(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise _died() from error


def _died() -> RunnerError:
    return RunnerError("a process that evaluated policies was killed; too little memory for so many --workers?")


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent answers it
    end_with_the_parent()


def end_with_the_parent() -> None:
    """Let this process end when the one that began it is killed, instead of waiting for its orders for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this one was begun by `multiprocessing`

    def wait() -> None:
        parent.join()
        os._exit(1)  # logs and files are written so that they survive it

    threading.Thread(target=wait, daemon=True).start()


_EVALUATORS: dict[str, Evaluator] = {}  # of this process, which serves one pool


def _outcome(load: Load, name: str, threads: int, policy: Policy) -> Outcome:
    if name not in _EVALUATORS:
        from automc.environment.evaluator import Evaluator
        from automc.network.resources import take_threads

        take_threads(threads)
        _EVALUATORS[name] = Evaluator(load(name))
    return _EVALUATORS[name].outcome(policy)
