"""Which searcher did best, said with its uncertainty, and said plainly when nothing can be told apart."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

from automc.analysis.runs import Study, Task
from automc.analysis.stats import Interval, PairTest, compare_pairs, interquartile_interval
from automc.environment.measures import Floats
from automc.search.pareto import hypervolume
from automc.search.searchers import is_agent


@dataclass(frozen=True, eq=False)
class Standing:
    """One searcher's place: its rewards by seed, `runs`, interquartile means, and its longest study's trials."""

    searcher: str
    trials: int
    reward: Interval
    rewards: Floats
    hypervolume: Interval


@dataclass(frozen=True, eq=False)
class Ranking:
    """All searchers of one environment, the best mean reward first, and every pair of them tested."""

    standings: tuple[Standing, ...]
    tests: tuple[PairTest, ...]

    @property
    def trials(self) -> int:
        """The trials of the longest study."""
        return max((standing.trials for standing in self.standings), default=0)

    @property
    def compares(self) -> bool:
        """Whether there are several searchers or seeds, so that there is something to compare."""
        return sum(len(standing.rewards) for standing in self.standings) > 1


def rank(task: Task) -> Ranking:
    """Rank the searchers of `task` by the best reward that each of their studies has found.

    A searcher that has nothing left to try ends early and keeps what it found; `Standing.trials` tells.
    """
    standings = [_standing(name, studies, task) for name, studies in task.by_searcher.items()]
    standings.sort(key=lambda standing: (-standing.reward.estimate, standing.searcher))
    scores = {standing.searcher: standing.rewards for standing in standings}
    enough = all(len(rewards) > 1 for rewards in scores.values())
    return Ranking(tuple(standings), tuple(compare_pairs(scores)) if enough else ())


def _standing(searcher: str, studies: tuple[Study, ...], task: Task) -> Standing:
    rewards = np.array([np.nanmax(study.column("reward")) for study in studies])
    volumes = np.array([_volume(study, task) for study in studies])
    trials = max(len(study.trials) for study in studies)
    return Standing(searcher, trials, _interval(rewards), rewards, _interval(volumes))


def _volume(study: Study, task: Task) -> float:
    """The study's hypervolume as a share of the box between the best quality at cost 0 and the reference."""
    cost, quality = study.column(task.cost_metric), study.column(task.reading.column)
    known = np.isfinite(cost) & np.isfinite(quality)
    (most, lowest), highest = task.reference, task.best_quality
    return hypervolume(cost[known], quality[known], (most, lowest)) / (most * max(highest - lowest, 1e-12))


def _interval(scores: Floats) -> Interval:
    # A generator of its own, so that one searcher's interval does not depend on who else is there.
    return interquartile_interval(scores[:, None], np.random.default_rng(0))


def verdict(ranking: Ranking) -> str:
    """Who won, in sentences: whether intervals overlap, whether the agent lost, and what so few seeds cannot show."""
    if not ranking.standings:
        return "No trial has succeeded yet."
    best, *others = ranking.standings
    found = f"after {ranking.trials} trial{'s' * (ranking.trials > 1)} ({best.reward.estimate:.4f})"
    if not others:
        seeds = len(best.rewards)
        return f"Only {best.searcher} has searched, with {seeds} seed{'s' * (seeds > 1)}: best reward {found}."
    level = [other.searcher for other in others if best.reward.overlaps(other.reward)]
    if any(len(standing.rewards) < 2 for standing in ranking.standings):
        sentence = (
            f"{best.searcher} found the highest reward {found}, but single seeds allow no ranking: it may be luck."
        )
    elif level:
        sentence = (
            f"{best.searcher} comes first by the interquartile mean of rewards {found}, but its 95 % interval overlaps "
            f"that of {_listed(level)}: these seeds do not tell them apart."
        )
    else:
        sentence = (
            f"{best.searcher} wins with the highest interquartile mean of rewards {found}: its 95 % interval lies "
            f"above that of {_listed([other.searcher for other in others])}."
        )
    return " ".join(filter(None, (sentence, _lost_agents(ranking), _power(ranking))))


def _lost_agents(ranking: Ranking) -> str:
    """A sentence for every learned agent that a baseline beats."""
    best = ranking.standings[0]
    if is_agent(best.searcher):
        return ""
    return " ".join(
        f"The learned agent {standing.searcher} does not win: it takes place {place} of {len(ranking.standings)}, "
        f"{best.reward.estimate - standing.reward.estimate:.4f} below {best.searcher}."
        for place, standing in enumerate(ranking.standings, start=1)
        if is_agent(standing.searcher) and standing.reward.estimate < best.reward.estimate
    )


def _power(ranking: Ranking) -> str:
    """What the rank test could show at best with so few seeds."""
    if not ranking.tests:
        return ""
    counts = sorted(len(standing.rewards) for standing in ranking.standings)
    # The smallest two-sided p-value is that of complete separation: 2 of all ways to share out the ranks.
    smallest = len(ranking.tests) * 2 / comb(counts[-1] + counts[-2], counts[-1])
    if smallest <= 0.05:
        return ""
    return (
        f"With {counts[-1]} seeds a rank test over {len(ranking.standings)} searchers cannot reach 5 % significance, "
        f"however clear the difference (smallest corrected p-value: {min(1.0, smallest):.2f})."
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
