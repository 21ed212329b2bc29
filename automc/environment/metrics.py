"""`Metrics`: what one evaluated policy is worth and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from automc.errors import EvaluationFailed


@dataclass(frozen=True)
class Metrics:
    """What is known of a policy after its Program has seen the images of one split.

    `quality` is the environment's metric, whose name in records is `column`; `quality_loss` is the dense network's on
    the same images minus it; `logit_error` is the mean squared difference of outputs from the dense network's. The
    costs are the cost model's, for one image, but for `size_bytes`, which is what the Program's weights take.
    `energy_mj` is None where the device has no energy model, and `measured_latency_ms` is an observation, None where
    the policy's library was not timed. `notes` name every rounded channel count and every layer whose latency was
    interpolated.

    A number that is not finite fails the trial: raises `EvaluationFailed` naming it.
    """

    quality: float
    quality_loss: float
    logit_error: float
    latency_ms: float
    energy_mj: float | None
    size_bytes: int
    peak_memory_bytes: int
    macs: int
    column: str = "accuracy"
    notes: tuple[str, ...] = ()
    measured_latency_ms: float | None = None

    def __post_init__(self) -> None:
        values = {name: value for name, value in vars(self).items() if isinstance(value, float)}
        faults = [
            f"{name.replace('quality', self.column)} is {value}"
            for name, value in values.items()
            if not math.isfinite(value)
        ]
        if faults:
            raise EvaluationFailed("; ".join(faults))

    def with_notes(self, notes: tuple[str, ...]) -> Self:
        """The same numbers with further `notes`."""
        return replace(self, notes=self.notes + notes)

    def to_record(self) -> dict[str, Any]:
        """The metrics as plain data for JSON, as in `accuracy` and `accuracy_loss`; what was not observed is absent."""
        record = asdict(self)
        if self.measured_latency_ms is None:
            del record["measured_latency_ms"]
        quality, loss, column = (record.pop(name) for name in ("quality", "quality_loss", "column"))
        return {column: quality, loss_column(column): loss, **record, "notes": list(self.notes)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], column: str) -> Self:
        """The metrics of a record that `to_record` made. Raises `TypeError` or `KeyError` for anything else."""
        rest = dict(record)
        quality, loss = rest.pop(column), rest.pop(loss_column(column))
        return cls(quality, loss, column=column, **{**rest, "notes": tuple(rest["notes"])})


def loss_column(column: str) -> str:
    """How records call what a policy loses of the metric that they call `column`."""
    return f"{column}_loss"


FAILED_REWARD = -1.0  # less than a useful policy earns under any goal


@dataclass(frozen=True)
class Outcome:
    """The answer to a policy, as a searcher sees it: its metrics as plain data, and what they are worth.

    A failed evaluation has no metrics but a `reason`.
    """

    metrics: Mapping[str, Any]
    reward: float
    reason: str = ""

    @classmethod
    def failed(cls, reason: str) -> Self:
        """The answer to a policy that could not be judged."""
        return cls({}, FAILED_REWARD, reason)
