"""The search space asks the right decisions in the right order, and pins are honoured or refused."""

import pytest

from automc.choices import Codebook, LowRank, Sparse, Uniform
from automc.compression.policy import Policy
from automc.environment.space import SearchSpace, Value
from automc.errors import ConfigError, PolicyError
from automc.reading import make_spec
from automc.schema import Pin, SearchSpaceSpec
from tests.problems import JOINT, tiny_network


def space(*pins: Pin, **changes) -> SearchSpace:
    return SearchSpace(tiny_network(), JOINT.model_copy(update={"pins": list(pins), **changes}))


def choices(asked: SearchSpace) -> dict[tuple[str, str], tuple[Value, ...]]:
    return {(decision.kind, decision.name): decision.choices for decision in asked.decisions}


def bits(*counts: int) -> tuple[Uniform, ...]:
    return tuple(Uniform(weight_bits=count) for count in counts)


def test_decisions_follow_the_computation():
    asked = [(decision.kind, decision.name, decision.layer) for decision in space().decisions]
    assert asked == [
        ("keep_ratio", "a", "a"),
        ("weights", "a", "a"),
        ("activation_bits", "a", "a"),
        ("keep_ratio", "b", "b"),  # c is in b's group
        ("weights", "b", "b"),
        ("activation_bits", "b", "b"),
        ("weights", "c", "c"),
        ("activation_bits", "sum", "c"),  # what c writes
        ("activation_bits", "pool", "pool"),
        ("weights", "dense", "dense"),  # the result is float32, the image keeps 8 bits
    ]


def test_policies_and_choices_are_each_others_inverse():
    asked = space()
    middle = tuple(len(decision.choices) // 2 for decision in asked.decisions)
    for indices in (asked.smallest(), middle, asked.largest()):
        policy = asked.policy(indices)
        assert policy == policy.normalised(asked.network)
        assert asked.choices_of(policy) == indices
        assert Policy.from_json(policy.to_json()).fingerprint == policy.fingerprint
    assert asked.choices_of(Policy()) == asked.largest()
    assert asked.policy(asked.smallest()).keep_ratio == {"a": 0.25, "b": 0.25}


def test_size_is_the_logarithm_of_the_number_of_policies():
    assert 10 ** space().size == pytest.approx(4 * 3 * 2 * 4 * 3 * 2 * 3 * 2 * 2 * 3)


def test_ratios_of_the_same_channels_are_asked_once():
    asked = space(keep_ratio=[0.2, 0.25, 0.3, 0.7, 1.0])
    assert choices(asked)["keep_ratio", "a"] == (0.25, 0.75, 1.0)
    assert choices(asked)["keep_ratio", "b"] == (0.25, 0.75, 1.0)
    assert asked.notes[0] == "keep_ratio of a in whole channels of 4: 0.2 is 0.25; 0.7 is 0.75"
    assert space().notes == ()


def test_pins_take_choices_away():
    asked = choices(
        space(
            Pin(layers="@first", freeze=True),
            Pin(layers="@last", weight_bits=[2]),
            Pin(layers="c", minimum_keep_ratio=0.6),
            Pin(layers="s*", activation_bits=[6, 5]),
            Pin(layers="image", activation_bits=[7, 8]),
        )
    )
    assert not {("keep_ratio", "a"), ("weights", "a"), ("activation_bits", "a"), ("weights", "dense")} & set(asked)
    assert asked["keep_ratio", "b"] == (0.75, 1.0)  # c is in b's group
    assert asked["activation_bits", "sum"] == (5, 6)
    assert asked["activation_bits", "image"] == (7, 8)
    assert asked["weights", "c"] == bits(4, 6, 8)


def test_a_forced_value_is_in_every_policy():
    asked = space(Pin(layers="@last", weight_bits=[2]), Pin(layers="pool", activation_bits=[3]))
    policy = asked.policy(asked.largest())
    assert policy.weights["dense"] == Uniform(weight_bits=2)
    assert policy.activation_bits["pool"] == 3
    assert asked.choices_of(policy) == asked.largest()
    with pytest.raises(PolicyError, match=r"weights of dense: 2 bits\. Got 8 bits instead"):
        asked.choices_of(Policy())


def test_the_last_pin_on_a_layer_counts():
    asked = choices(space(Pin(layers="*", weight_bits=[4, 8]), Pin(layers="c", weight_bits=[5, 6])))
    assert asked["weights", "a"] == bits(4, 8)
    assert asked["weights", "c"] == bits(5, 6)


def test_a_pin_that_matches_nothing_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"'dens' matches no layer of tiny. Did you mean 'dense'\?"):
        space(Pin(layers="dens", freeze=True))


def test_a_pin_that_leaves_no_ratio_is_refused():
    with pytest.raises(ConfigError, match=r"asks b for a keep_ratio of at least 0\.9, but the choices are 0\.25, 0\.5"):
        space(Pin(layers="c", minimum_keep_ratio=0.9), keep_ratio=[0.25, 0.5])


@pytest.mark.parametrize("field", ["weight_bits", "activation_bits"])
def test_a_pin_that_leaves_no_bits_is_refused(field):
    with pytest.raises(ConfigError, match=rf"pins\.0\.{field}: List should have at least 1 item"):
        make_spec(SearchSpaceSpec, {"description": "", "pins": [{"layers": "c", field: []}]}, "mine")


def test_a_space_without_choices_is_refused():
    with pytest.raises(ConfigError, match="leaves nothing to choose"):
        SearchSpace(tiny_network(), SearchSpaceSpec(description="nothing"))


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ((0,) * 9, "asks 10 decisions. Got 9 choices instead"),
        ((4, *(0,) * 9), "keep_ratio of a: 0.25, 0.5, 0.75, 1: choice 4 is outside 0..3"),
        ((-1, *(0,) * 9), "choice -1 is outside 0..3"),
    ],
)
def test_wrong_choices_are_refused(indices, message):
    with pytest.raises(PolicyError, match=message):
        space().policy(indices)


def test_a_policy_outside_the_space_is_refused_with_every_fault():
    policy = Policy(keep_ratio={"a": 0.5, "b": 0.875}, weights={"c": Uniform(weight_bits=5)})
    with pytest.raises(
        PolicyError, match=r"keep_ratio of b: .* Got 0.875 instead.*weights of c: .* Got 5 bits instead"
    ):
        space().choices_of(policy)


def test_methods_stand_among_the_bits_where_a_layer_can_have_them():
    book, blocks = Codebook(entries=32), Sparse(density=0.5, pattern="blocks")
    asked = space(Pin(layers="c", weight_bits=[6]), methods=[LowRank(rank_ratio=0.25), book, blocks])
    assert choices(asked)["weights", "a"] == (*bits(4), blocks, book, *bits(6, 8))
    assert choices(asked)["weights", "dense"][0] == LowRank(rank_ratio=0.25)
    assert ("weights", "c") not in choices(asked)  # the pin leaves one choice
    assert any("low_rank is for dense layers" in note for note in asked.notes)
    policy = asked.policy(asked.smallest())
    assert asked.choices_of(policy) == asked.smallest()
    assert policy.weights["dense"] == LowRank(rank_ratio=0.25)
