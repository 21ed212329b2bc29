"""From logs to a delivered library: what is chosen, what is kept, and that the numbers are those of the files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import automc.search.deliver as deliver_module
from automc.analysis.narrative import method
from automc.analysis.runs import Task
from automc.choices import Codebook, LowRank
from automc.compiler.artifact import compile_program, open_artifact
from automc.compiler.targets import find_target, runs_here
from automc.compiler.verify import Verification
from automc.compression.executor import Executor
from automc.compression.interpreter import interpret
from automc.compression.policy import Policy
from automc.compression.program import Program
from automc.environment.evaluator import Evaluator
from automc.environment.problem import Problem
from automc.environment.quality import Answers
from automc.errors import VerificationError
from automc.network.datasets import Splits
from automc.schema import GoalSpec
from automc.search.comparison import Contestant, layer_rows
from automc.search.deliver import deliver, is_delivered
from automc.search.experiment import run_experiment
from automc.search.kept import keep_best, keep_front
from automc.search.result import Result, read_result
from automc.search.selection import best_candidates, select
from automc.search.trials import LOG_NAME
from tests.problems import digits_problem, half_sparse, size_of
from tests.searches import experiment, write_study


@pytest.fixture(scope="module", autouse=True)
def three_candidates() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deliver_module, "_CANDIDATES", 3)
        yield


def load(name: str) -> Problem:
    assert name == "small"
    return digits_problem(epochs=1.0)


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Problem, Path, Result]:
    problem, folder = load("small"), tmp_path_factory.mktemp("run")
    run_experiment(experiment("random"), folder, lambda name: problem)
    return problem, folder / "small", deliver(problem, folder / "small")


def test_the_result_is_on_disk_beside_what_it_speaks_of(delivered: tuple[Problem, Path, Result]) -> None:
    _, folder, result = delivered
    winner = folder / "winner"
    assert read_result(winner / "result.json") == result
    assert Policy.from_json((winner / "policy.json").read_text()) == result.policy
    program = Program.load(winner / "program.safetensors")
    assert open_artifact(winner / result.artifact).program().fingerprint == program.fingerprint


def test_the_library_was_verified_and_computes_what_the_program_means(delivered: tuple[Problem, Path, Result]) -> None:
    problem, folder, result = delivered
    images = len(problem.dataset.test)
    assert (result.verification.images, result.verification.logits) == (images, 10 * images)
    assert result.verification.different_logits == 0
    pixels = problem.splits.test.pixels[-20:]
    program = Program.load(folder / "winner" / "program.safetensors")
    found = open_artifact(folder / "winner" / "library").load().run(pixels)
    assert np.array_equal(found.view(np.int32), interpret(program, pixels).view(np.int32))


def test_rows_hold_what_their_networks_answer(delivered: tuple[Problem, Path, Result]) -> None:
    problem, folder, result = delivered
    test = problem.splits.test
    kinds = [row.kind for row in result.rows]
    assert kinds[:4] == ["dense_float32", "dense_int8", "uniform", "searched"]
    assert {row.images for row in result.rows} == {len(test)}
    program = Program.load(folder / "winner" / "program.safetensors")
    right = (Executor(program).run(test.pixels).argmax(1) == test.labels).mean()
    assert result.delivered.quality == right
    dense = result.row("dense_int8")
    assert dense is not None
    assert dense.latency_ms == problem.dense_cost.latency_ms
    for row in result.rows[1:]:
        assert row.measured is not None
        assert row.measured.median_ms > 0
    for row in result.rows[2:]:
        assert row.latency_ms is not None
        assert row.latency_ms <= result.limits["latency_ms"]


def test_the_winner_is_the_best_candidate_on_the_selection_split(delivered: tuple[Problem, Path, Result]) -> None:
    problem, folder, result = delivered
    candidates = best_candidates(problem, folder, 3)
    assert len(candidates) == 3
    assert candidates[0].trial.reward == max(candidate.trial.reward for candidate in candidates)
    evaluator = Evaluator(problem, "sequential")
    accuracies = [evaluator.evaluate(candidate.trial.policy, "selection").quality for candidate in candidates]
    assert result.selection.selection_quality == max(accuracies)
    assert result.selection.trial == candidates[int(np.argmax(accuracies))].trial.number


def test_the_test_images_are_asked_once_by_each_network_after_every_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    asked: list[str] = []
    answers = Evaluator.answers

    class Counted(Splits):
        def __getattribute__(self, name: str) -> Any:
            if name in ("selection", "test"):
                reads.append(name)
            return super().__getattribute__(name)

    def recorded(evaluator: Evaluator, program: Program, split: Any) -> Answers:
        if split == "test":
            asked.append(program.fingerprint)
        return answers(evaluator, program, split)

    monkeypatch.setattr(Evaluator, "answers", recorded)
    problem = digits_problem(epochs=0.2)
    splits = problem.splits
    counted = Counted(splits.train, splits.search, splits.selection, splits.test, splits.carved_from)
    problem = replace(problem, splits=counted)
    folder = tmp_path / "small"
    run_experiment(experiment("random", "dynamic"), tmp_path, lambda name: problem)
    assert reads == [], "a search sees neither"
    keep_best(problem, folder, 1)
    keep_front(problem, folder, 2)
    assert set(reads) == {"selection"}
    result = deliver(problem, folder)
    assert "selection" not in reads[reads.index("test") :], "a choice after the test"
    assert len(asked) == len(set(asked)) == len(result.rows) - 1  # of which the dense network is no Program
    reads.clear()
    assert deliver(problem, folder) == result
    keep_front(problem, folder, 2)
    assert "test" not in reads


@pytest.mark.parametrize(
    ("before", "after", "kept"), [(0.25, 0.5, "finetuned"), (0.5, 0.25, "searched"), (0.5, 0.5, "searched")]
)
def test_fine_tuning_is_kept_only_where_it_helps_on_the_selection_split(
    before: float, after: float, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given as what was tuned: programs that keep so much of the channels, of which the wider one is more accurate."""
    problem = digits_problem(epochs=1.0, goal=GoalSpec(limits={"size_bytes": "100%"}))
    policy = half_sparse(problem, before)
    programs = {ratio: problem.prepare().sequential(half_sparse(problem, ratio)) for ratio in (0.25, 0.5)}
    evaluator = Evaluator(problem, "sequential")
    narrow, wide = (evaluator.judge(programs[ratio], policy, "selection").quality for ratio in (0.25, 0.5))
    assert narrow < wide
    write_study(problem, tmp_path, policy)
    monkeypatch.setattr(deliver_module, "_finetuned", lambda *arguments: programs[after])
    result = deliver(problem, tmp_path)
    assert result.delivered.kind == kept
    delivered = Program.load(tmp_path / "winner" / "program.safetensors")
    assert delivered.fingerprint == programs[max(before, after)].fingerprint
    left_out = any("was tried, and left out because it did not help" in note for note in result.notes)
    assert left_out == (kept == "searched")


