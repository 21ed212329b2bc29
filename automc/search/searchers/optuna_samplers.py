"""Optuna's samplers behind ask and tell: TPE, a Gaussian process, CMA-ES, NSGA-II and NSGA-III."""

from __future__ import annotations

import warnings

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial

from automc.search.searchers.base import Evaluate, Searcher
from automc.search.searchers.moves import within_budget
from automc.search.searchers.settings import FrontSettings, PopulationSettings, StartupSettings, TPESettings
from automc.search.trials import Trial


class _Sampled(Searcher):
    """Asks a sampler for an index for each decision, and lowers what is more than the budget allows.

    The sampler is told the policy that was evaluated, not the one that it proposed, so that it learns what is true.
    """

    def sampler(self) -> BaseSampler:
        """The method, seeded."""
        raise NotImplementedError

    def batch(self, told: int) -> int:
        """How many policies the sampler proposes after `told` trials without an answer to one of them."""
        raise NotImplementedError

    def values(self, trial: Trial) -> list[float]:
        """What the sampler is told of a trial; all are maximised."""
        return [trial.reward]

    @property
    def objectives(self) -> int:
        """How many values a trial has."""
        return 1

    def run(self, evaluate: Evaluate) -> None:
        space = self.problem.space
        random = np.random.default_rng(self.seed)
        distributions: dict[str, BaseDistribution] = {
            f"{decision.kind} of {decision.name}": IntDistribution(0, len(decision.choices) - 1)
            for decision in space.decisions
        }
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():  # of names that may change in another version; ours is tested
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = self.sampler()
        study = optuna.create_study(sampler=sampler, directions=["maximize"] * self.objectives)
        told = 0
        while True:
            asked = [study.ask(distributions) for _ in range(self.batch(told))]
            proposals = [
                within_budget(self.problem, [one.params[name] for name in distributions], random) for one in asked
            ]
            for one, choices, trial in zip(
                asked, proposals, evaluate.many(map(space.policy, proposals)), strict=True
            ):  # fmt: skip
                # The evolving ones keep a trial's generation among its attributes.
                attributes = study.get_trials(deepcopy=False)[one.number].system_attrs
                study.tell(one, state=TrialState.FAIL)
                study.add_trial(
                    create_trial(
                        values=self.values(trial),
                        params=dict(zip(distributions, choices, strict=True)),
                        distributions=distributions,
                        system_attrs=attributes,
                    )
                )
                told += 1


class _Estimating(_Sampled):
    """Begins with random policies, then asks for one after the other."""

    def batch(self, told: int) -> int:
        return self.settings.startup_trials if told == 0 else 1


class TPE(_Estimating):
    """Tree-structured Parzen estimator (Bergstra et al. 2011, section 4), one estimate a decision, on the reward."""

    settings_model = TPESettings

    def sampler(self) -> BaseSampler:
        settings = self.settings
        return TPESampler(n_startup_trials=settings.startup_trials, n_ei_candidates=settings.candidates, seed=self.seed)


class GP(_Estimating):
    """Bayesian optimisation of the expected improvement by a Gaussian process (Snoek et al. 2012).

    Its own time grows with the cube of the trials: for a few hundred.
    """

    settings_model = StartupSettings

    def sampler(self) -> BaseSampler:
        return GPSampler(n_startup_trials=self.settings.startup_trials, deterministic_objective=True, seed=self.seed)


class _Evolving(_Sampled):
    """Asks for a generation at a time."""

    settings_model = PopulationSettings

    def batch(self, told: int) -> int:
        population: int = self.settings.population
        return population


class CMAES(_Evolving):
    """Covariance matrix adaptation over indices, with a margin that keeps every choice alive (Hamano et al. 2022)."""

    def sampler(self) -> BaseSampler:
        return CmaEsSampler(popsize=self.settings.population, n_startup_trials=1, with_margin=True, seed=self.seed)


class _Front(_Evolving):
    """Evolves the reward, or its front against the share of the limits that is used.

    A front keeps cheap policies alive, which a search for the one best policy has no use for.
    """

    settings_model = FrontSettings

    def values(self, trial: Trial) -> list[float]:
        unused = -self.problem.limits.ratio(self.problem.cost(trial.policy))
        return [trial.reward, unused] if self.settings.front else [trial.reward]

    @property
    def objectives(self) -> int:
        return 2 if self.settings.front else 1


class NSGA2(_Front):
    """Non-dominated sorting with crowding distances (Deb et al. 2002)."""

    def sampler(self) -> BaseSampler:
        return NSGAIISampler(population_size=self.settings.population, seed=self.seed)


class NSGA3(_Front):
    """Non-dominated sorting with reference points (Deb and Jain 2014)."""

    def sampler(self) -> BaseSampler:
        return NSGAIIISampler(population_size=self.settings.population, seed=self.seed)
