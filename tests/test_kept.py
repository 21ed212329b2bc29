"""What stands beside a winner: whole and verified at any moment, whoever is killed, and built once."""

from __future__ import annotations

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import automc.search.kept as kept_module
from automc.choices import Uniform
from automc.compiler.artifact import compile_program, open_artifact
from automc.compiler.sizes import program_bytes
from automc.compiler.verify import Verification, verify
from automc.compression.interpreter import interpret
from automc.compression.policy import Policy
from automc.compression.program import Program
from automc.environment.evaluator import Evaluator
from automc.environment.problem import Problem
from automc.errors import EvaluationFailed, VerificationError
from automc.schema import GoalSpec
from automc.search.experiment import run_experiment
from automc.search.kept import keep, keep_best, keep_front, read_index
from automc.search.log import read_records
from automc.search.selection import Candidate
from automc.search.trials import LOG_NAME, Trial, TrialLog, read_log
from tests.problems import digits_problem
from tests.searches import experiment, write_study
from tests.stops import stop_after


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Problem, Path]:
    """A search of a few trials that was stopped, and the environment's folder in it."""
    problem, folder = digits_problem(), tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment("random"), folder, lambda name: problem, report=stop_after(5))
    return problem, folder / "small"


@pytest.fixture
def folder(stopped: tuple[Problem, Path], tmp_path: Path) -> Path:
    shutil.copytree(stopped[1], tmp_path / "small")
    return tmp_path / "small"


def whole(place: Path, problem: Problem) -> bool:
    """Whether a verified library stands in `place` that computes what the program beside it means."""
    pixels = problem.splits.test.pixels[:20]
    program = Program.load(place / "program.safetensors")
    found = open_artifact(place / "library").load().run(pixels)
    return np.array_equal(found.view(np.int32), interpret(program, pixels).view(np.int32))


def kept_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "best").iterdir() if path.is_dir())


