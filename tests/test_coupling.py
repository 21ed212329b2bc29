"""Coupling: which channels leave together, channel by channel."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from automc.network.coupling import couple
from automc.network.graph import (
    Add,
    Concat,
    Conv,
    Curve,
    Gather,
    Group,
    Input,
    Layer,
    Multiply,
    Pool,
    Shuffle,
)
from automc.network.zoo import build_network
from tests.networks import TinyConcat, TinyDepthwise, TinyPlain, TinyResidual, traced


def conv(name: str, source: str, inputs: int, outputs: int, groups: int = 1) -> Conv:
    weight = np.zeros((outputs, inputs // groups, 1, 1), np.float32)
    return Conv(name, (source,), (outputs, 4, 4), weight, np.zeros(outputs, np.float32), groups=groups)


def chain(*layers: Layer) -> tuple[Layer, ...]:
    return (Input("input", (), (3, 4, 4)), *layers)


def members(groups: tuple[Group, ...]) -> dict[str, dict[str, list[int]]]:
    return {group.name: {name: slots.tolist() for name, slots in group.members.items()} for group in groups}


def numbers(count: int, start: int = 0) -> list[int]:
    return list(range(start, start + count))


def column(slots: NDArray[np.int64], axis: int) -> list[int]:
    return slots[:, axis].tolist()


def test_chain_and_flattened_dense_layer() -> None:
    network = traced(TinyPlain())
    assert members(network.groups) == {
        "conv1.0": {"conv1.0": numbers(8)},
        "conv2.0": {"conv2.0": numbers(12)},
        "linear": {"linear": numbers(10)},
    }
    assert [group.prunable for group in network.groups] == [True, True, False]
    # The dense layer reads the 12 channels of the map, not its 48 values.
    assert network.channel_slots["max_pool"].tolist() == [[1, slot] for slot in range(12)]
    assert network.channel_slots["input"].tolist() == [[-1, -1]]


def test_shortcuts() -> None:
    network = traced(TinyResidual())
    assert members(network.groups) == {
        "conv1.0": {"conv1.0": numbers(8), "same2.0": numbers(8)},
        "same1.0": {"same1.0": numbers(8)},
        "padded1.0": {"padded1.0": numbers(12)},
        "padded2.0": {"padded2.0": numbers(12)},  # free of the stage before it
        "projected1.0": {"projected1.0": numbers(16)},
        "projected2.0": {"projected2.0": numbers(16), "project.0": numbers(16)},
        "linear": {"linear": numbers(10)},
    }
    assert network.channel_slots["gather"].tolist() == [[3, slot] for slot in range(12)]


def test_resnet20() -> None:
    network = traced(build_network("resnet20", 10, 3), (3, 32, 32))
    alone = [group for group in network.groups if group.prunable and len(group.members) == 1]
    stages = [list(group.members) for group in network.groups if len(group.members) > 1]
    assert [group.slots for group in alone] == [16] * 3 + [32] * 3 + [64] * 3
    assert stages == [
        ["conv1", "layer1.0.conv2", "layer1.1.conv2", "layer1.2.conv2"],
        ["layer2.0.conv2", "layer2.1.conv2", "layer2.2.conv2"],
        ["layer3.0.conv2", "layer3.1.conv2", "layer3.2.conv2"],
    ]
    assert [group.name for group in network.groups if not group.prunable] == ["linear"]
    assert network.groups[-1].reason == "its outputs are the network's result"


def test_depthwise_passes_its_channels_on() -> None:
    network = traced(TinyDepthwise())
    assert members(network.groups) == {
        "stem.0": {"stem.0": numbers(8), "reduce.0": numbers(8), "separable.0.0": numbers(8)},
        "expand.0": {"expand.0": numbers(24), "depthwise.0": numbers(24)},
        "separable.2.0": {"separable.2.0": numbers(16)},
        "linear": {"linear": numbers(10)},
    }


def test_concatenation_and_split() -> None:
    network = traced(TinyConcat())
    assert list(members(network.groups)) == ["conv1.0", "left.0", "right.0", "branch.0", "linear"]
    assert column(network.channel_slots["concat"], 0) == [1] * 6 + [2] * 10
    assert column(network.channel_slots["concat"], 1) == numbers(6) + numbers(10)
    # The first half of the concatenation: all of `left`, and two channels of `right`.
    assert column(network.channel_slots["concat_2"], 0) == [1] * 6 + [2] * 2 + [3] * 8
    assert column(network.channel_slots["branch.gather"], 1) == numbers(8, 2)


def test_sum_across_a_concatenation_joins_its_convolutions() -> None:
    layers = chain(
        conv("left", "input", 3, 2),
        conv("right", "input", 3, 3),
        Concat("concat", ("left", "right"), (5, 4, 4)),
        conv("whole", "input", 3, 5),
        Add("add", ("concat", "whole"), (5, 4, 4)),
        conv("last", "add", 5, 2),
    )
    groups, slots = couple(layers)
    assert members(groups) == {
        "left": {"left": [0, 1], "right": [2, 3, 4], "whole": [0, 1, 2, 3, 4]},
        "last": {"last": [0, 1]},
    }
    assert slots["whole"].tolist() == [[0, slot] for slot in range(5)]


def test_sum_of_shuffled_channels_joins_a_convolutions_own() -> None:
    layers = chain(
        conv("first", "input", 3, 4),
        Gather("swapped", ("first",), (4, 4, 4), (1, 0, 2, 3)),
        Add("add", ("first", "swapped"), (4, 4, 4)),
        conv("last", "add", 4, 2),
    )
    groups, _ = couple(layers)
    assert members(groups)["first"] == {"first": [0, 0, 1, 2]}
    assert groups[0].slots == 3


def test_gather_without_zeros_passes_slots_on_and_with_zeros_starts_anew() -> None:
    layers = chain(
        conv("first", "input", 3, 4),
        Gather("picked", ("first",), (3, 4, 4), (3, 3, 0)),
        Gather("padded", ("first",), (6, 4, 4), (-1, 0, 1, 2, 3, -1)),
        Pool("pool", ("padded",), (6, 4, 4)),
        Concat("concat", ("picked", "pool"), (9, 4, 4)),
        conv("last", "concat", 9, 2),
    )
    groups, slots = couple(layers)
    assert slots["picked"].tolist() == [[0, 3], [0, 3], [0, 0]]
    assert slots["pool"].tolist() == [[-1, -1]] * 6
    assert groups[0].prunable


def test_sets_of_a_grouped_convolution_lose_equally_many_channels() -> None:
    layers = chain(
        conv("first", "input", 3, 4),
        conv("grouped", "first", 4, 6, groups=2),
        conv("free", "grouped", 6, 5),
        conv("last", "free", 5, 2),
    )
    groups, _ = couple(layers)
    assert [group.prunable for group in groups] == [True, True, True, False]
    assert members(groups)["first"] == {"first": [0, 1, 0, 1]}
    assert members(groups)["grouped"] == {"grouped": [0, 1, 2, 0, 1, 2]}


def test_sets_that_cannot_lose_equally_many_channels_stay() -> None:
    layers = chain(
        conv("first", "input", 3, 4),
        conv("multiplied", "first", 4, 8, groups=4),
        conv("last", "multiplied", 8, 2),
    )
    groups, _ = couple(layers)
    assert [group.prunable for group in groups] == [False, True, False]
    assert groups[0].reason == "multiplied computes 4 separate sets of channels, which cannot be made smaller evenly"


@pytest.mark.parametrize(("sets", "channels"), [(2, 50), (3, 60), (4, 68), (3, 9)])
def test_shuffled_channels_leave_every_set_of_writer_and_reader_evenly(sets: int, channels: int) -> None:
    shuffled = np.arange(channels).reshape(sets, -1).T.ravel()
    layers = chain(
        conv("first", "input", 3, sets),
        conv("writer", "first", sets, channels, groups=sets),
        Gather("shuffle", ("writer",), (channels, 4, 4), tuple(shuffled.tolist())),
        conv("reader", "shuffle", channels, 2 * sets, groups=sets),
        conv("last", "reader", 2 * sets, 2),
    )
    groups, slots = couple(layers)
    assert groups[1].slots == channels // sets
    for tensor in ("writer", "shuffle"):
        for one in slots[tensor][:, 1].reshape(sets, -1):
            assert sorted(one.tolist()) == list(range(channels // sets))


def test_depthwise_convolution_over_a_concatenation_joins_no_groups() -> None:
    layers = chain(
        conv("left", "input", 3, 2),
        conv("right", "input", 3, 3),
        Concat("concat", ("left", "right"), (5, 4, 4)),
        conv("norm", "concat", 5, 5, groups=5),
        conv("last", "norm", 5, 2),
    )
    groups, slots = couple(layers)
    assert members(groups) == {"left": {"left": [0, 1]}, "right": {"right": [0, 1, 2]}, "last": {"last": [0, 1]}}
    assert slots["norm"].tolist() == slots["concat"].tolist()


def test_gains_leave_with_the_channels_that_they_scale() -> None:
    layers = chain(
        conv("first", "input", 3, 4),
        Pool("pool", ("first",), (4, 1, 1), "mean", (4, 4), (4, 4)),
        conv("squeeze", "pool", 4, 2),
        conv("excite", "squeeze", 2, 4),
        Curve("gate", ("excite",), (4, 1, 1), "sigmoid"),
        Multiply("scale", ("first", "gate"), (4, 4, 4)),
        conv("last", "scale", 4, 2),
    )
    groups, _ = couple(layers)
    assert members(groups) == {
        "first": {"first": numbers(4), "excite": numbers(4)},
        "squeeze": {"squeeze": [0, 1]},
        "last": {"last": [0, 1]},
    }


def test_channels_that_become_pixels_of_one_channel_leave_together() -> None:
    layers = chain(
        conv("first", "input", 3, 8),
        Shuffle("pixels", ("first",), (2, 8, 8), 2),
        conv("last", "pixels", 2, 2),
    )
    groups, slots = couple(layers)
    assert members(groups)["first"] == {"first": [0] * 4 + [1] * 4}
    assert column(slots["pixels"], 1) == [0, 1]


def test_channels_added_to_the_image_stay() -> None:
    layers = chain(
        conv("depthwise", "input", 3, 3, groups=3),
        conv("back", "depthwise", 3, 3),
        Add("add", ("back", "input"), (3, 4, 4)),
        conv("last", "add", 3, 2),
    )
    groups, _ = couple(layers)
    assert members(groups)["depthwise"] == {"depthwise": [0, 1, 2], "back": [0, 1, 2]}
    assert groups[0].reason == "its channels meet those of the image one by one"


def test_kept_channels_follow_the_slots() -> None:
    network = traced(TinyResidual())
    kept = {"conv1.0": np.array([1, 4]), "padded2.0": np.array([0, 2, 11])}
    assert network.kept_channels("add", kept).tolist() == [1, 4]
    assert network.kept_channels("gather", kept).tolist() == [0, 2, 11]
    assert network.kept_channels("add_3", kept).tolist() == numbers(16)
