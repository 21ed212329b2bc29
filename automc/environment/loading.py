"""From an environment file, or from a user's own network and images, to a `Problem`: everything is checked here."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from automc import catalog
from automc.cost.model import CostModel
from automc.cost.table import LatencyTable, read_table
from automc.environment.problem import Problem
from automc.environment.space import SearchSpace
from automc.errors import DataError, WeightsError
from automc.files import canonical_json, sha256_of
from automc.network.datasets import Dataset, Splits, load_dataset, split
from automc.network.graph import Network
from automc.network.trace import trace
from automc.network.zoo import build_network, load_weights
from automc.schema import EnvironmentSpec, SearchSpaceSpec, read_spec

Report = Callable[[str], None]


def _silent(line: str) -> None:
    """Report nothing."""


def load_problem(
    spec: EnvironmentSpec, file: Path, weights: str | Path | None = None, report: Report = _silent
) -> Problem:
    """The problem that the environment file `file` states, read as `spec`; `weights` replaces its weights.

    Raises an `InputError` for whatever is missing or does not fit, before any time is spent: `NameNotFound`,
    `DataError`, `WeightsError`, `UnsupportedLayer`, `TableError`, `ConfigError`, `InfeasibleBudget`.
    """
    dataset = load_dataset(spec.data.name)
    with torch.random.fork_rng(devices=[]):  # fresh weights, replaced at once, are drawn from torch's global generator
        module = build_network(spec.network, len(dataset.classes), dataset.train.pixels.shape[3])
    load_weights(module, _weights_file(spec, file, weights))
    return build_problem(file.stem, spec, module, dataset, report=report)


def build_problem(
    name: str,
    spec: EnvironmentSpec,
    module: nn.Module,
    dataset: Dataset,
    *,
    space: SearchSpaceSpec | None = None,
    table: LatencyTable | None = None,
    report: Report = _silent,
) -> Problem:
    """A problem of any torch module and data set, without files: what `spec` says of network, weights and data set
    is only said. `space` and `table` stand for the files that `spec` names.

    `report` is told when the host is measured. Raises as `load_problem`.
    """
    module = copy.deepcopy(module).cpu().float().eval()
    space = space or read_spec(SearchSpaceSpec, catalog.find("search_spaces", spec.search_space))
    splits = _splits(spec, dataset)
    _, height, width, channels = dataset.train.pixels.shape
    network = trace(module, (channels, height, width), dataset.mean, dataset.std, spec.network)
    _check_classes(network, dataset)
    asked = SearchSpace(network, space)
    table = table or _table(spec.device, network, asked, report)
    problem = Problem(
        name=name,
        spec=spec,
        network=network,
        module=module,
        classes=dataset.classes,
        splits=splits,
        space=asked,
        pricing=CostModel(network, table),
        target=table.header.target,
        identity={
            "environment": sha256_of(canonical_json(spec.model_dump(mode="json")).encode()),
            "search_space": sha256_of(canonical_json(space.model_dump(mode="json")).encode()),
            "table": table.sha256,
            "weights": _weights_hash(module),
            "images": _images_hash(splits),
        },
    )
    if problem.limits.hard:
        _ = problem.cheapest  # refuses a budget that nothing meets
    return problem


def _weights_file(spec: EnvironmentSpec, file: Path, override: str | Path | None) -> Path:
    if override is not None:
        return Path(override)
    advice = f"train them with:\n  automc train {file.stem}\nor name a file with --weights"
    if spec.weights is None:
        raise WeightsError(f"{file} names no weights; {advice}")
    path = file.parent / spec.weights
    if not path.exists():
        raise WeightsError(f"{path} does not exist; {advice}")
    return path


def _table(device: str, network: Network, space: SearchSpace, report: Report) -> LatencyTable:
    if device != "host":
        return read_table(catalog.find("latency_tables", device))
    return host_table(network, space.spec, report)


def _splits(spec: EnvironmentSpec, dataset: Dataset) -> Splits:
    data = spec.data
    splits = split(dataset, data.search, data.selection, data.carve_from, data.seed)
    if data.calibration > len(splits.train):
        raise DataError(
            f"data.calibration asks for {data.calibration} images, but {len(splits.train)} training images of "
            f"{dataset.name} remain beside the search and selection splits"
        )
    return splits


def _check_classes(network: Network, dataset: Dataset) -> None:
    outputs = network.output.shape[0]
    if outputs != len(dataset.classes):
        classes = len(dataset.classes)
        raise DataError(f"{network.name} answers {outputs} logits, but {dataset.name} has {classes} classes")


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
        digest.update(images.pixels.tobytes())
        digest.update(images.labels.tobytes())
    return digest.hexdigest()
