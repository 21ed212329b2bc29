"""`Result`: what a finished search delivered, as one file that the report, the tables and the figures read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from automc.compression.policy import Policy
from automc.environment.quality import Reading
from automc.errors import CorruptFile, StorageError
from automc.files import write_atomic

RESULT_PATH = Path("winner", "result.json")  # in the folder of an environment of a run
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
RowKind = Literal["dense_float32", "dense_int8", "uniform", "searched", "finetuned"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Timing(_Model):
    """A measured latency of one image: the median of `repeats` runs, between their quartiles, in milliseconds."""

    median_ms: Positive
    lower_ms: Positive
    upper_ms: Positive
    repeats: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.lower_ms <= self.median_ms <= self.upper_ms:
            raise ValueError("must hold lower_ms <= median_ms <= upper_ms")
        return self


class Row(_Model):
    """One network of the comparison: how well it answers on the test images, and what it costs.

    `quality` is the result's metric, with its 95 % confidence interval by the method `interval`.
    `None` says that a number does not exist: the float32 network has no integer library, energy may have no model.
    `latency_ms` is the cost model's prediction, `measured` the compiled library's own time on this host;
    `search_quality` is on the images that the search saw, so that the network can stand among the trials.
    """

    kind: RowKind
    label: str
    quality: float
    lower: float | None = None
    upper: float | None = None
    interval: str = ""
    images: Annotated[int, Field(ge=1)]  # test images that it was asked
    search_quality: float | None = None
    latency_ms: Positive | None = None
    measured: Timing | None = None
    energy_mj: Positive | None = None
    size_bytes: Count
    peak_memory_bytes: Count | None = None
    macs: Count

    @model_validator(mode="after")
    def _within_its_interval(self) -> Self:
        lower = self.quality if self.lower is None else self.lower
        upper = self.quality if self.upper is None else self.upper
        if not lower <= self.quality <= upper:
            raise ValueError("must hold lower <= quality <= upper")
        return self


class LayerRow(_Model):
    """One layer of the delivered network beside what it was; latencies are the cost model's."""

    name: str
    kind: Literal["convolution", "depthwise", "dense"]
    channels: Annotated[int, Field(ge=1)]  # of the dense network's layer, as it was given
    kept_channels: Annotated[int, Field(ge=1)]  # more than there were, if the layer was grown
    method: str = "uniform"  # what was chosen for its weights
    weight_bits: Annotated[int, Field(ge=1, le=8)]  # that it computes with
    activation_bits: Annotated[int, Field(ge=1, le=8)] | None = None  # of the tensor it writes; the result has none
    macs: Count
    size_bytes: Count
    latency_ms: Positive | None = None
    dense_latency_ms: Positive | None = None  # the same layer, whole, at 8 bits
    kernel: str = ""

    @property
    def weights(self) -> str:
        """What its weights are, in a word."""
        return str(self.weight_bits) if self.method == "uniform" else self.method.replace("_", " ")

    @property
    def keep_ratio(self) -> float:
        """The share of the layer's output channels that remains; above 1 where it was grown."""
        return self.kept_channels / self.channels


class Verification(_Model):
    """The library's logits against the interpreter's, compared bit by bit."""

    images: Annotated[int, Field(ge=1)]
    logits: Annotated[int, Field(ge=1)]
    different_logits: Count


class SplitSizes(_Model):
    """How many images each split had; `carved_from` names the official part that gave `search` and `selection`."""

    train: Count
    search: Annotated[int, Field(ge=1)]
    selection: Annotated[int, Field(ge=1)]
    test: Annotated[int, Field(ge=1)]
    carved_from: Literal["train", "test"]


class Selection(_Model):
    """How the winner was picked: from which study, and best of how many candidates on the selection split.

    `expected_quality` is that of the choice on images that did not choose, by cross-validation on that split.
    `latencies` are predicted and measured milliseconds, of the candidates that were timed.
    """

    searcher: str
    seed: int
    trial: Count
    candidates: Annotated[int, Field(ge=1)]
    search_quality: float
    selection_quality: float
    expected_quality: float | None = None
    latencies: tuple[tuple[Positive, Positive], ...] = ()


class Result(_Model):
    """Everything that is said about the winner of one environment. Texts are for people, and may hold any character."""

    environment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]  # figures are named by it
    description: str
    network: str
    dataset: str
    metric: Reading  # of every quality here
    goal: str  # one sentence, as in "the most accurate network within 0.41 ms (50% of dense int8)"
    limits: Mapping[str, Positive]  # metric to absolute limit, in the metric's unit
    device: str
    target: str  # instruction set
    compiler: str
    latency_source: str  # how predicted latencies were obtained
    energy_source: str = ""
    interpolated: tuple[str, ...] = ()  # layers whose latency was not in the table itself
    splits: SplitSizes
    selection: Selection
    finetuning_epochs: Annotated[float, Field(ge=0)] = 0.0
    policy: Policy
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]  # dense float32, dense int8, uniform, searched, fine-tuned
    layers: tuple[LayerRow, ...]
    verification: Verification
    artifact: str  # folder of the compiled library, relative to this file
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]  # how the names of the library's functions begin
    versions: Mapping[str, str]  # library to version
    hashes: Mapping[str, str]  # environment, search space, table, weights to SHA-256
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_row_a_kind(self) -> Self:
        kinds = [row.kind for row in self.rows]
        if len(set(kinds)) != len(kinds):
            raise ValueError("rows must have each kind at most once")
        if "searched" not in kinds:
            raise ValueError("rows must have the searched network")
        return self

    def row(self, kind: RowKind) -> Row | None:
        """The row of this kind, if there is one."""
        return next((row for row in self.rows if row.kind == kind), None)

    @property
    def delivered(self) -> Row:
        """The network that the library computes: fine-tuned where it was, otherwise as searched."""
        return next(row for kind in ("finetuned", "searched") for row in self.rows if row.kind == kind)


def write_result(result: Result, path: Path) -> None:
    """Write `result` as JSON, all of it or nothing."""
    write_atomic(path, result.model_dump_json(indent=2) + "\n")


def read_result(path: Path) -> Result:
    """Read a result's file. Raises `StorageError` where it cannot be read, `CorruptFile` naming every fault in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{path}: is not UTF-8 text") from error
    try:
        return Result.model_validate_json(text)
    except ValidationError as error:
        faults = (
            f"{'.'.join(str(part) for part in fault['loc']) or 'file'}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        )
        raise CorruptFile(f"{path}: " + "; ".join(faults)) from error
