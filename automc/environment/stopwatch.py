"""Timing a policy's library during a search: how far the latency table is from what this machine really takes."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path

from automc.compiler.artifact import compile_batch
from automc.compression.policy import Policy
from automc.compression.program import Program
from automc.cost.measure import processor
from automc.cost.model import CostModel
from automc.cost.timing import Reference
from automc.environment.metrics import Metrics
from automc.environment.problem import Pricing
from automc.errors import CompileError, RunnerError


def is_timed(policy: Policy, every: int) -> bool:
    """Whether a policy is among the one in `every` that are timed: by its hash, so that no order of trials matters."""
    return every > 0 and int(policy.fingerprint, 16) % every == 0


def known_reference_ms(pricing: Pricing) -> float:
    """What the reference took when the table was measured, if it was on a processor of this kind; else infinity."""
    if isinstance(pricing, CostModel):
        header = pricing.table.header
        if header.cpu == processor() and header.reference_ms > 0:
            return header.reference_ms
    return math.inf


class Stopwatch:
    """Times whole networks on this machine, in turns with a reference; see `automc.cost.timing`.

    `known_ms`: what the reference takes when the machine is left alone, if that is known.
    """

    def __init__(self, target: str, known_ms: float = math.inf) -> None:
        self._target = target
        self._known_ms = known_ms
        self._reference: Reference | None = None

    def observe(self, metrics: Metrics, program: Program) -> Metrics:
        """The metrics with what the program's library takes; a note says why there is no such number."""
        try:
            with tempfile.TemporaryDirectory(prefix="automc-time-") as folder:
                self._reference = self._reference or Reference(self._target, Path(folder) / "reference", self._known_ms)
                (library,) = compile_batch([program], self._target, Path(folder) / "library")
                timing = self._reference.time_whole(library)
        except (CompileError, RunnerError) as error:
            return metrics.with_notes((f"not timed: {error}",))
        return replace(metrics, measured_latency_ms=timing.ratio * self._reference.quiet_ms)
