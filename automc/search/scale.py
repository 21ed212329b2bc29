"""What the costs of an environment's trials are compared with, written beside its studies before the first of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from automc.environment.factors import COSTS
from automc.environment.problem import Problem
from automc.errors import CorruptFile, RunMismatch
from automc.files import write_atomic

_NAME = "scale.json"
Costs = Mapping[str, Annotated[float, Field(gt=0)]]


class Scale(BaseModel):
    """The goal's `limits`, and what the `dense` network costs at 8 bits, as far as the device knows; by metric."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    limits: Costs = {}
    dense: Costs = {}

    def __str__(self) -> str:
        costs = (", ".join(f"{metric} {cost:g}" for metric, cost in each.items()) for each in (self.limits, self.dense))
        return "limits of {} and a dense network of {}".format(*costs)


def write_scale(problem: Problem, folder: Path) -> None:
    """Write the scale of `problem` into `folder`, an environment's part of a run.

    Raises `RunMismatch` where another stands there, which the studies beside it are compared by.
    """
    costs = {metric: getattr(problem.dense_cost, metric) for metric in COSTS}
    known = {metric: cost for metric, cost in costs.items() if cost is not None}
    path, before, scale = folder / _NAME, read_scale(folder), Scale(limits=problem.limits.costs, dense=known)
    if path.is_file() and before != scale:
        raise RunMismatch(
            f"{path} was written for {before}; now there are {scale}. "
            "Restore what has changed to go on with its studies, or begin a new run under another name."
        )
    write_atomic(path, scale.model_dump_json(indent=2) + "\n")


def read_scale(folder: Path) -> Scale:
    """What `write_scale` wrote into `folder`; an empty one where nothing is there. Raises `CorruptFile`."""
    path = folder / _NAME
    try:
        return Scale.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else Scale()
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise CorruptFile(f"{path} does not say what costs are compared with: {error}") from error
