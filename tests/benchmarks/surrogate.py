"""A model of what policies of ResNet-20's joint space are worth, on which a thousand trials take seconds.

Run one searcher on it, for example the agent with three seeds and 200 trials at half of the dense latency:

    python tests/benchmarks/surrogate.py run ppo --trials 200 --seeds 3 --budget 0.5 [--settings '{"episodes": 16}']

or from Python, as `searchers.py` beside this file does for all searchers:

    from surrogate import Surrogate, open_problem, search
    problem = open_problem(budget=0.35)             # the environment's own space, prices, limits and sensitivities
    trials = search("ppo", problem, Surrogate.of(problem), seed=0, trials=200, settings={"episodes": 16})

The model is a Gaussian process over choices, fitted to the accuracy and the logit error of policies that were evaluated
for real on `envs/resnet20_cifar10.yaml`, 1,000 search images, prepared sequentially. They stand in FOLDER/policies.log,
which grows by

    python tests/benchmarks/surrogate.py add RUN/resnet20_cifar10/*/trials.log    # the trials of any run
    python tests/benchmarks/surrogate.py log [--policies 600]                     # policies of budgets of 22 to 60 %

and `check` cross-validates it. The model is smooth: chance that 1,000 images add to an accuracy is not in it. Where a
searcher leaves what was evaluated it extrapolates, so winners are to be evaluated for real.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import kendalltau

from automc.commands import specs
from automc.compression.policy import Policy
from automc.environment.evaluator import Evaluator
from automc.environment.metrics import Metrics, Outcome
from automc.environment.problem import Problem
from automc.environment.sensitivity import single_losses
from automc.environment.space import replaced
from automc.errors import BudgetSpent
from automc.search.allocation import allocate
from automc.search.log import Record, RecordLog, read_records
from automc.search.searchers import build_searcher
from automc.search.searchers.base import Evaluate
from automc.search.searchers.moves import within_budget
from automc.search.searchers.random import random_policy
from automc.search.trials import Trial

ENVIRONMENT, DEVICE = "resnet20_cifar10", "epyc_zen5_avx2"
FOLDER = Path(__file__).parents[2] / "experiments" / "results" / "surrogate"
LOG_NAME = "policies.log"
BUDGETS = (0.22, 0.6)  # shares of the dense latency between which those of `log` are drawn
SPREADS = (0.0, 0.2, 0.5, 1.0, 2.0)  # of the logarithms of the losses that guided policies are allocated by
LENGTH, NOISE = 1.5, 0.01  # of the process: how far interactions reach, and the variance that it leaves unexplained
FOLDS = 5
Floats = NDArray[np.float64]
Choices = tuple[int, ...]


def open_problem(budget: float = 0.35) -> Problem:
    """The environment on the device of a table that everybody has; `budget` is the latency limit's share."""
    return specs.open_problem(ENVIRONMENT, (f"device={DEVICE}", f"goal.limits.latency_ms={100 * budget:g}%"), None)


def within(problem: Problem, budget: float) -> Problem:
    """The same problem under another budget."""
    goal = problem.spec.goal.model_copy(update={"limits": {"latency_ms": f"{100 * budget:.4f}%"}})
    return replace(problem, spec=problem.spec.model_copy(update={"goal": goal}))


@dataclass(frozen=True, eq=False)
class Surrogate:
    """Gaussian processes of the logarithms of error rate and logit error: `weights` over the `known` policies.

    known: `policies x decisions` choices; weights and means: `policies x 2` and `2`. The covariance of two policies is
    a constant, what decisions share alone, and a squared exponential of the distance of their choices (`_positions`).
    """

    problem: Problem
    known: NDArray[np.int64]
    weights: Floats
    means: Floats

    @classmethod
    def of(cls, problem: Problem, records: Sequence[Record] | None = None) -> Surrogate:
        """The model of logged policies, by default of all in FOLDER."""
        records = read_records(FOLDER / LOG_NAME)[1] if records is None else records
        known = np.array([list(map(int, record["choices"])) for record in records])
        targets = np.log([[max(1 - record["accuracy"], 1e-3), record["logit_error"]] for record in records])
        means = targets.mean(0)
        covariance = _covariance(problem, known, known) + NOISE * np.eye(len(known))
        return cls(problem, known, cho_solve(cho_factor(covariance), targets - means), means)

    def predict(self, choices: Sequence[Choices]) -> Floats:
        """Accuracy and logit error of policies, `policies x 2`."""
        found = np.exp(self.means + _covariance(self.problem, np.array(choices), self.known) @ self.weights)
        return np.column_stack([1 - np.minimum(found[:, 0], 1.0), found[:, 1]])

    def outcome(self, problem: Problem, policy: Policy) -> Outcome:
        """What an evaluator of `problem`, under whatever budget, would answer."""
        ((accuracy, error),) = self.predict([problem.space.choices_of(policy)])
        cost = problem.cost(policy)
        metrics = Metrics(
            quality=float(accuracy),
            quality_loss=1 - float(accuracy),  # of a network that is always right
            logit_error=float(error),
            latency_ms=cost.latency_ms,
            energy_mj=cost.energy_mj,
            size_bytes=cost.size_bytes,
            peak_memory_bytes=0,
            macs=cost.macs,
        )
        return Outcome(metrics.to_record(), problem.reward(metrics))