@pytest.mark.parametrize("reward", ["mnasnet", "absolute", "fastest"])
def test_where_a_goal_rewards_cheaper_networks_the_uniform_one_costs_no_more_than_the_winner(
    reward: Any, tmp_path: Path
) -> None:
    problem = digits_problem(goal=GoalSpec(reward=reward, limits={"latency_ms": "90%"}))
    policy = problem.space.policy(problem.space.smallest())
    write_study(problem, tmp_path, policy)
    result = deliver(problem, tmp_path)
    row = result.row("uniform")
    assert row is not None
    assert row.latency_ms is not None
    assert result.delivered.latency_ms is not None
    assert row.latency_ms <= result.delivered.latency_ms


def test_layers_stand_beside_what_they_were(delivered: tuple[Problem, Path, Result]) -> None:
    problem, _, result = delivered
    assert [layer.name for layer in result.layers] == [layer.name for layer in problem.network.convs]
    assert result.layers[-1].activation_bits is None
    for layer in result.layers:
        assert layer.weight_bits == result.policy.choice(layer.name).weight_bits
    assert sum(layer.macs for layer in result.layers) == result.delivered.macs


def test_a_layer_that_keeps_more_channels_than_there_were_is_delivered(tmp_path: Path) -> None:
    problem = digits_problem(grow={"0": 12}, goal=GoalSpec(limits={"macs": "110%"}))
    kept = {"0": 1.0, "2": 0.5}
    write_study(problem, tmp_path, Policy(keep_ratio=kept).normalised(problem.network))
    result = deliver(problem, tmp_path)
    assert [(layer.kept_channels, layer.channels) for layer in result.layers] == [(12, 8), (4, 8), (10, 10)]
    assert result.verification.different_logits == 0
    assert read_result(tmp_path / "winner" / "result.json") == result


