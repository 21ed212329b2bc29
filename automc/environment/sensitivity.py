"""What each choice of a search space costs in quality alone, measured once on few images, then read from the cache."""

from __future__ import annotations

import hashlib
import inspect
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from automc.compression.executor import Executor
from automc.environment.measures import Floats
from automc.environment.problem import Problem
from automc.environment.space import Choices, replaced
from automc.files import cache_directory, canonical_json, sha256_of, write_atomic
from automc.network.forward import forward
from automc.network.training import normalise


@lru_cache(maxsize=1)
def single_losses(problem: Problem, images: int = 256) -> tuple[Floats, ...]:
    """For each decision an array: the logit error that each of its choices adds where all others are at their largest.

    The error is the mean squared difference of logits from the dense network's on the first images of the search split;
    it needs no labels, and single layers show in it where they do not in the accuracy of images that a network knows
    by heart. Networks are prepared independently, which for a single changed layer is nearly the sequential one. What
    seems to gain is noise, and counts as 0. These policies keep no limit, and are no trials.
    """
    path = cache_directory() / "sensitivity" / f"{_key(problem, images)}.json"
    if (known := _read(path)) is not None:
        return known
    losses = _measured(problem, images)
    write_atomic(path, json.dumps([loss.tolist() for loss in losses]) + "\n")
    return losses


def _key(problem: Problem, images: int) -> str:
    """A checksum of all that the losses depend on: no limit, no price, but the code that prepares networks."""
    code = hashlib.sha256()
    for file in sorted(Path(inspect.getfile(Executor)).parent.glob("*.py")):
        code.update(file.read_bytes())
    parts = {
        "weights": problem.identity.get("weights"),
        "images": problem.identity.get("images"),
        "data": problem.spec.data.model_dump(mode="json"),
        "removal": problem.spec.removal,
        "network": problem.spec.network,
        "grow": problem.spec.grow,
        "decisions": [repr(decision) for decision in (*problem.space.decisions, *problem.space.forced)],
        "count": images,
        "code": code.hexdigest(),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
    }
    return sha256_of(canonical_json(parts).encode())[:32]


def _read(path: Path) -> tuple[Floats, ...] | None:
    try:
        return tuple(np.array(loss, np.float64) for loss in json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None  # a memory only: what it does not know is measured again


def _measured(problem: Problem, images: int) -> tuple[Floats, ...]:
    pixels = problem.splits.search.pixels[:images]
    dense = _dense_logits(problem, pixels)
    preparation, largest = problem.prepare(), problem.space.largest()

    def error(choices: Choices) -> float:
        program = preparation.program(problem.space.policy(choices))
        return float(np.square(Executor(program).run(pixels).astype(np.float64) - dense).mean())

    base = error(largest)
    losses = []
    for position, top in enumerate(largest):
        added = [error(replaced(largest, position, index)) - base for index in range(top)]
        losses.append(np.maximum([*added, 0.0], 0.0))
    return tuple(losses)


@torch.inference_mode()
def _dense_logits(problem: Problem, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    network = problem.network
    answers = forward(network.layers, normalise(pixels, network.mean, network.std))
    logits: NDArray[np.float32] = answers[network.output.name].permute(0, 2, 3, 1).flatten(1).numpy()
    return logits
