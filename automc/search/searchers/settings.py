"""What a user may set of each searcher; apart from the methods, so that to list or check it imports none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from automc.files import sha256_of
from automc.search.searchers.saved import read_saved


class Settings(BaseModel):
    """What may be set of a searcher: each that has settings extends it; a field's description is what is listed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of every file that these settings name, by setting: with others it is another study."""
        return {}


class AnnealingSettings(Settings):
    """Of `annealing`."""

    startup_trials: Annotated[int, Field(ge=2, description="random policies, the best of which is the start")] = 10
    heat: Annotated[
        float, Field(gt=0, description="the first temperature, in standard deviations of their rewards")
    ] = 0.1
    cooling: Annotated[float, Field(gt=0, le=1, description="what share of it is left after each cycle")] = 0.05
    cycle: Annotated[int, Field(ge=2, description="trials until it begins anew at the best so far")] = 200
    changes: Annotated[int, Field(ge=1, description="decisions that a step draws anew, before the budget is kept")] = 3


class DynamicSettings(Settings):
    """Of `dynamic`."""

    images: Annotated[int, Field(ge=1, description="on how many the sensitivities are measured")] = 256
    spread: Annotated[
        float, Field(gt=0, description="how wrong each may be, as the standard deviation of its factor")
    ] = 0.4
    noise: Annotated[
        float, Field(gt=0, description="what the factors leave unexplained, as a share of the logit error")
    ] = 0.1
    exploration: Annotated[float, Field(ge=0, description="how much of what is not yet known a trial draws")] = 0.1


class EvolutionSettings(Settings):
    """Of `evolution`."""

    population: Annotated[int, Field(ge=2, description="policies alive")] = 25
    sample: Annotated[int, Field(ge=1, description="how many of them compete to be the parent")] = 8
    changes: Annotated[int, Field(ge=1, description="decisions that differ in a child, before the budget is kept")] = 3


class GreedySettings(Settings):
    """Of `greedy`; a growth of 4 is what a bit less does to the variance of rounding."""

    uniform_trials: Annotated[
        int, Field(ge=1, description="uniform policies tried for the one that sensitivities are measured at")
    ] = 6
    growth: Annotated[float, Field(gt=0, description="how many times more each further step down loses")] = 4.0
    spread: Annotated[
        float, Field(ge=0, description="standard deviation of the perturbed logarithms of the sensitivities")
    ] = 0.5


class StartupSettings(Settings):
    """Of searchers that estimate: `gp`, and `tpe`."""

    startup_trials: Annotated[int, Field(ge=1, description="random policies before the first estimate")] = 20


class TPESettings(StartupSettings):
    """Of `tpe`."""

    candidates: Annotated[int, Field(ge=1, description="draws that each estimate ranks")] = 24


class PopulationSettings(Settings):
    """Of `cmaes`."""

    population: Annotated[int, Field(ge=4, description="policies in a generation")] = 20


class FrontSettings(PopulationSettings):
    """Of `nsga2` and `nsga3`."""

    front: Annotated[
        bool, Field(description="evolve the front of reward against the share of the limits, not the reward alone")
    ] = False


class AgentSettings(Settings):
    """Of every agent."""

    agent: Annotated[
        str, Field(description="the folder of a study whose agent goes on learning here, on whatever network")
    ] = ""

    def hashes(self) -> dict[str, str]:
        return {"agent": sha256_of(read_saved(Path(self.agent))[1])} if self.agent else {}


class OffPolicySettings(AgentSettings):
    """Of `ddpg` and `td3`."""

    warm_up: Annotated[int, Field(ge=1, description="policies drawn at random before the first update")] = 25
    noise: Annotated[
        float, Field(ge=0, description="standard deviation of what exploring adds to an action from -1 to 1")
    ] = 0.3
    learning_rate: Annotated[float, Field(gt=0, description="of actor and critics")] = 1e-3


class RecurrentPPOSettings(AgentSettings):
    """Of `recurrent_ppo`."""

    episodes: Annotated[int, Field(ge=2, description="policies between two updates")] = 8
    learning_rate: Annotated[float, Field(gt=0, description="of the network")] = 1e-3
    entropy: Annotated[float, Field(ge=0, description="the bonus for staying undecided")] = 0.0


class PPOSettings(AgentSettings):
    """Of `ppo`.

    With a prior, an update learns from `imagined` episodes, and after it the `trials` most promising policies are
    tried. A policy is judged by what is expected of it, and up to `optimism` standard deviations of what is not known
    in its favour: none for the first of these trials, all for the last. Without one, an update learns from `episodes`,
    each of them a trial.
    """

    prior: Annotated[
        Literal["sensitivity", "none"],
        Field(description="sensitivity: start from what each choice loses alone, predict what to try; none: just try"),
    ] = "sensitivity"
    imagined: Annotated[int, Field(ge=2, description="with a prior: imagined episodes in an update")] = 64
    trials: Annotated[int, Field(ge=1, description="with a prior: policies that are tried after it")] = 4
    optimism: Annotated[
        float, Field(ge=0, description="with a prior: standard deviations that count for the least known of them")
    ] = 2.0
    episodes: Annotated[int, Field(ge=2, description="without one: episodes in an update, each a trial")] = 8
    least_budget: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="below 1: one agent for every budget from this share of the limits on; its trials make a front",
        ),
    ] = 1.0
    learning_rate: Annotated[float, Field(gt=0, description="of the network")] = 1e-3
    epochs: Annotated[int, Field(ge=1, description="how often an update goes through its episodes")] = 2
    clip_range: Annotated[float, Field(gt=0, description="how far an update may change the chance of an action")] = 0.2
    entropy: Annotated[float, Field(ge=0, description="the bonus for staying undecided")] = 0.0
    confidence: Annotated[
        float, Field(ge=0, description="logits that a fresh agent takes off a choice for each step from the best's")
    ] = 3.0