def test_a_layer_of_several_convolutions_is_one_row(tmp_path: Path) -> None:
    problem = digits_problem()
    first, *_, last = (layer.name for layer in problem.network.convs)
    chosen = {last: LowRank(rank_ratio=0.5), first: Codebook(entries=16)}
    policy = Policy(weights=chosen).normalised(problem.network)
    program = problem.prepare().sequential(policy)
    artifact = compile_program(program, problem.target, tmp_path)
    rows = layer_rows(problem, Contestant("searched", "searched", policy, program), artifact)
    assert [row.name for row in rows] == [layer.name for layer in problem.network.convs]
    assert [row.weights for row in (rows[0], rows[1], rows[-1])] == ["codebook", "8", "low rank"]
    assert sum(row.macs for row in rows) == program.macs
    assert sum(row.size_bytes for row in rows) <= artifact.manifest["weight_bytes"]


def test_the_same_call_again_reads_the_result(
    delivered: tuple[Problem, Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, folder, result = delivered
    assert is_delivered(problem, folder)
    with monkeypatch.context() as patch:
        patch.setattr(deliver_module, "select", lambda *arguments: pytest.fail("selected again"))
        assert deliver(problem, folder) == result
    with monkeypatch.context() as patch:
        patch.setattr(deliver_module, "_CANDIDATES", 2)
        assert not is_delivered(problem, folder)
        patch.setattr(deliver_module, "select", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            deliver(problem, folder)


def test_selection_goes_on_where_it_was_stopped(
    delivered: tuple[Problem, Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, folder, _ = delivered
    candidates = best_candidates(problem, folder, 3)
    path = tmp_path / "selection.json"
    first = select(Evaluator(problem, "sequential"), candidates, path, lambda line: None)
    monkeypatch.setattr(Evaluator, "judge", lambda *arguments: pytest.fail("evaluated again"))
    assert select(Evaluator(problem, "sequential"), candidates, path, lambda line: None) == first
    path.write_text("{")
    with pytest.raises(pytest.fail.Exception):
        select(Evaluator(problem, "sequential"), candidates, path, lambda line: None)


def test_fine_tuning_is_not_kept_where_it_breaks_a_hard_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = digits_problem()
    policy, better = half_sparse(plain, 0.25), half_sparse(plain, 0.5)
    limit = max(size_of(plain, policy), plain.cost(policy).size_bytes)
    problem = digits_problem(epochs=1.0, goal=GoalSpec(reward="fastest", limits={"size_bytes": limit}))
    tuned = problem.prepare().sequential(better)
    evaluator = Evaluator(problem, "sequential")
    before, after = evaluator.evaluate(policy, "selection"), evaluator.judge(tuned, policy, "selection")
    assert problem.reward(before) < problem.reward(after) < 0
    assert after.size_bytes > limit
    write_study(problem, tmp_path, policy)
    monkeypatch.setattr(deliver_module, "_finetuned", lambda *arguments: tuned)
    assert deliver(problem, tmp_path).delivered.kind == "searched"


def test_candidates_are_timed_where_trials_are(delivered: tuple[Problem, Path, Result], tmp_path: Path) -> None:
    problem, folder, plain = delivered
    assert plain.selection.latencies == ()
    candidates = best_candidates(problem, folder, 2)
    timed = replace(problem, spec=problem.spec.model_copy(update={"measure_every": 10**9}))
    path = tmp_path / "selection.json"
    lines: list[str] = []
    first = select(Evaluator(timed, "sequential"), candidates, path, lines.append)
    assert [predicted for predicted, _ in first.latencies] == [
        problem.cost(candidate.trial.policy).latency_ms for candidate in candidates
    ]
    assert all(measured > 0 for _, measured in first.latencies)
    assert all("(predicted " in line for line in lines)
    assert select(Evaluator(timed, "sequential"), candidates, path, lines.append) == first
    shown = plain.model_copy(
        update={"selection": plain.selection.model_copy(update={"latencies": ((0.5, 0.25), (2.0, 4.0))})}
    )
    topics = dict(method(Task("small", (), shown, tmp_path)))
    assert topics["Candidates"] == "measured (predicted) latency before fine-tuning, ms: 0.250 (0.500), 4.00 (2.00)"


def test_a_library_that_differs_is_a_failure_after_the_result_is_written(
    delivered: tuple[Problem, Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, folder = delivered[0], tmp_path
    shutil.copytree(delivered[1] / "random-0", folder / "random-0")
    monkeypatch.setattr(deliver_module, "_CANDIDATES", 1)
    monkeypatch.setattr(deliver_module, "verify", lambda *arguments: Verification(images=40, different=1, logits=400))
    with pytest.raises(VerificationError, match="1 of 400 output values"):
        deliver(problem, folder)
    assert read_result(folder / "winner" / "result.json").verification.different_logits == 1
    with pytest.raises(VerificationError):  # read again, it is still a failure
        deliver(problem, folder)


def test_a_winner_for_a_processor_that_is_not_here_is_verified_and_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("unicorn")
    problem = digits_problem(target="rv64")
    assert not runs_here(find_target("rv64"))
    run_experiment(experiment("random"), tmp_path, lambda name: problem)
    monkeypatch.setattr(deliver_module, "_EMULATED_IMAGES", 3)
    result = deliver(problem, tmp_path / "small")
    assert (result.verification.images, result.verification.different_logits) == (3, 0)
    assert [row.measured for row in result.rows] == [None] * len(result.rows)
    assert any("verified under emulation (unicorn sifive-u54)" in note for note in result.notes)
    assert "not measured" in dict(method(Task("small", (), result, tmp_path)))["Latency"]
    assert deliver(problem, tmp_path / "small") == result


def test_a_result_never_stands_beside_the_files_of_another_winner(
    delivered: tuple[Problem, Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, folder, _ = delivered
    shutil.copytree(folder, tmp_path / "small")

    def stopped(*arguments: object) -> Verification:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(deliver_module, "_CANDIDATES", 2)
        patched.setattr(deliver_module, "verify", stopped)
        with pytest.raises(KeyboardInterrupt):
            deliver(problem, tmp_path / "small")
    assert not (tmp_path / "small" / "winner" / "result.json").exists()


def test_studies_in_processes_of_their_own_write_the_same_logs(
    delivered: tuple[Problem, Path, Result], tmp_path: Path
) -> None:
    seen, counts = [], {}
    run_experiment(
        experiment("random", "uniform"), tmp_path, load, workers=2, report=lambda *progress: seen.append(progress),
        ended=lambda member, trials: counts.update({member.searcher.name: trials}),
    )  # fmt: skip
    assert counts == {"random": 8, "uniform": 8}
    assert len(seen) == 16
    assert {member.searcher.name for member, _ in seen} == {"random", "uniform"}
    log = Path("random-0", LOG_NAME)
    assert (tmp_path / "small" / log).read_bytes() == (delivered[1] / log).read_bytes()
