"""From a run's logs to what it delivers: the winner selected, fine-tuned, compiled, verified, measured and compared."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from automc.compiler.artifact import Artifact, compile_program
from automc.compiler.targets import find_target, runs_here
from automc.compiler.verify import Verification as Compared
from automc.compiler.verify import verify
from automc.compression.finetune import finetune
from automc.compression.policy import Policy
from automc.compression.program import Program
from automc.cost.model import CostModel
from automc.environment.evaluator import Evaluator
from automc.environment.problem import Problem
from automc.environment.reward import Limits
from automc.errors import VerificationError
from automc.files import canonical_json, sha256_of, write_atomic
from automc.reporting import Report
from automc.search.comparison import Contestant, dense_row, layer_rows, measured_rows
from automc.search.identity import library_versions
from automc.search.result import RESULT_PATH, Result, Selection, SplitSizes, Verification, read_result, write_result
from automc.search.searchers.uniform import uniform_choices
from automc.search.selection import Candidate, Winner, best_candidates, select

_LOGGER = logging.getLogger(__name__)
_ENERGY_SOURCE = (
    "a model, not a measurement: operations, bytes and instructions times the energies in the table's header, plus "
    "static power times latency"
)
_CANDIDATES = 12  # of the best trials that are judged again on the selection split; the best of them is the winner
_EMULATED_IMAGES = 500  # test images that a library for another processor is verified on: emulators are slow
_DELIVERY = "delivery"  # the name of a result's own key among its hashes


def deliver(problem: Problem, folder: Path, report: Report = _LOGGER.info) -> Result:
    """Deliver the winner of all studies in `folder`, an environment's part of a run, into `folder/winner`.

    There stand `result.json`, `policy.json`, `program.safetensors` and the compiled `library`. Fine-tuning is kept only
    where it helps on the selection split. The test images are asked once, here, after every choice has been made. The
    same call goes on where it was stopped, and reads a finished result of the same logs.

    Raises `VerificationError`, after the result is written, where a logit of the library differs from the
    interpreter's; `EvaluationFailed` where no trial can be delivered; `CompileError`, `RunnerError`, `StorageError`.
    """
    candidates = best_candidates(problem, folder, _CANDIDATES)
    key, written = _key(problem, candidates), folder / RESULT_PATH
    if (known := _known(written, key)) is not None:
        return _verified(known)
    evaluator, place = Evaluator(problem, "sequential"), written.parent
    winner = select(evaluator, candidates, place / "selection.json", report)
    contestants = _contestants(evaluator, winner, place, report)
    final = contestants[-1]
    written.unlink(missing_ok=True)  # of another winner, whose files give way from here on
    write_atomic(place / "policy.json", final.policy.to_json())
    final.program.save(place / "program.safetensors")
    report("compiling the winner and the networks that it is compared with")
    others = [
        compile_program(each.program, problem.target, place / "compared" / each.kind) for each in contestants[:-1]
    ]
    library = compile_program(final.program, problem.target, place / "library")
    # All official test images, also those that the search and selection splits were carved out of: no label is read.
    here = runs_here(find_target(problem.target))
    pixels = problem.dataset.test.pixels[: None if here else _EMULATED_IMAGES]
    report(f"verifying the library on {len(pixels)} test images")
    compared = verify(library, final.program, pixels)
    report(f"{'measuring the libraries and ' if here else ''}asking the test images")
    result = _result(evaluator, winner, contestants, [*others, library], compared, key)
    write_result(result, written)
    return _verified(result)


def is_delivered(problem: Problem, folder: Path) -> bool:
    """Whether `deliver` has nothing left to do: the winner of these very logs stands there."""
    key = _key(problem, best_candidates(problem, folder, _CANDIDATES))
    return _known(folder / RESULT_PATH, key) is not None


def _key(problem: Problem, candidates: Sequence[Candidate]) -> str:
    """A hash of all that decides what is delivered."""
    asked = {
        "candidates": [candidate.trial.policy.fingerprint for candidate in candidates],
        "finetuning": problem.spec.finetuning.model_dump(),
        "identity": dict(problem.identity),
        "versions": library_versions(),
    }
    return sha256_of(canonical_json(asked).encode())


def _known(written: Path, key: str) -> Result | None:
    """The result that was written under the same key, if there is one."""
    result = read_result(written) if written.exists() else None
    return result if result is not None and result.hashes.get(_DELIVERY) == key else None


def _result(
    evaluator: Evaluator,
    winner: Winner,
    contestants: Sequence[Contestant],
    libraries: Sequence[Artifact],
    compared: Compared,
    key: str,
) -> Result:
    """All that is said of a delivery, whose last contestant is what is delivered; measures the libraries."""
    problem, reading = evaluator.problem, evaluator.problem.metric.reading
    final, library, candidate = contestants[-1], libraries[-1], winner.candidate
    return Result(
        environment=problem.name,
        description=problem.spec.description,
        network=problem.network.name,
        dataset=problem.spec.data.name,
        metric=reading,
        goal=_goal(problem),
        limits=dict(problem.limits.costs),
        device=problem.spec.device,
        target=problem.target,
        compiler=library.manifest["compiler"],
        latency_source=_latency_source(problem),
        energy_source="" if problem.dense_cost.energy_mj is None else _ENERGY_SOURCE,
        interpolated=problem.cost(final.policy).interpolated,
        splits=SplitSizes(
            train=len(problem.splits.train),
            search=len(problem.splits.search),
            selection=len(problem.splits.selection),
            test=len(problem.splits.test),
            carved_from="train" if problem.splits.carved_from == "train" else "test",
        ),
        selection=Selection(
            searcher=candidate.searcher,
            seed=candidate.seed,
            trial=candidate.trial.number,
            candidates=winner.candidates,
            search_quality=candidate.trial.metrics[reading.column],
            selection_quality=winner.metrics.quality,
            expected_quality=winner.expected_quality,
            latencies=winner.latencies,
        ),
        finetuning_epochs=problem.spec.finetuning.epochs if final.kind == "finetuned" else 0.0,
        policy=final.policy,
        rows=(dense_row(evaluator), *measured_rows(evaluator, contestants, libraries)),
        layers=layer_rows(problem, final, library),
        verification=Verification(
            images=compared.images,
            logits=compared.logits,
            different_logits=compared.different,
        ),
        artifact="library",
        prefix=library.manifest["prefix"],
        versions=library_versions(),
        hashes={**problem.identity, _DELIVERY: key},
        notes=problem.space.notes + problem.network.notes + _remarks(evaluator, final, compared.machine),
    )


def _contestants(evaluator: Evaluator, winner: Winner, place: Path, report: Report) -> list[Contestant]:
    """The networks with a library, in the order of the result's rows: the last is what is delivered."""
    problem, policy = evaluator.problem, winner.candidate.trial.policy
    dense = problem.dense
    contestants = [Contestant("dense_int8", "dense int8", dense, evaluator.program(dense))]
    if (uniform := _best_uniform(problem, winner)) is not None:
        label = "uniform at the same budget"
        contestants.append(Contestant("uniform", label, uniform, evaluator.program(uniform)))
    searched = Contestant("searched", "searched", policy, evaluator.program(policy))
    contestants.append(searched)
    if problem.spec.finetuning.epochs > 0:
        tuned = _finetuned(problem, searched.program, place, report)
        metrics = evaluator.judge(tuned, policy, "selection")
        reading = problem.metric.reading
        before, after = reading.show(winner.metrics.quality), reading.show(metrics.quality)
        report(f"fine-tuning: {reading.title} {before} before, {after} after (selection)")
        if not problem.limits.broken(metrics) and problem.reward(metrics) > problem.reward(winner.metrics):
            contestants.append(Contestant("finetuned", "searched, fine-tuned", policy, tuned))
    return contestants


