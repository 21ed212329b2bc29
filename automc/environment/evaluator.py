"""`Evaluator`: a policy to its metrics, through the very Program that would be compiled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from automc.compiler.memory import plan_memory
from automc.compiler.sizes import program_bytes
from automc.compression.executor import Executor
from automc.compression.operations import Convolve
from automc.compression.policy import Policy
from automc.compression.program import Program
from automc.cost.model import Cost
from automc.environment.metrics import Metrics, Outcome
from automc.environment.problem import Problem
from automc.environment.quality import Answers
from automc.environment.stopwatch import Stopwatch, is_timed, known_reference_ms
from automc.errors import EvaluationFailed
from automc.network.datasets import Images
from automc.network.training import ask
from automc.schema import Fidelity

Split = Literal["search", "selection", "test"]


@dataclass(frozen=True)
class _Reference:
    """What the dense network answers on one split."""

    answers: Answers
    quality: float


class Evaluator:
    """Judges policies of one problem: a pure function with a memory.

    `fidelity` says how a policy becomes a Program (see `EnvironmentSpec`); without it, as the problem's search does.
    """

    def __init__(self, problem: Problem, fidelity: Fidelity | None = None) -> None:
        self.problem = problem
        self.fidelity = fidelity or problem.spec.fidelity
        self._known: dict[tuple[str, Split], Metrics] = {}
        self._references: dict[Split, _Reference] = {}
        self._stopwatch: Stopwatch | None = None

    def program(self, policy: Policy) -> Program:
        """The Program of a policy, at this evaluator's fidelity."""
        preparation = self.problem.prepare()
        return preparation.program(policy) if self.fidelity == "independent" else preparation.sequential(policy)

    def evaluate(self, policy: Policy, split: Split = "search") -> Metrics:
        """What the policy's Program answers on the images of `split`, and what it costs.

        Raises `PolicyError` for a policy that does not fit the network, `EvaluationFailed` where a metric is not
        finite. On the search split, some policies are timed, too, where the environment says so.
        """
        normalised = policy.normalised(self.problem.network)
        key = normalised.fingerprint, split
        if key not in self._known:
            program = self.program(normalised)
            metrics = self.judge(program, normalised, split)
            if split == "search" and is_timed(normalised, self.problem.spec.measure_every):
                metrics = self.timed(metrics, program)
            self._known[key] = metrics
        return self._known[key].with_notes(_rounded(policy, normalised))

    def judge(
        self, program: Program, policy: Policy, split: Split = "search", answers: Answers | None = None
    ) -> Metrics:
        """The metrics of a given Program of `policy`, as of one that was fine-tuned; `answers`, if known, are its."""
        metric = self.problem.metric
        answers = answers or self.answers(program, split)
        quality = metric.measure(answers).value
        cost = self.problem.cost(policy)
        return Metrics(
            quality=quality,
            quality_loss=self._reference(split).quality - quality,
            logit_error=float(np.square(answers.outputs.astype(np.float64) - answers.dense).mean()),
            latency_ms=cost.latency_ms,
            energy_mj=cost.energy_mj,
            size_bytes=_size_bytes(program, cost),
            peak_memory_bytes=plan_memory(program, self.problem.target),
            macs=cost.macs,
            column=metric.reading.column,
            notes=(_interpolated(cost),) if cost.interpolated else (),
        )

    def timed(self, metrics: Metrics, program: Program) -> Metrics:
        """The metrics of a Program with what its library takes on this machine, or with a note why nobody knows."""
        if self._stopwatch is None:
            self._stopwatch = Stopwatch(self.problem.target, known_reference_ms(self.problem.pricing))
        return self._stopwatch.observe(metrics, program)

    def outcome(self, policy: Policy) -> Outcome:
        """The metrics on the search split with the goal's reward, or the reason why there are none."""
        try:
            metrics = self.evaluate(policy)
        except EvaluationFailed as failure:
            return Outcome.failed(str(failure))
        return Outcome(metrics.to_record(), self.problem.reward(metrics))

    def answers(self, program: Program, split: Split) -> Answers:
        """What a Program answers to the images of `split`."""
        dense = self._reference(split).answers
        return replace(dense, outputs=Executor(program).run(dense.images.pixels))

    def dense_answers(self, images: Images) -> Answers:
        """What the dense network answers to any images."""
        network = self.problem.network
        outputs = ask(self.problem.module, images.pixels, network.mean, network.std)
        return Answers(images, outputs, outputs)

    def _reference(self, split: Split) -> _Reference:
        if split not in self._references:
            answers = self.dense_answers(getattr(self.problem.splits, split))
            self._references[split] = _Reference(answers, self.problem.metric.measure(answers).value)
        return self._references[split]


def _size_bytes(program: Program, cost: Cost) -> int:
    """What the weights take: what was estimated where that is exact, else what they themselves say."""
    layers = [operation for operation in program.operations if isinstance(operation, Convolve)]
    plain = all(layer.encoding == "dense" and not layer.huffman for layer in layers)
    return cost.size_bytes if plain else sum(program_bytes(program).values())


def _interpolated(cost: Cost) -> str:
    share = cost.uncertainty_ms / cost.latency_ms
    return f"latency interpolated: {', '.join(cost.interpolated)}; it may be off by {share:.1%}"


def _rounded(asked: Policy, normalised: Policy) -> tuple[str, ...]:
    return tuple(
        f"keep_ratio of {group} is {kept:g} in whole channels, not {asked.keep_ratio[group]:g}"
        for group, kept in normalised.keep_ratio.items()
        if group in asked.keep_ratio and asked.keep_ratio[group] != kept
    )
