"""Each reward is its published formula, and limits are what the goal says of the dense network's cost."""

import dataclasses
import math

import pytest

from automc.environment.metrics import Metrics
from automc.environment.quality import find_metric
from automc.environment.reward import REWARDS, Limits
from automc.errors import ConfigError, EvaluationFailed
from automc.schema import GoalSpec
from tests.problems import FormulaCost

SCORE = find_metric("accuracy").score
DENSE = FormulaCost(latency_ms=2.0, energy_mj=4.0, size_bytes=1000, macs=500)
METRICS = Metrics(
    quality=0.8,
    quality_loss=0.004,
    logit_error=0.1,
    latency_ms=0.5,
    energy_mj=3.0,
    size_bytes=900,
    peak_memory_bytes=10,
    macs=100,
)


def limits(reward="amc", costs=None, **settings) -> Limits:
    return Limits.of(GoalSpec(reward=reward, limits=costs or {"latency_ms": "50%"}, **settings), DENSE)


def test_limits_are_absolute_or_a_share_of_dense():
    made = limits(costs={"latency_ms": "50%", "energy_mj": 3, "size_bytes": "12.5%", "macs": 7.5})
    assert made.costs == {"latency_ms": 1.0, "energy_mj": 3.0, "size_bytes": 125.0, "macs": 7.5}


def test_the_ratio_is_a_weighted_mean_and_every_limit_counts():
    made = limits(costs={"latency_ms": 1.0, "energy_mj": 2.0}, weights={"latency_ms": 3})
    assert made.ratio(METRICS) == pytest.approx((3 * 0.5 + 1.5) / 4)
    assert made.worst(METRICS) == 1.5
    assert not made.fits(METRICS)
    assert limits(costs={"latency_ms": 0.5, "energy_mj": 3.0}).fits(METRICS)


@pytest.mark.parametrize(
    ("reward", "settings", "expected"),
    [
        ("amc", {}, 0.8),
        ("mnasnet", {}, 0.8 * 0.5**-0.07),
        ("mnasnet", {"exponent": -0.5}, 0.8 * 0.5**-0.5),
        ("absolute", {}, 0.8 - 0.5 * 0.5),
        ("absolute", {"beta": 2.0}, 0.8 - 2 * 0.5),
        ("fastest", {}, 0.5),
        ("fastest", {"tolerance": 0.003}, -0.001),
    ],
)
def test_rewards_are_their_formulas(reward, settings, expected):
    assert REWARDS[reward](METRICS, limits(reward, **settings), SCORE) == pytest.approx(expected)


def test_fastest_prefers_any_network_within_the_tolerance():
    within = dataclasses.replace(METRICS, quality_loss=0.01, latency_ms=1.0)
    beyond = dataclasses.replace(METRICS, quality_loss=0.0101, latency_ms=0.01)
    made = limits("fastest")
    assert REWARDS["fastest"](within, made, SCORE) > REWARDS["fastest"](beyond, made, SCORE)


def test_soft_goals_have_no_hard_limits():
    assert [name for name in REWARDS if limits(name).hard] == ["amc", "fastest"]


def test_a_limit_on_what_the_device_does_not_know_is_refused():
    unknown = dataclasses.replace(DENSE, energy_mj=None)
    with pytest.raises(ConfigError, match="energy_mj has a limit, but the device's table has no model of it"):
        Limits.of(GoalSpec(limits={"energy_mj": "50%"}), unknown)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_fails_the_trial_with_the_reason(value):
    with pytest.raises(EvaluationFailed, match=f"logit_error is {value}; latency_ms is {value}"):
        dataclasses.replace(METRICS, logit_error=value, latency_ms=value)


def test_metrics_survive_their_record():
    noted = METRICS.with_notes(("one",)).with_notes(("two",))
    assert Metrics.from_record(noted.to_record(), "accuracy") == noted
    assert noted.notes == ("one", "two")
