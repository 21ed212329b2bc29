"""From an environment file, or from a user's own network and images, to a `Problem`: everything is checked here."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automc.catalog import find
from automc.compiler.emulators import first_available, remedy
from automc.compiler.isa import Target
from automc.compiler.targets import find_target, runs_here
from automc.compression.prepare import Preparation
from automc.cost.device import open_device
from automc.cost.model import CostModel
from automc.cost.table import LatencyTable
from automc.environment.problem import Problem
from automc.environment.quality import find_metric
from automc.environment.space import SearchSpace
from automc.errors import ConfigError, DataError, InputError, WeightsError
from automc.files import canonical_json, sha256_of
from automc.network.datasets import Dataset, Splits, load_dataset, split
from automc.network.folders import image_folder
from automc.network.graph import Network
from automc.network.net2net import widen
from automc.network.tasks import pose
from automc.network.trace import trace
from automc.network.zoo import build_network, load_weights
from automc.reading import read_spec
from automc.reporting import Report, silent
from automc.schema import EnvironmentSpec, SearchSpaceSpec

_FOREIGN_WEIGHTS = (
    "{path} may have been trained on images that this environment holds out, so the search and selection images are "
    "taken from the test part; where it was not, name it as the environment's own: weights={path}"
)
# What a policy's metrics and reward do not depend on, or what has a checksum of its own.
_NOT_IDENTITY = {"description", "weights", "device", "search_space", "training", "finetuning", "measure_every"}


def load_problem(
    spec: EnvironmentSpec,
    file: Path,
    weights: str | Path | None = None,
    report: Report = silent,
    *,
    may_measure: bool = True,
) -> Problem:
    """The problem that the environment file `file` states, read as `spec`.

    `weights` replaces its weights. Nobody knows what those were trained on, so search and selection images are then
    carved out of the test part, and `report` is told so. Where it may not measure, a host without a table is refused.

    Raises an `InputError` for whatever is missing or does not fit, before any time is spent: `NameNotFound`,
    `DataError`, `WeightsError`, `UnsupportedLayer`, `TableError`, `ConfigError`, `InfeasibleBudget`.
    """
    dataset = open_dataset(spec, file)
    with torch.random.fork_rng(devices=[]):  # fresh weights, replaced at once, are drawn from torch's global generator
        module = build_network(spec.network, len(dataset.classes), dataset.train.pixels.shape[3])
    load_weights(module, own_weights(spec, file) if weights is None else Path(weights))
    if weights is not None and spec.data.carve_from == "train":
        report(_FOREIGN_WEIGHTS.format(path=weights))
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"carve_from": "test"})})
    return build_problem(file.stem, spec, module, dataset, report=report, may_measure=may_measure)


def open_dataset(spec: EnvironmentSpec, file: Path) -> Dataset:
    """The images that an environment file names, as its task asks about them. Raises `NameNotFound`, `DataError`."""
    data = spec.data
    dataset = load_dataset(data.name) if data.folder is None else image_folder(file.parent / data.folder)
    if data.classes is not None:
        if dataset.classes:
            raise DataError(f"data.classes is for images without labels, but {dataset.name} has labels")
        dataset = replace(dataset, classes=tuple(str(number) for number in range(data.classes)))
    posed = pose(dataset, data.task)
    if not posed.classes and posed.train.targets is None:
        raise DataError(
            f"{dataset.name} has images without labels; data.classes must say how many classes the network tells apart"
        )
    return posed


def build_problem(
    name: str,
    spec: EnvironmentSpec,
    module: nn.Module,
    dataset: Dataset,
    *,
    space: SearchSpaceSpec | None = None,
    table: LatencyTable | None = None,
    report: Report = silent,
    may_measure: bool = True,
) -> Problem:
    """A problem of any torch module and data set, without files: what `spec` says of network, weights and data set
    is only said. `space` and `table` stand for the files that `spec` names.

    `report` is told when the host is measured, if it `may_measure` it. Raises as `load_problem`.
    """
    module = copy.deepcopy(module).cpu().float().eval()
    space = space or read_spec(SearchSpaceSpec, find("search_spaces", spec.search_space))
    splits = _splits(spec, dataset)
    _check_metric(spec, splits)
    _, height, width, channels = dataset.train.pixels.shape
    given = trace(module, (channels, height, width), dataset.mean, dataset.std, spec.network)
    _check_answers(given, dataset)
    network = _grown(given, spec)
    prepare = cache(lambda: Preparation(network, calibration_pixels(spec, splits), removal=spec.removal))
    # Which channels of a split group remain depends on the order in which pruning removes them.
    order = prepare().removal_order if _splits_a_group(network) else None
    # The device is opened, and maybe measured, when what can be checked without it has been.
    needs = [(network, space)]
    opened = cache(lambda: table or open_device(spec.device, needs, report, may_measure=may_measure))
    device = cache(lambda: CostModel(network, opened(), order))
    asked = SearchSpace(network, space, order, lambda policy: device().cost(policy).latency_ms)
    pricing = device()
    table = pricing.table
    target = find_target(table.header.target)
    if not runs_here(target):
        if spec.measure_every:
            raise ConfigError(
                f"measure_every: this machine cannot run {target.name}, so it cannot time libraries for "
                f"{table.header.device}; leave measure_every at 0, or search where that processor is"
            )
        report(f"{table.header.device} computes with {target.name}, which this machine cannot run: {_far(target)}")
    problem = Problem(
        name=name,
        spec=spec,
        given=given,
        network=network,
        module=module,
        dataset=dataset,
        splits=splits,
        space=asked,
        pricing=pricing,
        target=target.name,
        identity={
            "environment": _hash(spec.model_dump(mode="json", exclude=_not_identity(spec))),
            "search_space": _hash(space.model_dump(mode="json", exclude={"description"})),
            "table": _hash([table.sha256, table.header.overhead_ms, table.energy and asdict(table.energy)]),
            "weights": _weights_hash(module),
            "images": _images_hash(splits),
            **_methods(space),
        },
        prepare=prepare,
    )
    if problem.limits.hard:
        _ = problem.cheapest  # refuses a budget that nothing meets
    return problem


def _far(target: Target) -> str:
    """What a search for a processor that is not here can deliver."""
    if first_available(target.machines):
        return "the winner's library is verified under emulation, and not measured"
    ways = remedy(target.machines) or "compile what it finds on a machine that can"
    return f"a search works, but its winner cannot be verified here; to deliver it: {ways}"


def calibration_pixels(spec: EnvironmentSpec, splits: Splits) -> NDArray[np.uint8]:
    """`n x height x width x channels` uint8: training images that neither search, selection nor report see."""
    picked = np.random.default_rng(spec.data.seed).permutation(len(splits.train))[: spec.data.calibration]
    return splits.train.pixels[np.sort(picked)]


def _splits_a_group(network: Network) -> bool:
    """Whether some tensor holds only a part of a prunable channel group."""
    for position, group in enumerate(network.groups):
        for slots in network.channel_slots.values():
            held = len(np.unique(slots[slots[:, 0] == position, 1]))
            if group.prunable and 0 < held < group.slots:
                return True
    return False


def _grown(network: Network, spec: EnvironmentSpec) -> Network:
    """The network with as many channels in its groups as the environment gives them."""
    try:
        for group, slots in spec.grow.items():
            network = widen(network, group, slots)
    except InputError as error:
        raise ConfigError(f"grow: {error}") from None
    return network


def own_weights(spec: EnvironmentSpec, file: Path) -> Path:
    """The weights that an environment file names. Raises `WeightsError` where it names none, or they are not there."""
    advice = (
        f"train them with:\n  automc train {file.stem}\n(and with the --plugin of this command, where it has one), "
        "or name a file with --weights"
    )
    if spec.weights is None:
        raise WeightsError(f"{file} names no weights; {advice}")
    path = file.parent / spec.weights
    if not path.exists():
        raise WeightsError(f"{path} does not exist; {advice}")
    return path


def _splits(spec: EnvironmentSpec, dataset: Dataset) -> Splits:
    data = spec.data
    splits = split(dataset, data.search, data.selection, data.carve_from, data.seed)
    if data.calibration > len(splits.train):
        raise DataError(
            f"data.calibration asks for {data.calibration} images, but {len(splits.train)} training images of "
            f"{dataset.name} remain beside the search and selection splits"
        )
    return splits


def _check_metric(spec: EnvironmentSpec, splits: Splits) -> None:
    """The metric must be able to judge every split, and the tolerance be a value that it may lose."""
    metric = find_metric(spec.metric)
    for images in (splits.search, splits.selection, splits.test):
        metric.require(images)
    lowest, highest, tolerance = metric.reading.lowest, metric.reading.highest, spec.goal.tolerance
    if lowest is not None and highest is not None and tolerance >= highest - lowest:
        raise ConfigError(
            f"goal.tolerance: must be less than {highest - lowest:g}, all that {metric.name} can lose. "
            f"Got {tolerance:g} instead."
        )


def _check_answers(network: Network, dataset: Dataset) -> None:
    shape, targets = network.output.shape, dataset.train.targets
    if targets is not None:
        _, height, width, channels = targets.shape
        # Several channels in a row would leave open whether they stand pixel by pixel.
        flat = [(height * width, 1, 1)] if channels == 1 else []
        if shape not in [(channels, height, width), *flat]:
            raise DataError(
                f"{network.name} answers {' x '.join(map(str, shape))} (channels, height, width), but the task on "
                f"{dataset.name} asks for {channels} x {height} x {width}"
            )
    elif shape[0] != len(dataset.classes):
        classes = len(dataset.classes)
        raise DataError(f"{network.name} answers {shape[0]} logits, but {dataset.name} has {classes} classes")


def _not_identity(spec: EnvironmentSpec) -> set[str]:
    return _NOT_IDENTITY if spec.grow else _NOT_IDENTITY | {"grow"}  # which came later than the first logs


def _methods(space: SearchSpaceSpec) -> dict[str, str]:
    """Where a space offers more than bits, how its methods compress and are sized, counted up when that changes."""
    return {"methods": "2"} if space.methods else {}


def _hash(content: Any) -> str:
    return sha256_of(canonical_json(content).encode())


def _weights_hash(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return digest.hexdigest()


def _images_hash(splits: Splits) -> str:
    digest = hashlib.sha256()
    for images in (splits.train, splits.search, splits.selection, splits.test):
        digest.update(f"{images.pixels.shape}\n".encode())
        images.feed(digest)
    return digest.hexdigest()