def test_a_stopped_search_leaves_its_best_policies_as_verified_libraries(
    stopped: tuple[Problem, Path], folder: Path
) -> None:
    problem, _ = stopped
    header, _ = read_records(folder / "random-0" / LOG_NAME)
    _, trials = read_log(folder / "random-0")
    above = Trial(len(trials), Policy().normalised(problem.network), dict(trials[0].metrics), 2.0)
    with TrialLog(folder / "random-0", header, pytest.fail) as log:
        log.append(above)  # above the limit, and so not to be delivered however good it seems
    kept = keep_best(problem, folder, 2)
    best = sorted(trials, key=lambda trial: -trial.reward)[:2]
    assert kept == [folder / "best" / f"random-0-{trial.number}" for trial in best]
    with (folder / "best" / "index.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for place, trial, row in zip(kept, best, rows, strict=True):
        assert whole(place, problem)
        assert Policy.from_json((place / "policy.json").read_text()) == trial.policy
        assert problem.limits.fits(problem.cost(trial.policy))
        record = json.loads((place / "trial.json").read_text())
        metrics = Evaluator(problem, "sequential").evaluate(trial.policy, "selection")
        assert (record["trial"], record["accuracy"]) == (trial.number, trial.metrics["accuracy"])
        assert record["selection_accuracy"] == metrics.quality
        assert record["selection_accuracy_lower"] < metrics.quality < record["selection_accuracy_upper"]
        assert (row["folder"], float(row["selection_accuracy"])) == (place.name, metrics.quality)


def test_what_is_there_is_not_built_again_and_what_is_better_takes_its_place(
    stopped: tuple[Problem, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, _ = stopped
    kept = keep_best(problem, folder, 2)
    (folder / "best" / ".building-killed" / "random-0-9").mkdir(parents=True)  # by a process that was killed
    (folder / "best" / "old").mkdir()
    monkeypatch.setattr(kept_module, "compile_program", lambda *arguments: pytest.fail("compiled again"))
    assert keep_best(problem, folder, 1) == kept[:1]
    assert sorted(path.name for path in (folder / "best").iterdir()) == [".lock", "index.csv", kept[0].name]


def test_a_library_that_was_damaged_is_built_again(stopped: tuple[Problem, Path], folder: Path) -> None:
    problem, _ = stopped
    [place] = keep_best(problem, folder, 1)
    (place / "library" / "model.c").write_text("int main(void) { return 0; }")
    assert keep_best(problem, folder, 1) == [place]
    assert whole(place, problem)


def test_whoever_is_stopped_while_building_leaves_what_was_there(
    stopped: tuple[Problem, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, _ = stopped
    [before] = keep_best(problem, folder, 1)
    unverified = []

    def interrupted(artifact: Any, *rest: Any) -> Verification:
        unverified.append(artifact.folder.parent.name)
        if len(unverified) == 2:
            raise KeyboardInterrupt
        return verify(artifact, *rest)

    monkeypatch.setattr(kept_module, "verify", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keep_best(problem, folder, 3)
    verified, stopped_at = unverified
    assert kept_in(folder) == sorted([before.name, verified])
    assert all(whole(folder / "best" / name, problem) for name in kept_in(folder))
    monkeypatch.setattr(kept_module, "verify", lambda *arguments: Verification(images=1, logits=10, different=1))
    with pytest.raises(VerificationError):
        keep_best(problem, folder, 3)
    assert stopped_at not in kept_in(folder)


def test_processes_that_stop_at_once_build_each_library_once(
    stopped: tuple[Problem, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, _ = stopped
    built = []

    def counted(program: Program, *rest: Any) -> Any:
        built.append(program.fingerprint)
        return compile_program(program, *rest)

    monkeypatch.setattr(kept_module, "compile_program", counted)
    with ThreadPoolExecutor(3) as threads:  # a lock is one's own in a thread as in a process
        answers = list(threads.map(lambda _: keep_best(problem, folder, 2), range(3)))
    assert answers[0] == answers[1] == answers[2]
    assert len(built) == len(set(built)) == 2
    assert all(whole(place, problem) for place in answers[0])


def test_a_policy_that_cannot_be_prepared_is_passed_over(
    stopped: tuple[Problem, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, _ = stopped
    first = keep_best(problem, folder, 1)[0].name
    program, failing = Evaluator.program, [True, False, True, True]

    def prepared(evaluator: Evaluator, policy: Policy) -> Program:
        if failing.pop(0):
            raise EvaluationFailed("accuracy is nan")
        return program(evaluator, policy)

    monkeypatch.setattr(Evaluator, "program", prepared)
    said: list[str] = []
    [second] = keep_best(problem, folder, 2, said.append)
    assert second.name != first
    assert said[0] == f"trial {first} cannot be kept: accuracy is nan"
    with pytest.raises(EvaluationFailed, match="none of 2 policies can be kept: accuracy is nan"):
        keep_best(problem, folder, 2)
    assert kept_in(folder) == [second.name]


def coded(problem: Problem, weight_bits: int) -> Policy:
    """A policy whose size is that of its codes, which depends on how its weights were prepared."""
    chosen = {layer.name: Uniform(weight_bits=weight_bits, huffman=True) for layer in problem.network.convs}
    return Policy(keep_ratio={"0": 0.5, "2": 0.5}, weights=chosen).normalised(problem.network)


def test_the_size_on_record_is_that_of_what_stands_there(tmp_path: Path) -> None:
    problem = digits_problem(fidelity="independent")
    write_study(problem, tmp_path, coded(problem, 4))
    [place] = keep_best(problem, tmp_path, 1)
    size = sum(program_bytes(Program.load(place / "program.safetensors")).values())
    assert [int(row["size_bytes"]) for row in read_index(tmp_path / "best")] == [size]
    assert read_log(tmp_path / "random-0")[1][0].metrics["size_bytes"] != size


def test_what_is_larger_as_it_is_built_than_a_hard_limit_is_passed_over(tmp_path: Path) -> None:
    open_to_all = digits_problem()
    small, large = coded(open_to_all, 3), coded(open_to_all, 4)
    size = Evaluator(open_to_all, "sequential").evaluate(large).size_bytes
    problem = digits_problem(goal=GoalSpec(limits={"size_bytes": size - 1}))
    candidates = [Candidate("random", 0, Trial(*trial, {"notes": []}, 0.5)) for trial in enumerate((large, small))]
    said: list[str] = []
    assert keep(problem, candidates, tmp_path, said.append) == [tmp_path / "random-0-1"]
    assert said[0] == f"trial random-0-0 cannot be kept: size_bytes is {size}, above the limit of {size - 1}"
    with pytest.raises(EvaluationFailed, match="none of 1 policies can be kept: size_bytes is"):
        keep(problem, candidates[:1], tmp_path, said.append)


def test_a_front_is_what_no_other_trial_beats_the_cheapest_first(stopped: tuple[Problem, Path], folder: Path) -> None:
    problem, _ = stopped
    _, trials = read_log(folder / "random-0")
    points = {trial.number: (trial.metrics["latency_ms"], trial.metrics["accuracy"]) for trial in trials}
    unbeaten = [
        number
        for number, (cost, quality) in points.items()
        if not any(a <= cost and b >= quality and (a, b) != (cost, quality) for a, b in points.values())
    ]
    assert 1 < len(unbeaten) < len(trials)
    kept = keep_front(problem, folder, 9)
    assert kept == [
        folder / "front" / f"random-0-{number}" for number in sorted(unbeaten, key=lambda number: points[number])
    ]
    assert all(whole(place, problem) for place in kept)
    assert [row["folder"] for row in read_index(folder / "front")] == [place.name for place in kept]
    assert keep_front(problem, folder, 1) == kept[-1:]  # the most accurate one
    assert read_index(folder / "best") == ()


def test_a_log_whose_process_was_killed_before_its_first_line_hides_nothing(
    stopped: tuple[Problem, Path], folder: Path
) -> None:
    for name, content in (("tpe-0", b""), ("tpe-1", b'0a1b2c3d {"searcher"')):
        (folder / name).mkdir()
        (folder / name / LOG_NAME).write_bytes(content)
    assert keep_best(stopped[0], folder, 1)[0].name.startswith("random-0-")