def _covariance(problem: Problem, first: NDArray[np.int64], second: NDArray[np.int64]) -> Floats:
    equal = np.zeros((len(first), len(second)))
    for mine, theirs in zip(first.T, second.T, strict=True):
        equal += mine[:, None] == theirs[None, :]
    here, there = _positions(problem, first), _positions(problem, second)
    distances = (here**2).sum(1)[:, None] + (there**2).sum(1)[None, :] - 2 * here @ there.T
    covariance: Floats = 4 + equal / first.shape[1] + np.exp(-0.5 * np.maximum(distances, 0) / LENGTH**2)
    return covariance


def _positions(problem: Problem, choices: NDArray[np.int64]) -> Floats:
    """Where choices lie in (0, 1]: keep ratios as they are, bits by their logarithm."""
    columns = []
    for decision, column in zip(problem.space.decisions, choices.T, strict=True):
        shares = np.array(decision.shares)
        columns.append((shares if decision.kind == "keep_ratio" else np.log2(8 * shares) / 3)[column])
    return np.column_stack(columns)


def search(
    name: str, problem: Problem, surrogate: Surrogate, seed: int, trials: int, settings: Mapping[str, Any] | None = None
) -> list[Trial]:
    """The trials of one study on the model."""
    done: list[Trial] = []

    class Answers(Evaluate):
        def __call__(self, policy: Policy) -> Trial:
            if len(done) == trials:
                raise BudgetSpent("all trials are spent")
            outcome = surrogate.outcome(problem, policy)
            done.append(Trial(len(done), policy, outcome.metrics, outcome.reward))
            return done[-1]

    with contextlib.suppress(BudgetSpent):
        build_searcher(name, settings or {}, problem, seed).run(Answers())
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.add_argument("searcher")
    one.add_argument("--trials", type=int, default=200)
    one.add_argument("--seeds", type=int, default=3)
    one.add_argument("--budget", type=float, default=0.35)
    one.add_argument("--settings", type=json.loads, default={})
    one.set_defaults(command=run)
    commands.add_parser("check").set_defaults(command=check)
    more = commands.add_parser("add")
    more.add_argument("logs", type=Path, nargs="+")
    more.set_defaults(command=add)
    log = commands.add_parser("log")
    log.add_argument("--policies", type=int, default=600)
    log.set_defaults(command=evaluate_drawn)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.command(options)


def run(options: argparse.Namespace) -> None:
    problem = open_problem(options.budget)
    surrogate = Surrogate.of(problem)
    for seed in range(options.seeds):
        trials = search(options.searcher, problem, surrogate, seed, options.trials, options.settings)
        rewards = np.maximum.accumulate([trial.reward for trial in trials])
        marks = [mark for mark in (10, 25, 50, 100, 200, 500, 1000, 2000) if mark < len(rewards)] + [len(rewards)]
        print(
            f"{options.searcher}-{seed}:", "  ".join(f"{mark}: {rewards[mark - 1]:.4f}" for mark in marks), flush=True
        )


