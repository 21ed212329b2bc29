"""The files of `envs/`, `search_spaces/` and `experiments/` as frozen models: what may stand in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from automc.choices import Bits, Choice, Ratio, Uniform

CostMetric = Literal["latency_ms", "energy_mj", "size_bytes", "macs"]
Fidelity = Literal["independent", "sequential"]
Removal = Literal["second_order", "magnitude", "batch_norm", "taylor"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every generator takes
_PERCENT = re.compile(r"^\d+(\.\d+)?%$")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ClassifyTask(_Model):
    """The network names the class of an image."""

    kind: Literal["classify"] = "classify"


class DenoiseTask(_Model):
    """The network removes white Gaussian noise of standard deviation `noise`, in levels of 0..255, from an image."""

    kind: Literal["denoise"]
    noise: Annotated[float, Field(gt=0, le=255)]


class UpscaleTask(_Model):
    """The network enlarges an image that was made by averaging squares of `factor` x `factor` pixels."""

    kind: Literal["upscale"]
    factor: Annotated[int, Field(ge=2, le=8)] = 2


class AnomalyTask(_Model):
    """The network, trained on images of the class `normal` alone, repeats an image; where it fails is an anomaly."""

    kind: Literal["anomaly"]
    normal: str


TaskSpec = Annotated[ClassifyTask | DenoiseTask | UpscaleTask | AnomalyTask, Field(discriminator="kind")]


class DataSpec(_Model):
    """The images: a data set, what is asked about them, and how many the search and the selection of its winner see.

    `name` is a known data set, or any name for the images in `folder`, a path relative to the file that holds
    `train/<class>/` and `test/<class>/`; or `train/` and `test/` alone, of images without labels, which a network tells
    apart in `classes` classes.
    """

    name: str
    folder: str | None = None
    classes: Annotated[int, Field(ge=2)] | None = None
    task: TaskSpec = ClassifyTask()
    search: Annotated[int, Field(ge=1)] = 1000
    selection: Annotated[int, Field(ge=1)] = 1000
    calibration: Annotated[int, Field(ge=1)] = 512
    carve_from: Literal["train", "test"] = "train"
    seed: Seed = 0

    @field_validator("task", mode="before")
    @classmethod
    def _plain_kind(cls, task: Any) -> Any:
        return {"kind": task} if isinstance(task, str) else task


class GoalSpec(_Model):
    """What counts as good.

    `limits` are absolute (`latency_ms: 0.4`) or a share of the dense 8-bit network's cost (`latency_ms: 50%`). The cost
    ratio of a policy is the mean of cost / limit over the limits, weighted by `weights`. The score is the environment's
    metric as a number about 1: a fraction as it is, decibels in hundreds, so that 1 dB counts as much as one point.

    - `amc`: score; every trial stays within every limit (He et al. 2018, section 3.3).
    - `mnasnet`: score * ratio ** exponent (Tan et al. 2019, equation 2); limits are soft.
    - `absolute`: score - beta * |ratio - 1| (Bender et al. 2020, section 3.1); limits are soft.
    - `fastest`: the smallest cost ratio that loses at most `tolerance` of the metric, in the metric's own unit: 0.01 is
      one point of accuracy, or a hundredth of a decibel of PSNR.
    """

    reward: Literal["amc", "mnasnet", "absolute", "fastest"] = "amc"
    limits: Annotated[dict[CostMetric, float | str], Field(min_length=1)] = {"latency_ms": "50%"}
    weights: dict[CostMetric, Annotated[float, Field(gt=0)]] = {}
    exponent: Annotated[float, Field(lt=0)] = -0.07
    beta: Annotated[float, Field(gt=0)] = 0.5
    tolerance: Annotated[float, Field(gt=0)] = 0.01

    @field_validator("limits")
    @classmethod
    def _positive(cls, limits: dict[str, float | str]) -> dict[str, float | str]:
        for metric, limit in limits.items():
            share = isinstance(limit, str) and _PERCENT.match(limit) and float(limit[:-1]) > 0
            if not share and not (isinstance(limit, float | int) and 0 < limit < float("inf")):
                raise ValueError(f"{metric} must be a positive number, or a share of the dense network like 50%")
        return limits

    @model_validator(mode="after")
    def _weights_have_limits(self) -> GoalSpec:
        for metric in self.weights:
            if metric not in self.limits:
                raise ValueError(f"weights names {metric}, which has no limit")
        return self


class TrainingSpec(_Model):
    """How `automc train` makes the dense weights: SGD with Nesterov momentum or Adam, linear warm-up, cosine to zero.

    Adam suits networks that answer with images, at a learning rate of a few thousandths.
    Images are shifted by up to `crop` pixels and, with `flip`, mirrored at random; `bfloat16` computes convolutions in
    that type, where the processor has it.
    """

    epochs: Annotated[int, Field(ge=1)] = 40
    batch_size: Annotated[int, Field(ge=2)] = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.2
    warmup_epochs: Annotated[float, Field(ge=0)] = 2.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    crop: Annotated[int, Field(ge=0)] = 4
    flip: bool = True
    bfloat16: bool = False
    seed: Seed = 0


class FinetuningSpec(_Model):
    """How the winner is fine-tuned: the Program's own arithmetic with straight-through gradients and distillation.

    The learning rate is the share of its length by which a step may move a channel's weights; `schedule` is how it
    comes down to zero, and `weight_decay` times it the share by which weights shrink. In the first part `normalising`
    of the training batch norms are live. The result averages the weights over the last part `averaging`, about.
    `automc tune` searches good values.
    """

    epochs: Annotated[float, Field(ge=0)] = 1.0
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    schedule: Literal["cosine", "linear"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    averaging: Annotated[float, Field(ge=0, le=0.2)] = 0.1
    normalising: Annotated[float, Field(ge=0, le=0.8)] = 0.0
    temperature: Annotated[float, Field(gt=0)] = 2.0
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.7  # the dense network's weight; the label has the rest
    crop: Annotated[int, Field(ge=0)] = 4
    flip: bool = True
    seed: Seed = 0


class EnvironmentSpec(_Model):
    """One file of `envs/`: what is compressed, on which data, for which device, and what counts as good.

    `metric` says how well a network answers (`automc list metrics`). `fidelity` is how the search prepares a policy's
    network: `sequential` repairs each layer on what the compressed layers before it deliver, `independent` on the
    dense network's inputs, which is a few times faster and misjudges strong compression. `removal` is the order in
    which channels leave: by what the layers that read them lose after a refit (`second_order`), by the weights that
    write them (`magnitude`), by the scale of their batch norm (`batch_norm`: measured, as the standard deviation of the
    channel on the calibration images, so that layers without a batch norm have one, too), or by what the logits lose
    (`taylor`).
    `measure_every`: about one in so many policies is also compiled and timed on this machine, and its trial says what
    that took beside what the table predicted; so is every candidate for the winner when the search has ended. Rewards
    and the choice go by the table. 0 times none.
    `grow` gives channel groups, by name, more channels than the network has, by splitting trained ones in a way that
    changes no result, so that a search may keep more than there were. Ratios are then of the grown groups, limits and
    comparisons of the network as it was.
    """

    description: str
    network: str
    weights: str | None = None  # a safetensors file, relative to this file
    data: DataSpec
    metric: str = "accuracy"
    device: str = "host"  # `host`, or the name of a file in latency_tables/
    search_space: str = "joint"
    fidelity: Fidelity = "sequential"
    removal: Removal = "second_order"
    grow: dict[str, Annotated[int, Field(ge=1)]] = {}
    measure_every: Annotated[int, Field(ge=0)] = 0
    goal: GoalSpec = GoalSpec()
    training: TrainingSpec = TrainingSpec()
    finetuning: FinetuningSpec = FinetuningSpec()


Widths = Annotated[list[Bits], Field(min_length=1)]


class Pin(_Model):
    """What is not free for some layers: `layers` is a name pattern with `*`, or `@first`, or `@last`."""

    layers: str
    freeze: bool = False  # keep every channel, 8 bits
    minimum_keep_ratio: Ratio | None = None
    weight_bits: Widths | None = None
    activation_bits: Widths | None = None


Ratios = Annotated[list[Ratio], Field(min_length=1)]
RatioSpec = Annotated[
    Annotated[Literal["staircase"], Tag("staircase")] | Annotated[Ratios, Tag("ratios")],
    Discriminator(
        lambda value: "staircase" if value == "staircase" else "ratios" if isinstance(value, list) else None,
        custom_error_type="unknown_name",
        custom_error_message="must be 'staircase' or a list of ratios",
    ),
]
_EIGHTHS = tuple(count / 8 for count in range(1, 9))


class SearchSpaceSpec(_Model):
    """One file of `search_spaces/`: what may be chosen for a layer. A list of one value leaves no choice.

    `keep_ratio: staircase` offers each group the channel counts at which the device's latency falls, and no others: a
    vector of channels takes as long half empty as full.
    `methods` are choices for a layer's weights beside `weight_bits`, as in `{method: codebook, entries: 16}`; a layer
    that a method is not for does not offer it.
    """

    description: str
    keep_ratio: RatioSpec = [1.0]
    weight_bits: Widths = [8]
    methods: list[Choice] = []
    activation_bits: Widths = [8]
    pins: list[Pin] = []

    @field_validator("keep_ratio", "weight_bits", "activation_bits")
    @classmethod
    def _ascending(cls, values: list[Any] | str) -> list[Any] | str:
        if isinstance(values, list) and sorted(set(values)) != values:
            raise ValueError("must be in ascending order, each value once")
        return values

    @field_validator("methods")
    @classmethod
    def _once(cls, methods: list[Choice]) -> list[Choice]:
        for method in methods:
            if methods.count(method) > 1:
                raise ValueError(f"{method} stands twice")
            if method == Uniform(weight_bits=method.weight_bits):
                raise ValueError(f"{method} belongs into weight_bits")
        return methods

    @property
    def ratios(self) -> Sequence[float]:
        """Keep ratios of whole networks; eighths for a staircase, which has its own for each group."""
        return _EIGHTHS if isinstance(self.keep_ratio, str) else self.keep_ratio

    @property
    def weights(self) -> list[Choice]:
        """All that may be chosen for a layer's weights."""
        return [*(Uniform(weight_bits=bits) for bits in self.weight_bits), *self.methods]


