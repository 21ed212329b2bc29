"""What a search that was stopped leaves behind: the best policies so far, compiled and verified."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from automc.compiler.artifact import compile_program
from automc.compiler.verify import verify
from automc.environment.evaluator import Evaluator
from automc.environment.problem import Problem
from automc.files import canonical_json, write_atomic
from automc.search.selection import best_candidates

Report = Callable[[str], None]
_LOGGER = logging.getLogger(__name__)
FOLDER_NAME = "best"
_IMAGES = 20  # that a library is verified on; a delivered winner sees all test images


def keep_best(problem: Problem, folder: Path, count: int = 3, report: Report = _LOGGER.info) -> list[Path]:
    """Compile the `count` best trials so far of all studies in `folder` into `folder/best/1` and so on, the best first.

    Each holds `policy.json`, `program.safetensors`, the verified `library`, and `trial.json` with what the search saw.
    Under a hard goal only policies that keep every limit are kept. They are prepared sequentially, and neither selected
    on other images nor fine-tuned: that is for `deliver`. The same call replaces what an earlier one has left.

    Raises `EvaluationFailed` where there is no policy yet, `VerificationError` where a library computes something else,
    and as `compile_program`.
    """
    candidates = best_candidates(problem, folder, count)
    evaluator, kept = Evaluator(problem, "sequential"), []
    shutil.rmtree(folder / FOLDER_NAME, ignore_errors=True)
    for place, candidate in enumerate(candidates, start=1):
        target, trial = folder / FOLDER_NAME / str(place), candidate.trial
        program = evaluator.program(trial.policy)
        library = compile_program(program, problem.target, target / "library")
        verify(library, program, problem.splits.selection.pixels[:_IMAGES]).require_equal()
        program.save(target / "program.safetensors")
        write_atomic(target / "policy.json", trial.policy.to_json())
        origin = {"searcher": candidate.searcher, "seed": candidate.seed, "trial": trial.number}
        record = {**origin, "reward": trial.reward, "metrics": dict(trial.metrics)}
        write_atomic(target / "trial.json", canonical_json(record) + "\n")
        report(
            f"kept trial {trial.number} of {candidate.searcher}-{candidate.seed}: reward {trial.reward:.4f}, {target}"
        )
        kept.append(target)
    return kept
