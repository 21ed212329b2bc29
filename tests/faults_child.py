"""A small real search in a process of its own, for the tests that kill it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch

import automc.search.searchers.optuna_samplers
import automc.search.searchers.ppo  # noqa: F401 (imported once, by the process that all others are forked from)
from automc.compression.policy import Policy
from automc.environment.metrics import Outcome
from automc.search.searchers import build_searcher
from automc.search.study import Study
from tests.problems import formula_outcome, tiny_problem


def search(folder: Path, searcher: str, trials: int, pause_s: float) -> None:
    """Run one study to its end; each evaluation takes `pause_s`, about every fourth policy cannot be judged.

    What the process says goes to the file `said` in the folder.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process begun in the background ignores
    folder.mkdir(parents=True, exist_ok=True)
    os.dup2(os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    torch.set_num_threads(1)
    problem = tiny_problem()

    def evaluate(policy: Policy) -> Outcome:
        time.sleep(pause_s)
        if int(policy.fingerprint, 16) % 4 == 0:
            return Outcome.failed("cannot be judged")
        return formula_outcome(problem, policy)

    settings = {"imagined": 2, "epochs": 1} if searcher == "ppo" else {}
    Study(folder, {"searcher": searcher}, build_searcher(searcher, settings, problem, 0), evaluate, trials).run()