def check(options: argparse.Namespace) -> None:
    """Rank correlations with what was left out: every fifth policy, or all that one searcher has found."""
    problem = open_problem()
    _, records = read_records(options.folder / LOG_NAME)
    true = np.array([[record["accuracy"], record["logit_error"]] for record in records])
    sources = np.array([record["how"].split()[0] for record in records])
    drawn = np.random.default_rng(0).permutation(len(records)) % FOLDS
    print(f"{len(records)} policies, of which {(true[:, 0] > 0.85).sum()} are right in more than 85 %")
    for title, folds in ((f"{FOLDS} folds", drawn), ("one searcher left out", sources)):
        found = np.zeros_like(true)
        for fold in np.unique(folds):
            left = np.flatnonzero(folds == fold)
            model = Surrogate.of(problem, [records[index] for index in np.flatnonzero(folds != fold)])
            found[left] = model.predict(_choices(records, left))
        for name, chosen in (("all", np.full(len(true), True)), ("accuracy above 0.85", true[:, 0] > 0.85)):
            off = np.abs(found[chosen, 0] - true[chosen, 0])
            ranks = [kendalltau(found[chosen, column], true[chosen, column])[0] for column in (0, 1)]
            print(
                f"{title:24s}{name:22s}Kendall {ranks[0]:.3f} (accuracy) {ranks[1]:.3f} (logit error), "
                f"mean error of accuracy {100 * off.mean():.2f} points"
            )


def _choices(records: Sequence[Record], indices: NDArray[np.int64]) -> list[Choices]:
    return [tuple(map(int, records[index]["choices"])) for index in indices]


def add(options: argparse.Namespace) -> None:
    """Trials of runs on the same weights and images, whatever their device and budget were; each policy once."""
    problem = open_problem()
    with _open(problem, options.folder) as log:
        known = {record["choices"] for record in log.records}
        for path in options.logs:
            header, trials = read_records(path)
            if any(header["hashes"][name] != problem.identity[name] for name in ("weights", "images")):
                print(f"{path}: of other weights or images")
                continue
            for trial in trials:
                choices = "".join(map(str, problem.space.choices_of(Policy.model_validate(trial["policy"]))))
                if trial["state"] == "complete" and choices not in known:
                    known.add(choices)
                    log.write(_record(f"{header['searcher']} {header['seed']}", choices, trial["metrics"]))
        print(f"{len(log.records)} policies")


def evaluate_drawn(options: argparse.Namespace) -> None:
    problem = open_problem()
    evaluator = Evaluator(problem)
    with _open(problem, options.folder) as log:
        known = {record["choices"] for record in log.records}
        for number in range(options.policies):
            how, drawn = proposal(problem, number)
            choices = "".join(map(str, drawn))
            if choices in known:
                continue
            metrics = evaluator.evaluate(problem.space.policy(drawn))
            log.write(_record(how, choices, metrics.to_record()))
            print(number, log.records[-1], flush=True)


def _open(problem: Problem, folder: Path) -> RecordLog:
    header = {"environment": ENVIRONMENT, **{name: problem.identity[name] for name in ("weights", "images")}}
    return RecordLog(folder / LOG_NAME, header, print)


def _record(how: str, choices: str, metrics: Mapping[str, Any]) -> Record:
    return {
        "how": how,
        "choices": choices,
        "accuracy": metrics["accuracy"],
        "logit_error": round(metrics["logit_error"], 6),
    }


def proposal(problem: Problem, number: int) -> tuple[str, Choices]:
    """How policy `number` of `log` is drawn, and its choices.

    A third are random walks; the others are allocated by sensitivities that are more or less wrong, and every second of
    those has some of its choices changed. What is drawn depends on no answer.
    """
    random = np.random.default_rng([0, number])
    limited = within(problem, float(random.uniform(*BUDGETS)))
    if number % 3 == 0:
        return "drawn random", problem.space.choices_of(random_policy(limited, random))
    losses = single_losses(problem)
    spread = float(random.choice(SPREADS))
    choices = allocate(limited, [loss * np.exp(spread * random.normal()) for loss in losses])
    if number % 3 == 1:
        return f"drawn allocated {spread:g}", choices
    for position in random.choice(len(choices), int(random.integers(1, 12)), replace=False):
        count = len(problem.space.decisions[position].choices)
        step = int(random.choice([-2, -1, 1, 2]))
        choices = replaced(choices, int(position), int(np.clip(choices[position] + step, 0, count - 1)))
    return f"drawn mutated {spread:g}", within_budget(limited, choices, random)


if __name__ == "__main__":
    main()
