"""Each device gets the policy that is best for it: one network searched for three devices, priced on all of them.

ResNet-20's joint space at a share of each device's own dense 8-bit latency, on the logit error of a few search images,
by the searcher `dynamic`; one of the tables is measured, the others are simulated.
Run: python -m tests.benchmarks.devices [TRIALS]
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from automc import catalog
from automc.compression.policy import Policy
from automc.cost.model import CostModel
from automc.cost.table import read_table
from automc.environment.evaluator import Evaluator
from automc.environment.loading import load_problem
from automc.environment.problem import Problem
from automc.reading import read_spec
from automc.schema import EnvironmentSpec
from automc.search.searchers import build_searcher
from automc.search.study import Study

DEVICES = ("epyc_zen5_avx2", "cortex_a76", "cortex_m4")
SHARE = "60%"
TRIALS = 10
QUICK = (
    f"device={DEVICES[0]}", "metric=logit_error", f"goal.limits.latency_ms={SHARE}", "fidelity=independent",
    "data.search=200", "data.calibration=128",
)  # fmt: skip


def problems() -> dict[str, Problem]:
    """The same network, images and space for each device; only what a policy costs differs."""
    path = catalog.find("envs", "resnet20_cifar10")
    first = load_problem(read_spec(EnvironmentSpec, path, QUICK), path)
    found = {}
    for device in DEVICES:
        table = read_table(catalog.find("latency_tables", device))
        found[device] = replace(first, name=device, pricing=CostModel(first.network, table), target=table.header.target)
    return found


def searched(problem: Problem, trials: int, folder: Path) -> Policy:
    """The best policy of a short search."""
    searcher = build_searcher("dynamic", {"images": 128}, problem, seed=0)
    found = Study(folder, {"device": problem.name}, searcher, Evaluator(problem).outcome, trials).run()
    return max((trial for trial in found if trial.complete), key=lambda trial: trial.reward).policy


def main(trials: int = TRIALS) -> None:
    torch.set_num_threads(1)
    devices = problems()
    with TemporaryDirectory() as folder:
        policies = {}
        for name, problem in devices.items():
            policies[name] = searched(problem, trials, Path(folder) / name)
            print(f"searched for {name}: {policies[name].fingerprint[:12]}", flush=True)
    errors = {name: Evaluator(devices[name]).evaluate(policy).logit_error for name, policy in policies.items()}
    print(f"\nlatency as a share of the device's dense 8-bit network; at most {SHARE} is asked for")
    print(f"{'searched for':16s} {'logit error':>12s} " + " ".join(f"{name:>16s}" for name in devices))
    for name, policy in policies.items():
        shares = [problem.cost(policy).latency_ms / problem.dense_cost.latency_ms for problem in devices.values()]
        print(f"{name:16s} {errors[name]:12.4f} " + " ".join(f"{share:16.1%}" for share in shares))
    for name, problem in devices.items():
        kept = {other: errors[other] for other, policy in policies.items() if problem.limits.fits(problem.cost(policy))}
        best = min(kept, key=kept.__getitem__)
        print(f"{name}: best of those that keep its limit ({', '.join(kept)}): the one searched for {best}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
