"""What each choice of a search space costs in quality alone, measured once on few images."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from automc.compression.executor import Executor
from automc.environment.problem import Problem, replaced
from automc.network.forward import forward
from automc.network.training import normalise

Floats = NDArray[np.float64]


@lru_cache(maxsize=1)
def single_losses(problem: Problem, images: int = 256) -> tuple[Floats, ...]:
    """For each decision an array: the logit error that each of its choices adds where all others are at their largest.

    The error is the mean squared difference of logits from the dense network's on the first images of the search split;
    it needs no labels, and single layers show in it where they do not in the accuracy of images that a network knows
    by heart. Networks are prepared independently, which for a single changed layer is nearly the sequential one. What
    seems to gain is noise, and counts as 0. These policies keep no limit, and are no trials.
    """
    pixels = problem.splits.search.pixels[:images]
    dense = _dense_logits(problem, pixels)
    preparation, largest = problem.prepare(), problem.space.largest()

    def error(choices: tuple[int, ...]) -> float:
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
