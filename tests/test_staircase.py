"""A staircase offers the channel counts at which latency falls, and no others."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from automc.cost.model import CostModel
from automc.environment.space import MAX_CHOICES, SearchSpace
from automc.environment.staircase import staircase
from automc.errors import ConfigError
from automc.reading import make_spec
from automc.schema import Pin, SearchSpaceSpec
from tests.cost_examples import residual_network
from tests.problems import macs_table, tiny_network

STAIRS = SearchSpaceSpec(description="", keep_ratio="staircase", weight_bits=[4, 8])


def vectors(slots: int, ramp: float = 0.0) -> dict[float, float]:
    """What 1 to `slots` channels take, 8 at a time, and `ramp` for each."""
    return {count / slots: math.ceil(count / 8) + ramp * count for count in range(1, slots + 1)}


def eighths(slots: int) -> list[float]:
    return [count / slots for count in range(8, slots + 1, 8)]


def test_only_the_largest_count_of_each_stair_is_offered() -> None:
    assert staircase(vectors(64), 16) == eighths(64)
    assert staircase(vectors(60), 16) == [*eighths(60), 1.0]


def test_what_each_channel_saves_does_not_hide_where_a_vector_ends() -> None:
    assert staircase(vectors(64, ramp=1 / 8), 16)[-8:] == eighths(64)
    assert staircase(vectors(64, ramp=1 / 4), 16)[-8:] == eighths(64)


def test_a_count_that_is_slower_than_a_larger_one_is_not_offered() -> None:
    assert staircase({0.25: 1.0, 0.5: 5.0, 0.75: 3.0, 1.0: 4.0}, 16) == [0.25, 0.75, 1.0]
    assert staircase({0.25: 4.0, 0.5: 5.0, 0.75: 4.0, 1.0: 4.0}, 16) == [1.0]


@pytest.mark.parametrize("seed", range(20))
def test_every_offered_count_saves_something_worth_having(seed: int) -> None:
    random = np.random.default_rng(seed)
    slots = int(random.integers(2, 400))
    ratios = (np.arange(1, slots + 1) / slots).tolist()
    latencies = dict(zip(ratios, np.cumsum(random.exponential(size=slots) ** 3).tolist(), strict=True))
    offered = staircase(latencies, 16)
    part = (latencies[1.0] - latencies[ratios[0]]) / 15
    assert offered[-1] == 1
    assert len(offered) <= 16
    for lower, upper in pairwise(offered):
        assert latencies[upper] - latencies[lower] >= part
        assert all(latencies[ratio] > latencies[lower] for ratio in ratios if ratio > lower)


def test_each_group_of_a_network_has_its_own_stairs() -> None:
    network = tiny_network(width=8)  # groups of 32 and 64 channels
    table = macs_table(network)
    model = CostModel(network, replace(table, header=replace(table.header, output_tile=8, input_tile=4)))
    space = SearchSpace(network, STAIRS, latency=lambda policy: model.cost(policy).latency_ms)
    ratios = {decision.name: decision.choices for decision in space.decisions if decision.kind == "keep_ratio"}
    assert set(ratios["b"]) <= set(eighths(64))
    assert len(ratios["b"]) >= 6
    assert all(len(offered) <= MAX_CHOICES and offered[-1] == 1 for offered in ratios.values())
    assert space.policy(space.largest()).keep_ratio == {"a": 1.0, "b": 1.0}


def test_a_staircase_ends_where_a_pin_says() -> None:
    network = residual_network()
    pinned = STAIRS.model_copy(update={"pins": [Pin(layers="b", minimum_keep_ratio=0.6)]})
    space = SearchSpace(network, pinned, latency=lambda policy: policy.keep_ratio.get("b", 1.0))
    (ratios,) = (decision.choices for decision in space.decisions if decision.kind == "keep_ratio")
    assert ratios == tuple(count / 16 for count in range(10, 17))


def test_a_staircase_without_a_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="a staircase is made of a device's latencies"):
        SearchSpace(residual_network(), STAIRS)


def test_another_word_for_ratios_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"keep_ratio: must be 'staircase' or a list of ratios\. Got 'stairs' .* mean 'st"
    ):
        make_spec(SearchSpaceSpec, {"description": "", "keep_ratio": "stairs"}, "here")
