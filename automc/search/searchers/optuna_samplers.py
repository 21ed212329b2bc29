"""Optuna's samplers behind ask and tell: TPE and NSGA-II over the decisions of the search space."""

from __future__ import annotations

from typing import Annotated

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial
from pydantic import Field

from automc.environment.walk import Walk
from automc.search.searchers.base import Evaluate, Searcher, Settings
from automc.search.trials import Trial


class _Sampled(Searcher):
    """Asks a sampler for an index for each decision, and moves it to the nearest one that the budget allows then.

    The sampler is told the policy that was evaluated, not the one that it proposed, so that it learns what is true.
    """

    def sampler(self) -> BaseSampler:
        """The method, seeded."""
        raise NotImplementedError

    def values(self, trial: Trial) -> list[float]:
        """What the sampler is told of a trial; all are maximised."""
        return [trial.reward]

    objectives = 1

    def run(self, evaluate: Evaluate) -> None:
        space = self.problem.space
        distributions: dict[str, BaseDistribution] = {
            f"{decision.kind} of {decision.name}": IntDistribution(0, len(decision.choices) - 1)
            for decision in space.decisions
        }
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=self.sampler(), directions=["maximize"] * self.objectives)
        while True:
            asked = study.ask(distributions)
            walk = Walk(self.problem)
            for name in distributions:
                walk.choose(walk.nearest(asked.params[name]))
            trial = evaluate(walk.policy)
            # NSGA-II keeps a trial's generation among its attributes.
            attributes = study.get_trials(deepcopy=False)[-1].system_attrs
            study.tell(asked, state=TrialState.FAIL)
            study.add_trial(
                create_trial(
                    values=self.values(trial),
                    params=dict(zip(distributions, walk.chosen, strict=True)),
                    distributions=distributions,
                    system_attrs=attributes,
                )
            )


class TPESettings(Settings):
    """`startup_trials`: random policies before the first estimate. `candidates`: draws that each estimate ranks."""

    startup_trials: Annotated[int, Field(ge=1)] = 20
    candidates: Annotated[int, Field(ge=1)] = 24


class TPE(_Sampled):
    """Tree-structured Parzen estimator (Bergstra et al. 2011, section 4), one estimate a decision, on the reward."""

    settings_model = TPESettings

    def sampler(self) -> BaseSampler:
        settings = self.settings
        return TPESampler(n_startup_trials=settings.startup_trials, n_ei_candidates=settings.candidates, seed=self.seed)


class NSGA2Settings(Settings):
    """`population`: policies in a generation."""

    population: Annotated[int, Field(ge=2)] = 20


class NSGA2(_Sampled):
    """NSGA-II (Deb et al. 2002): evolves the front of reward against the share of the limits that is used."""

    settings_model = NSGA2Settings
    objectives = 2

    def sampler(self) -> BaseSampler:
        return NSGAIISampler(population_size=self.settings.population, seed=self.seed)

    def values(self, trial: Trial) -> list[float]:
        return [trial.reward, -self.problem.limits.ratio(self.problem.cost(trial.policy))]
