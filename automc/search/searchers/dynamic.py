"""Dynamic programming on measured sensitivities, linearised again at what its solutions turn out to lose."""

from __future__ import annotations

import numpy as np

from automc.environment.measures import Floats
from automc.environment.sensitivity import single_losses
from automc.environment.space import Choices
from automc.search.allocation import allocate
from automc.search.searchers.base import Evaluate, Searcher
from automc.search.searchers.moves import mutated
from automc.search.searchers.settings import DynamicSettings

_ATTEMPTS = 4  # draws for one trial, each wider than the one before, until one is new
_CHANGES = 2  # of the best so far, where the allocation proposes nothing new
_LEAST_FACTOR = 0.05


class Dynamic(Searcher):
    """The exact allocation of least loss within the limits, again and again as more is known of the losses.

    What each choice loses alone is measured first (`single_losses`); that is no trial, and takes roughly a tenth of one
    for each choice. The allocation by it is the first trial. A trial's logit error is taken to be a constant and, for
    each decision, a factor times what its choice loses alone: a Bayesian linear regression, whose draws are allocated
    next (Thompson sampling). Where these are known already, the search goes on locally, around the best so far. Where
    the reward grows as costs shrink, the share of the limits that is used is drawn, too, around that of the best.
    """

    settings_model = DynamicSettings
    asks_side_by_side = False

    def run(self, evaluate: Evaluate) -> None:
        problem, settings = self.problem, self.settings
        random = np.random.default_rng(self.seed)
        losses = single_losses(problem, settings.images)
        factors = Factors(len(losses), settings.spread, settings.noise)
        wide = 0.0 if problem.spec.goal.reward == "amc" else 0.5  # amc gains nothing by saving more than is asked
        best, record, centre = problem.space.largest(), -np.inf, 0.0
        tried: set[Choices] = set()
        while True:
            choices, share = best, 0.0
            width = settings.exploration if tried else 0.0
            for _ in range(_ATTEMPTS):
                drawn = factors.draw(width, random)
                share = min(0.0, centre + wide * random.normal()) if tried else 0.0
                priced = [factor * loss for factor, loss in zip(drawn, losses, strict=True)]
                choices = allocate(problem, priced, float(np.exp(share)), best)
                if choices not in tried:
                    break
                width = 3 * width + 0.05
            else:
                choices = mutated(problem, best, _CHANGES, random)
            tried.add(choices)
            trial = evaluate(problem.space.policy(choices))
            if trial.complete:
                alone = np.array([loss[index] for loss, index in zip(losses, choices, strict=True)])
                factors.observe(alone, trial.metrics["logit_error"])
                if trial.reward > record:
                    best, record, centre = choices, trial.reward, share


class Factors:
    """What is known of `error = constant + sum of factor * loss alone`, a Bayesian linear regression.

    Before anything is seen each factor is 1 give or take `spread`, and all together may be off by as much again as they
    are. Errors count relative to their size; those that are more than twice the least seen lie too far off to count.
    """

    def __init__(self, count: int, spread: float, noise: float) -> None:
        self._mean = np.append(np.ones(count), 0.0)
        self._prior = np.zeros((count + 1, count + 1))  # covariance
        self._prior[:-1, :-1] = spread**2 * np.eye(count) + 1.0
        self._prior[-1, -1] = 1.0
        self._noise = noise
        self._losses: list[Floats] = []
        self._errors: list[float] = []

    def observe(self, losses: Floats, error: float) -> None:
        """A trial whose choices lose `losses` alone, one for each decision, was seen to have `error`."""
        self._losses.append(losses)
        self._errors.append(max(error, 1e-12))

    def draw(self, width: float, random: np.random.Generator) -> Floats:
        """One factor for each decision: what is expected, and `width` standard deviations of what is not known."""
        mean, covariance = self._mean, self._prior
        if self._errors:
            errors = np.array(self._errors)
            near = errors <= 2 * errors.min()
            errors = errors[near]
            # The constant is counted in the least error seen.
            rows = np.column_stack([np.array(self._losses)[near], np.full(len(errors), errors.min())]) / errors[:, None]
            gain = np.linalg.solve(rows @ covariance @ rows.T + self._noise**2 * np.eye(len(rows)), rows @ covariance)
            mean, covariance = mean + (1 - rows @ mean) @ gain, covariance - covariance @ rows.T @ gain
        values, vectors = np.linalg.eigh(covariance)
        noise = np.sqrt(np.maximum(values, 0)) * random.normal(size=len(values))
        drawn: Floats = np.maximum((mean + width * (vectors @ noise))[:-1], _LEAST_FACTOR)
        return drawn