def _best_uniform(problem: Problem, winner: Winner) -> Policy | None:
    """Of as many uniform policies as the winner had rivals, the least compressed in its budget, the best in the search.

    The budget is the limits where nothing is gained by staying below them, and otherwise what the winner costs.
    """
    evaluator, budget = Evaluator(problem), problem.limits
    if budget.goal.reward != "amc":
        cost = problem.cost(winner.candidate.trial.policy)
        budget = Limits(budget.goal, {metric: getattr(cost, metric) for metric in budget.costs})
    policies = map(problem.space.policy, uniform_choices(problem))
    within = [policy for policy in policies if budget.fits(problem.cost(policy))][: winner.candidates]
    return max(within, key=lambda policy: evaluator.outcome(policy).reward, default=None)


def _finetuned(problem: Problem, program: Program, place: Path, report: Report) -> Program:
    spec, network = problem.spec.finetuning, problem.network
    identity = canonical_json({"program": program.fingerprint, "specification": spec.model_dump()})
    folder = place / "finetuning" / sha256_of(identity.encode())[:12]
    return finetune(program, problem.splits.train, problem.module, network.mean, network.std, spec, folder, report)


def _remarks(evaluator: Evaluator, final: Contestant, emulated: str) -> tuple[str, ...]:
    """What a reader would otherwise wonder about; `emulated` is what stood in for the device, if it did."""
    problem, remarks = evaluator.problem, []
    if problem.splits.carved_from == "test":
        everything, reading = problem.dataset.test, problem.metric.reading
        found = problem.metric.measure(evaluator.dense_answers(everything)).value
        remarks.append(
            f"the dense float32 network's {reading.title} on all {len(everything)} official test images is "
            f"{reading.show(found)}; every other one is of those that neither the search nor the selection has seen"
        )
    if problem.spec.finetuning.epochs > 0 and final.kind != "finetuned":
        remarks.append(
            f"fine-tuning for {problem.spec.finetuning.epochs:g} epochs was tried, and left out because it did not "
            "help on the selection images or broke a limit"
        )
    if emulated:
        remarks.append(
            f"this machine cannot run {problem.target}: the library was verified under emulation ({emulated}), and "
            "nothing was measured"
        )
    return tuple(remarks)


def _goal(problem: Problem) -> str:
    goal, reading, asked = problem.spec.goal, problem.metric.reading, []
    for metric, limit in problem.limits.costs.items():
        name, _, unit = metric.rpartition("_")
        share = f" ({goal.limits[metric]} of dense int8)" if isinstance(goal.limits[metric], str) else ""
        amount = f"{limit:,.0f} {unit}" if limit >= 1000 else f"{limit:.4g} {unit}"
        asked.append((f"{name} {amount}" if name else amount) + share)
    limits = " and ".join(asked)
    match goal.reward:
        case "amc":
            return f"the network with the highest {reading.title} within {limits}"
        case "fastest":
            return (
                f"the cheapest network within {limits} that loses at most {reading.points(goal.tolerance)} of "
                f"{reading.title}"
            )
        case _:
            return f"{reading.title} weighed against {limits} ({goal.reward})"


def _latency_source(problem: Problem) -> str:
    if isinstance(problem.pricing, CostModel):
        header = problem.pricing.table.header
        return f"latency table of {header.device} ({header.cpu}), {problem.dense_cost.source} kernel by kernel"
    return problem.dense_cost.source


def _verified(result: Result) -> Result:
    found = result.verification
    if found.different_logits:
        raise VerificationError(
            f"{result.environment}: {found.different_logits} of {found.logits} output values of the library differ "
            "from the interpreter's; what was delivered is not what was searched"
        )
    return result