class SearcherSpec(_Model):
    """A searcher by name, with settings that the searcher itself knows and checks."""

    name: str
    settings: dict[str, float | int | str | bool] = {}


class MonitorSpec(_Model):
    """How a search is watched: every so many trials one is fine-tuned for so many epochs, and judged again."""

    every: Annotated[int, Field(ge=1)] = 20
    epochs: Annotated[float, Field(gt=0)] = 0.2


class ExperimentSpec(_Model):
    """One file of `experiments/`: environments x searchers x seeds, with one budget of trials.

    `overrides` lie over the environments' own files, as in `goal.limits.latency_ms=40%`. With a `monitor`, trials are
    fine-tuned now and then to see whether the reward orders them as the truth does. `front`: beside the winner, so many
    networks of the front of all trials are delivered as libraries, too; as they were searched, without fine-tuning.
    """

    description: str
    envs: Annotated[list[str], Field(min_length=1)]
    overrides: list[str] = []
    searchers: Annotated[list[SearcherSpec], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    trials: Annotated[int, Field(ge=1)] = 200
    monitor: MonitorSpec | None = None
    front: Annotated[int, Field(ge=0)] = 0

    @field_validator("envs", "seeds")
    @classmethod
    def _once(cls, values: list[Any]) -> list[Any]:
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{value} stands twice; its studies would share their folders")
        return values

    @field_validator("searchers", mode="before")
    @classmethod
    def _plain_names(cls, searchers: Any) -> Any:
        if isinstance(searchers, list):
            return [{"name": entry} if isinstance(entry, str) else entry for entry in searchers]
        return searchers
