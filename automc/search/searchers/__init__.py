"""The searchers by name, and the way for a user's own to join them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from automc.files import first_line, not_registered
from automc.reading import make_spec
from automc.search.searchers.settings import (
    AnnealingSettings,
    DynamicSettings,
    EvolutionSettings,
    FrontSettings,
    GreedySettings,
    OffPolicySettings,
    PopulationSettings,
    PPOSettings,
    RecurrentPPOSettings,
    Settings,
    StartupSettings,
    TPESettings,
)

if TYPE_CHECKING:
    from automc.environment.problem import Problem
    from automc.search.searchers.base import Searcher


class _BuiltIn(NamedTuple):
    """A searcher by text, so that to list them imports none of the libraries behind them."""

    module: str
    name: str
    title: str
    settings: type[Settings] = Settings
    learns: bool = False  # whether it is an agent, which the others are baselines for


_BUILT_IN = {
    "annealing": _BuiltIn(
        "annealing", "Annealing", "simulated annealing from the best of a few random policies", AnnealingSettings
    ),
    "cmaes": _BuiltIn("optuna_samplers", "CMAES", "covariance matrix adaptation (Optuna)", PopulationSettings),
    "ddpg": _BuiltIn(
        "off_policy", "DDPGAgent", "a learned agent: AMC's deterministic policy gradient", OffPolicySettings, True
    ),
    "deep": _BuiltIn("depth", "Deep", "a heuristic of AMC: the last layers are compressed most"),
    "dynamic": _BuiltIn(
        "dynamic", "Dynamic", "exact allocation on measured sensitivities, corrected by its trials", DynamicSettings
    ),
    "evolution": _BuiltIn("evolution", "Evolution", "regularised evolution: the oldest policy dies", EvolutionSettings),
    "gp": _BuiltIn("optuna_samplers", "GP", "Bayesian optimisation by a Gaussian process (Optuna)", StartupSettings),
    "greedy": _BuiltIn("greedy", "Greedy", "step by step what loses least for what it saves", GreedySettings),
    "nsga2": _BuiltIn("optuna_samplers", "NSGA2", "evolution of policies by NSGA-II (Optuna)", FrontSettings),
    "nsga3": _BuiltIn("optuna_samplers", "NSGA3", "evolution of policies by NSGA-III (Optuna)", FrontSettings),
    "ppo": _BuiltIn(
        "ppo", "PPOAgent", "a learned agent: proximal policy optimisation with masked actions", PPOSettings, True
    ),
    "recurrent_ppo": _BuiltIn(
        "recurrent_ppo",
        "RecurrentPPOAgent",
        "a learned agent: MnasNet's recurrent controller",
        RecurrentPPOSettings,
        True,
    ),
    "random": _BuiltIn("random", "Random", "each decision drawn with equal chances from what the budget allows"),
    "shallow": _BuiltIn("depth", "Shallow", "a heuristic of AMC: the first layers are compressed most"),
    "td3": _BuiltIn(
        "off_policy", "TD3Agent", "a learned agent: twin delayed deterministic policy gradient", OffPolicySettings, True
    ),
    "tpe": _BuiltIn("optuna_samplers", "TPE", "a tree-structured Parzen estimator (Optuna)", TPESettings),
    "uniform": _BuiltIn("uniform", "Uniform", "every uniform policy that keeps the budget, the least compressed first"),
}
_REGISTERED: dict[str, type[Searcher]] = {}


def register_searcher(name: str, searcher: type[Searcher]) -> None:
    """Make a user's own searcher known under `name` (from a `--plugin` module)."""
    _REGISTERED[name] = searcher


def searcher_names() -> list[str]:
    """The names that `build_searcher` knows."""
    return sorted(_BUILT_IN.keys() | _REGISTERED.keys())


def searcher_class(name: str) -> type[Searcher]:
    """The class of the searcher called `name`. Raises `NameNotFound` with the nearest name."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in _BUILT_IN:
        raise not_registered("searcher", name, searcher_names())
    known = _BUILT_IN[name]
    searcher: type[Searcher] = getattr(import_module(f"{__name__}.{known.module}"), known.name)
    return searcher


def searcher_title(name: str) -> str:
    """What the searcher called `name` does, in a line. Raises `NameNotFound`."""
    known = _built_in(name)
    return known.title if known else first_line(searcher_class(name))


def searcher_settings(name: str) -> type[Settings]:
    """What may be set of the searcher called `name`. Raises `NameNotFound`."""
    known = _built_in(name)
    return known.settings if known else searcher_class(name).settings_model


def is_agent(name: str) -> bool:
    """Whether the searcher called `name` learns; one that is not known here does not."""
    known = _built_in(name)
    return known.learns if known else name in _REGISTERED and _REGISTERED[name].learns


def _built_in(name: str) -> _BuiltIn | None:
    """The searcher of this package called `name`, unless a user's own has taken its name."""
    return None if name in _REGISTERED else _BUILT_IN.get(name)


def check_settings(name: str, settings: Mapping[str, Any]) -> Settings:
    """The settings of a searcher, with its defaults filled in.

    Raises `ConfigError` with all faults at once: the setting, what is allowed, the nearest name.
    """
    return make_spec(searcher_settings(name), settings, f"searcher {name}")


def build_searcher(name: str, settings: Mapping[str, Any], problem: Problem, seed: int) -> Searcher:
    """The searcher called `name` for a problem. Raises `NameNotFound` and `ConfigError`."""
    return searcher_class(name)(problem, check_settings(name, settings), seed)
