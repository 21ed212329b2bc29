"""Greedy search: lower the cost step by step, each time where it hurts least for what it saves."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from automc.environment.measures import Floats
from automc.environment.problem import Problem
from automc.environment.space import Choices, replaced
from automc.search.searchers.base import Evaluate, Searcher
from automc.search.searchers.settings import GreedySettings
from automc.search.searchers.uniform import uniform_choices


@dataclass(frozen=True)
class Sensitivities:
    """What each decision loses by one step down from its choice in `base`, as a logarithm: the added logit error.

    `reward` is that of `base`.
    """

    base: Choices
    reward: float
    logarithms: Floats


class Greedy(Searcher):
    """Marginal allocation by measured sensitivities, then by perturbed ones.

    In the manner of NetAdapt (Yang et al. 2018, section 3.2): from the largest policy the cost is lowered step by step
    until the limits are kept, each time by the decision that loses least for the share of the limits that it saves.
    Sensitivities are measured at the best uniform policy, because changes of the largest one would break the budget;
    it takes one trial a decision. From then on, each trial is the allocation by sensitivities drawn around those of the
    best so far. Where the reward grows as costs shrink, the share of the limits that is used is drawn, too.
    """

    settings_model = GreedySettings

    def run(self, evaluate: Evaluate) -> None:
        problem, settings = self.problem, self.settings
        random = np.random.default_rng(self.seed)
        measured = measure_sensitivities(problem, evaluate, settings.uniform_trials)
        centre, record = np.append(measured.logarithms, 0.0), measured.reward
        spread = np.full(len(centre), settings.spread)
        if problem.spec.goal.reward == "amc":
            spread[-1] = 0.0  # nothing is gained by saving more than is asked
        drawn = centre
        while True:
            share = min(1.0, float(np.exp(drawn[-1])))
            choices = allocate(problem, measured.base, np.exp(drawn[:-1]), settings.growth, share)
            trial = evaluate(problem.space.policy(choices))
            if trial.complete and trial.reward > record:
                centre, record = drawn, trial.reward
            drawn = centre + random.normal(0.0, 1.0, len(centre)) * spread


def measure_sensitivities(problem: Problem, evaluate: Evaluate, uniform_trials: int) -> Sensitivities:
    """Sensitivities at the best of the least compressed uniform policies that keep the budget.

    A decision whose step down is not allowed, or fails, gets the median of the others.
    """
    space, limits = problem.space, problem.limits
    candidates = uniform_choices(problem)[:uniform_trials] or [problem.cheapest]
    tried = list(zip(candidates, evaluate.many(map(space.policy, candidates)), strict=True))
    base, trial = max(tried, key=lambda pair: (pair[1].complete, pair[1].reward))
    found = np.full(len(base), np.nan)
    steps = {position: replaced(base, position, index - 1) for position, index in enumerate(base) if index > 0}
    if limits.hard:
        steps = {position: step for position, step in steps.items() if limits.fits(problem.cost_of(step))}
    for position, answer in zip(steps, evaluate.many(map(space.policy, steps.values())), strict=True):
        if answer.complete and trial.complete:
            found[position] = answer.metrics["logit_error"] - trial.metrics["logit_error"]
    known = found[found > 0]
    # What seems to help is noise of few images: it is taken to be as harmless as the most harmless that is known.
    least, middle = (float(known.min()), float(np.median(known))) if len(known) else (1.0, 1.0)
    return Sensitivities(base, trial.reward, np.log(np.where(np.isnan(found), middle, np.maximum(found, least))))


def allocate(problem: Problem, base: Choices, losses: Floats, growth: float, share: float = 1.0) -> Choices:
    """The largest policy, lowered step by step until no cost exceeds `share` of its limit.

    A step of decision `i` down to choice `k` loses `losses[i] * growth ** (base[i] - k - 1)`. Where the limits
    themselves are not reached, the answer is `problem.cheapest`.
    """
    limits = problem.limits

    def load(choices: Choices) -> float:
        return limits.worst(problem.cost_of(choices))

    def next_step(choices: Choices, position: int) -> tuple[float, int, int] | None:
        """Loss for the share of the limits saved, position and choice of the shortest way down that saves anything."""
        before, loss = load(choices), 0.0
        for index in reversed(range(choices[position])):
            loss += float(losses[position] * growth ** (base[position] - index - 1))
            saved = before - load(replaced(choices, position, index))
            if saved > 0:
                return loss / saved, position, index
        return None

    choices = problem.space.largest()
    queue = [step for position in range(len(choices)) if (step := next_step(choices, position))]
    heapq.heapify(queue)
    while queue and load(choices) > share:
        _, position, _ = heapq.heappop(queue)
        # What a step saves changes with the steps before it: it is priced again, and waits if another is better now.
        step = next_step(choices, position)
        if step is None:
            continue
        if queue and step > queue[0]:
            heapq.heappush(queue, step)
            continue
        choices = replaced(choices, position, step[2])
        if further := next_step(choices, position):
            heapq.heappush(queue, further)
    return choices if limits.fits(problem.cost_of(choices)) else problem.cheapest
