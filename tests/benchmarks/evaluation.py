"""What an evaluated policy costs beside a plain float32 forward, and what the agent adds to a search.

    python tests/benchmarks/evaluation.py [--trials 30]

Random pixels stand in for a data set: times do not depend on what the images show. One thread. The plain forward is the
network in evaluation mode with its batch norms, over the same images in the same batches. Searches prepare in sequence,
as they do by default, and share what policies that begin alike have in common.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from automc.compression.executor import Executor
from automc.compression.policy import Policy, Uniform, uniform_policy
from automc.environment.evaluator import Evaluator
from automc.environment.loading import build_problem
from automc.environment.problem import Problem
from automc.network.datasets import Dataset, Images
from automc.network.training import normalise
from automc.network.zoo import build_network
from automc.schema import DataSpec, EnvironmentSpec, SearcherSpec
from automc.search.experiment import study_header
from automc.search.searchers import build_searcher
from automc.search.study import Study

IMAGES, BATCH, ROUNDS = 1000, 100, 3


def random_images(count: int, random: np.random.Generator) -> Images:
    return Images(random.integers(0, 256, (count, 32, 32, 3), np.uint8), random.integers(0, 10, count))


def plain_forward_s(module: torch.nn.Module, images: Images, data: Dataset) -> float:
    """Seconds of a float32 forward over all images."""
    pixels = [images.pixels[start : start + BATCH] for start in range(0, IMAGES, BATCH)]
    batches = [normalise(part, data.mean, data.std).contiguous(memory_format=torch.channels_last) for part in pixels]
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        return fastest(lambda: [module(batch) for batch in batches])


def fastest(call: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """The best of a few rounds, in seconds, each after `before`: what is slower was disturbed."""
    seconds = []
    for _ in range(ROUNDS):
        before()
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def evaluate(evaluator: Evaluator, policy: Policy, images: Images) -> None:
    Executor(evaluator.program(policy)).run(images.pixels)


def prepare_all(problem: Problem) -> float:
    """CPU seconds of preparing every layer for all that a policy of 8 ratios x 5 widths can ask of it, independently.

    A layer's weights depend on the channels of its input and on its own bits, so uniform policies ask for all pairs.
    """
    preparation, started = problem.prepare(), time.process_time()
    for eighth in range(1, 9):
        for bits in (2, 3, 4, 6, 8):
            weights = {layer.name: Uniform(weight_bits=bits) for layer in problem.network.convs}
            preparation.program(uniform_policy(problem.network, eighth / 8).model_copy(update={"weights": weights}))
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    trials = parser.parse_args().trials
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    train, test = random_images(2000, random), random_images(100, random)
    data = Dataset("noise", tuple("0123456789"), (0.5,) * 3, (0.25,) * 3, train, test)
    counts = DataSpec(name="noise", search=IMAGES, selection=100)
    spec = EnvironmentSpec(description="noise", network="resnet20", data=counts, device="epyc_zen5_avx2")
    torch.manual_seed(0)
    problem = build_problem("noise", spec, build_network("resnet20", 10, 3), data, report=print)
    images = problem.splits.search
    # The first large tensors of a process cost page faults; both sides are timed after them.
    Executor(Evaluator(problem, "independent").program(uniform_policy(problem.network))).run(images.pixels)
    plain = plain_forward_s(problem.module, images, data)
    print(f"plain float32 forward of {IMAGES} images: {plain:.3f} s")
    print(f"all layers for 8 ratios x 5 widths: {prepare_all(problem):.0f} s of one core")
    for ratio, weight_bits, activation_bits in ((1.0, 8, 8), (1.0, 4, 4), (0.75, 6, 7), (0.5, 4, 8)):
        policy = uniform_policy(problem.network, ratio, weight_bits, activation_bits)
        # Differs from the first layer on, so that nothing is remembered in sequence.
        other = policy.model_copy(update={"activation_bits": {problem.network.input.name: 5}})
        name = f"keep {ratio}, {weight_bits}-bit weights, {activation_bits}-bit activations"
        for fidelity in ("independent", "sequential"):
            evaluator = Evaluator(problem, fidelity)
            evaluator.program(policy)  # independent layers are prepared once
            seconds = fastest(partial(evaluate, evaluator, policy, images), partial(evaluator.program, other))
            print(f"{name}, {fidelity}: {seconds:.3f} s, {seconds / plain:.2f} of the plain forward", flush=True)
    for searcher in ("dynamic", "ppo"):
        search(problem, searcher, trials, plain)


def search(problem: Problem, searcher: str, trials: int, plain: float) -> None:
    """Print what a trial of a short search takes, of `plain` seconds, and what is not evaluation."""
    with tempfile.TemporaryDirectory() as name:
        header = study_header(problem, SearcherSpec(name=searcher), 0)
        Study(Path(name), header, build_searcher(searcher, {}, problem, 0), Evaluator(problem).outcome, trials).run()
        with (Path(name) / "times.csv").open() as stream:
            rows = list(csv.DictReader(stream))
    evaluations, rest = (sum(float(row[column]) for row in rows) for column in ("evaluation_s", "search_s"))
    mean = evaluations / len(rows)
    print(
        f"{searcher}, {len(rows)} trials, sequential, average over the search: {mean:.3f} s, {mean / plain:.2f} ",
        end="",
    )
    print(
        f"of the plain forward; agent, environment and log take {rest / (rest + evaluations):.1%} of the search",
        flush=True,
    )


if __name__ == "__main__":
    main()
