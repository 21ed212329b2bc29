"""An environment may give a network more channels than it has, and a search may then keep them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from automc.compression.policy import Policy
from automc.environment.evaluator import Evaluator
from automc.environment.loading import build_problem
from automc.environment.problem import Problem
from automc.errors import ConfigError
from automc.files import canonical_json, sha256_of
from automc.network.datasets import load_dataset
from automc.network.net2net import widen
from automc.network.zoo import build_network
from automc.schema import DataSpec, EnvironmentSpec, GoalSpec, SearcherSpec, SearchSpaceSpec
from automc.search.experiment import study_header
from automc.search.searchers import build_searcher
from automc.search.study import Study
from automc.search.trials import read_log
from tests.networks import randomise, traced
from tests.problems import macs_table

SPACE = SearchSpaceSpec(description="channels", keep_ratio=[0.25, 0.5, 0.75, 1.0])


def resnet8() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        module = build_network("resnet8", 10, 1)
    randomise(module, 0)
    return module.eval()


NAMES = [group.name for group in traced(resnet8()).groups if group.prunable]
INSIDE = NAMES[1]  # of 16 channels between two convolutions


def problem(grow: dict[str, int]) -> Problem:
    spec = EnvironmentSpec(
        description="for tests",
        network="resnet8",
        data=DataSpec(name="digits", search=30, selection=30, calibration=32),
        goal=GoalSpec(limits={"macs": "110%"}),
        fidelity="independent",
        grow=grow,
    )
    table = macs_table(widen(traced(resnet8()), INSIDE, 24))
    return build_problem("grown", spec, resnet8(), load_dataset("digits"), space=SPACE, table=table)


@pytest.fixture(scope="module")
def grown() -> Problem:
    return problem({INSIDE: 24})


def channels(problem: Problem, policy: Policy) -> int:
    program = Evaluator(problem).program(policy)
    return program.tensors[INSIDE].channels


def test_a_search_may_keep_more_channels_than_there_were(grown: Problem, tmp_path: Path) -> None:
    header = study_header(grown, SearcherSpec(name="random"), 0)
    Study(tmp_path, header, build_searcher("random", {}, grown, 0), Evaluator(grown).outcome, 8).run()
    _, trials = read_log(tmp_path)
    kept = {channels(grown, trial.policy) for trial in trials}
    assert max(kept) > 16 > min(kept)
    assert all(trial.metrics["macs"] <= 1.1 * grown.given.macs for trial in trials)


def test_limits_and_comparisons_are_of_the_network_as_it_was(grown: Problem) -> None:
    plain = problem({})
    assert grown.dense == Policy(keep_ratio={INSIDE: 16 / 24})
    assert plain.dense == Policy()
    assert grown.dense_cost == plain.dense_cost
    assert grown.limits.costs == plain.limits.costs
    assert grown.cost(Policy()).macs > grown.dense_cost.macs == grown.given.macs
    assert channels(grown, grown.dense) == 16


def test_the_grown_network_answers_as_the_given_one(grown: Problem) -> None:
    plain = problem({})
    answers = [Evaluator(each).answers(Evaluator(each).program(Policy()), "search") for each in (plain, grown)]
    assert np.array_equal(answers[0].dense, answers[1].dense)
    spread = answers[0].dense.std()
    assert np.abs(answers[0].outputs - answers[1].outputs).mean() < 0.1 * spread
    pruned = Evaluator(grown).answers(Evaluator(grown).program(grown.dense), "search")
    assert np.abs(pruned.outputs - answers[0].outputs).mean() < 0.1 * spread  # it is copies that leave first


def test_growth_is_part_of_what_a_log_belongs_to_and_no_growth_is_not(grown: Problem) -> None:
    plain = problem({})
    before = {"description", "weights", "device", "search_space", "training", "finetuning", "measure_every", "grow"}
    content = canonical_json(plain.spec.model_dump(mode="json", exclude=before))
    assert plain.identity["environment"] == sha256_of(content.encode()) != grown.identity["environment"]
    assert problem({INSIDE: 20}).identity["environment"] != grown.identity["environment"]


@pytest.mark.parametrize(
    ("grow", "words"),
    [
        ({INSIDE[:-1]: 24}, f"grow: .* has no group '{INSIDE[:-1]}'.*'{INSIDE}'"),
        ({INSIDE: 12}, f"grow: '{INSIDE}' has 16 channels. Got 12 instead"),
        ({"linear": 24}, "grow: 'linear' cannot be widened"),
    ],
)
def test_bad_growth_is_refused_by_name(grow: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        problem(grow)
