"""`automc.search(model, data)`: the whole road from Python, for a network and images that no file names."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from automc.reading import make_spec
from automc.reporting import Report
from automc.schema import CostMetric, EnvironmentSpec, ExperimentSpec, FinetuningSpec, SearcherSpec, SearchSpaceSpec

if TYPE_CHECKING:
    from torch import nn

    from automc.network.datasets import Dataset
    from automc.search.result import Result

_LOGGER = logging.getLogger(__name__)
_FINETUNING = FinetuningSpec()


def search(
    model: nn.Module,
    data: Dataset,
    *,
    metric: str = "accuracy",
    limits: Mapping[CostMetric, float | str] | None = None,
    reward: Literal["amc", "mnasnet", "absolute", "fastest"] = "amc",
    device: str = "host",
    search_space: str | SearchSpaceSpec = "joint",
    searcher: str | SearcherSpec = "ppo",
    trials: int = 200,
    seed: int = 0,
    seconds: float = math.inf,
    front: int = 0,
    search_images: int = 1000,
    selection_images: int = 1000,
    carve_from: Literal["train", "test"] = "test",
    finetuning: FinetuningSpec = _FINETUNING,
    folder: Path | str = "runs/search",
    report: Report = _LOGGER.info,
) -> Result:
    """Search a compressed form of `model`, and deliver its verified library into `folder`.

    `data` comes from `automc.network.datasets.load_dataset`, or of your own images from
    `automc.network.folders.image_folder` or `from_torch`; `automc.network.tasks.pose` makes images of it that are to be
    denoised, enlarged or searched for anomalies. `metric` is a name of `automc list metrics`. `limits` are absolute
    (`{"latency_ms": 0.4}`) or a share of the dense 8-bit network's cost (`{"latency_ms": "50%"}`, the default).
    `carve_from` says where the search and selection images come from: `train` only if the model was not trained on
    them. A `SearcherSpec` has a searcher's settings, too. The search ends after `trials`, or about so many `seconds`;
    Ctrl-C leaves its best policies so far as verified libraries in `folder/model/best`, and the same call goes on.
    The result names the winner's library, relative to `folder/model/winner`; so many networks of the `front` of all
    trials are libraries in `folder/model/front`. `automc report FOLDER` makes a page of it.

    Raises the errors of `automc.errors`: an `InputError` before any time is spent.
    """
    from automc.environment.loading import build_problem
    from automc.search.deliver import deliver
    from automc.search.experiment import members, run_experiment
    from automc.search.identity import identify
    from automc.search.kept import keep_front, keep_undelivered

    # Of training images, those that are held out do not calibrate.
    trained_on = len(data.train) - (search_images + selection_images if carve_from == "train" else 0)
    images = {
        "name": data.name,
        "search": search_images,
        "selection": selection_images,
        "calibration": min(512, max(1, trained_on)),
        "carve_from": carve_from,
    }
    spec = make_spec(
        EnvironmentSpec,
        {
            "description": f"{type(model).__name__} on {data.name}",
            "network": type(model).__name__,
            "data": images,
            "metric": metric,
            "device": device,
            "search_space": search_space if isinstance(search_space, str) else "given",
            "goal": {"reward": reward} | ({} if limits is None else {"limits": dict(limits)}),
            "finetuning": finetuning,
        },
        "automc.search",
    )
    space = None if isinstance(search_space, str) else search_space
    experiment = make_spec(
        ExperimentSpec,
        {
            "description": spec.description,
            "envs": ["model"],
            "searchers": [searcher],
            "seeds": [seed],
            "trials": trials,
            "front": front,
        },
        "automc.search",
    )
    members(experiment)  # refuses an unknown searcher before any time is spent
    problem = build_problem("model", spec, model, data, space=space, report=report)
    root = Path(folder)
    digest = hashlib.sha256("".join(problem.identity[key] for key in sorted(problem.identity)).encode())
    asked = experiment.searchers[0]
    named = asked.model_dump() if asked.settings else asked.name
    identify(root, {"problem": digest.hexdigest(), "searcher": named, "seed": seed})
    try:
        run_experiment(experiment, root, lambda name: problem, seconds=seconds)
        result = deliver(problem, root / "model", report=report)
    except KeyboardInterrupt:
        keep_undelivered(problem, root / "model", report)
        raise
    if front:
        keep_front(problem, root / "model", front, report)
    return result
