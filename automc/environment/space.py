"""`SearchSpace`: every decision that a search space leaves open for one network, in the order in which it is asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from automc.choices import Choice, Uniform
from automc.compression.policy import Policy, unfit
from automc.environment.staircase import staircase
from automc.errors import ConfigError, PolicyError
from automc.files import closest
from automc.network.graph import Conv, Group, Input, Layer, Network
from automc.schema import Pin, SearchSpaceSpec

Kind = Literal["keep_ratio", "weights", "activation_bits"]
KINDS: tuple[Kind, ...] = ("keep_ratio", "weights", "activation_bits")
Value = float | Choice
Choices = tuple[int, ...]  # an index for each decision
MAX_CHOICES = 16  # that an agent is shown of a decision, and that a staircase offers


@dataclass(frozen=True)
class Decision:
    """One question to a searcher: which of `choices`, the one that compresses most first, for the group, layer or
    tensor called `name`.

    `layer` is the layer at whose place in the network the question is asked. Choices are ratios, bits, or what may be
    done to a layer's weights.
    """

    kind: Kind
    name: str
    layer: str
    choices: tuple[Value, ...]

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """About what share of the whole 8-bit network's work each choice leaves, ascending in (0, 1]."""
        return tuple(share_of(self.kind, choice) for choice in self.choices)

    def __str__(self) -> str:
        return f"{self.kind} of {self.name}: {', '.join(map(title_of, self.choices))}"


def assembled(values: Iterable[tuple[Decision, Value]], base: Policy) -> Policy:
    """`base` with these answers to decisions."""
    keep_ratio, weights, bits = dict(base.keep_ratio), dict(base.weights), dict(base.activation_bits)
    for decision, value in values:
        match decision.kind:
            case "keep_ratio":
                keep_ratio[decision.name] = cast(float, value)
            case "weights":
                weights[decision.name] = cast(Choice, value)
            case "activation_bits":
                bits[decision.name] = cast(int, value)
    # Every value comes from a checked specification, and a search makes thousands of policies to price them.
    return Policy.model_construct(keep_ratio=keep_ratio, weights=weights, activation_bits=bits)


def share_of(kind: Kind, choice: Value) -> float:
    """About what share of the whole 8-bit network's work a choice leaves."""
    if isinstance(choice, float | int):
        return choice if kind == "keep_ratio" else choice / 8
    return choice.share


def replaced(choices: Sequence[int], position: int, index: int) -> Choices:
    """The choices with one of them changed."""
    return (*choices[:position], index, *choices[position + 1 :])


def title_of(choice: Value) -> str:
    """A choice for people."""
    return f"{choice:g}" if isinstance(choice, float | int) else str(choice)


class SearchSpace:
    """A `SearchSpaceSpec` laid over a network.

    The layers are walked in the order of computation; each asks for the keep ratio of its channel group (at the
    group's first producer), the bits of its weights, and the bits of the tensor it writes. What a convolution adds into
    a sum is written as the sum. Where a pin leaves one choice, nothing is asked. Keep ratios are those of whole
    channels, so that different choices are different networks, and leave no tensor empty; `notes` name every ratio that
    was rounded. The image keeps 8 bits unless a pin names it. `order` is the one in which pruning removes the slots of
    each group (first leaves first); it matters where a tensor holds only a part of a group. `latency` is what a policy
    takes on the device, of which the staircases of channel counts are made.

    Raises `ConfigError` for a pin that matches no layer or allows nothing, and where nothing is left to choose.
    """

    def __init__(
        self,
        network: Network,
        spec: SearchSpaceSpec,
        order: Mapping[str, NDArray[np.int64]] | None = None,
        latency: Callable[[Policy], float] | None = None,
    ) -> None:
        self.network = network
        self.spec = spec
        self._order = order or {}
        self._latency = latency
        self.notes: tuple[str, ...] = ()
        self._pins = [(pin, _matching(pin, network)) for pin in spec.pins]
        asked = list(self._walk())
        self.decisions: tuple[Decision, ...] = tuple(decision for decision in asked if len(decision.choices) > 1)
        self.forced = tuple(decision for decision in asked if len(decision.choices) == 1)
        if not self.decisions:
            raise ConfigError(f"the search space leaves nothing to choose in {network.name}: each list has one value")

    @cached_property
    def size(self) -> float:
        """The decimal logarithm of the number of policies."""
        return sum(math.log10(len(decision.choices)) for decision in self.decisions)

    @property
    def most_choices(self) -> int:
        """The largest number of choices of any decision."""
        return max(len(decision.choices) for decision in self.decisions)

    def largest(self) -> Choices:
        """The choices that compress least."""
        return tuple(len(decision.choices) - 1 for decision in self.decisions)

    def smallest(self) -> Choices:
        """The choices that compress most."""
        return (0,) * len(self.decisions)

    @cached_property
    def moves(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every choice of every decision, one after the other: the decision's position, and the choice's index."""
        counts = [len(decision.choices) for decision in self.decisions]
        return np.repeat(np.arange(len(counts)), counts), np.concatenate([*map(np.arange, counts)])

    def moved(self, choices: Sequence[int]) -> NDArray[np.uint8]:
        """`moves x decisions`: the choices with one of them changed, or none where a move leads to what is chosen."""
        owners, indices = self.moves
        rows = np.tile(np.array(choices, np.uint8), (len(owners), 1))
        rows[np.arange(len(owners)), owners] = indices
        return rows

    def by_decision(self, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """One number for each of `moves`, as an array for each decision."""
        return np.split(values, np.flatnonzero(np.diff(self.moves[0])) + 1)

    def policy(self, choices: Sequence[int]) -> Policy:
        """The normalised policy of one index into `choices` for each decision.

        Raises `PolicyError` where an index is missing or outside its decision's range.
        """
        if len(choices) != len(self.decisions):
            raise PolicyError(
                f"the search space asks {len(self.decisions)} decisions. Got {len(choices)} choices instead."
            )
        for decision, index in zip(self.decisions, choices, strict=True):
            if not 0 <= index < len(decision.choices):
                raise PolicyError(f"{decision}: choice {index} is outside 0..{len(decision.choices) - 1}")
        asked = ((decision, decision.choices[index]) for decision, index in zip(self.decisions, choices, strict=True))
        return assembled([*asked, *((decision, decision.choices[0]) for decision in self.forced)], self._dense)

    def choices_of(self, policy: Policy) -> Choices:
        """The choices that give `policy`. Raises `PolicyError` naming all that lies outside the space."""
        policy = policy.normalised(self.network)
        found, faults = [], []
        for decision in (*self.decisions, *self.forced):
            value = _value_in(policy, decision)
            if value not in decision.choices:
                faults.append(f"{decision}. Got {title_of(value)} instead.")
            elif len(decision.choices) > 1:
                found.append(decision.choices.index(value))
        if faults:
            raise PolicyError("the policy lies outside the search space: " + "; ".join(faults))
        return tuple(found)

    def __str__(self) -> str:
        return f"{len(self.decisions)} decisions, 10^{self.size:.1f} policies"

    @cached_property
    def _dense(self) -> Policy:
        return Policy().normalised(self.network)

    def _walk(self) -> Iterable[Decision]:
        network = self.network
        groups = {group.name: group for group in network.groups if group.prunable}
        sums = {conv: total for total, conv in network.fused_sums.items()}
        tensors = set(network.quantised_tensors)
        for layer in network.layers:
            if layer.name in network.fused_sums:
                continue
            if layer.name in groups:
                yield Decision("keep_ratio", layer.name, layer.name, self._ratios(groups[layer.name]))
            if isinstance(layer, Conv):
                yield Decision("weights", layer.name, layer.name, self._weights(layer))
            tensor = network[sums.get(layer.name, layer.name)]
            if tensor.name in tensors:
                writers = (layer,) if tensor is layer else (layer, tensor)
                yield Decision("activation_bits", tensor.name, layer.name, self._activation_bits(writers))

    def _ratios(self, group: Group) -> tuple[float, ...]:
        pins = self._pins_on(group.members)
        if any(pin.freeze for pin in pins):
            return (1.0,)
        least = max((pin.minimum_keep_ratio or 0.0 for pin in pins), default=0.0)
        needed = self._fewest(group)
        if self.spec.keep_ratio == "staircase":
            return self._staircase(group, max(needed, math.ceil(least * group.slots)))
        ratios = [ratio for ratio in self.spec.ratios if ratio >= least]
        if not ratios:
            offered = ", ".join(f"{ratio:g}" for ratio in self.spec.ratios)
            raise ConfigError(
                f"a pin asks {group.name} for a keep_ratio of at least {least:g}, but the choices are {offered}"
            )
        whole: dict[float, float] = {}  # the ratio of a whole number of channels to the asked one
        for ratio in ratios:
            kept = max(needed, Policy(keep_ratio={group.name: ratio}).kept_count(group.name, group.slots))
            whole.setdefault(kept / group.slots, ratio)
        rounded = [f"{asked:g} is {kept:g}" for kept, asked in whole.items() if kept != asked]
        if rounded or len(whole) < len(ratios):
            text = "; ".join(rounded) or "equal ratios are asked once"
            self.notes += (f"keep_ratio of {group.name} in whole channels of {group.slots}: {text}",)
        return tuple(whole)

    def _staircase(self, group: Group, fewest: int) -> tuple[float, ...]:
        """The ratios of the stairs of what the network takes when this group alone is pruned."""
        if self._latency is None:
            raise ConfigError("keep_ratio: a staircase is made of a device's latencies, and there is no device here")
        ratios = [count / group.slots for count in range(fewest, group.slots + 1)]
        latencies = {ratio: self._latency(Policy(keep_ratio={group.name: ratio})) for ratio in ratios}
        return tuple(staircase(latencies, MAX_CHOICES))

    def _fewest(self, group: Group) -> int:
        """How many slots must remain so that no tensor loses its last channel.

        Of a tensor that belongs to several groups the one with most channels there keeps one.
        """
        position = self.network.groups.index(group)
        leaves = np.empty(group.slots, np.int64)  # when each slot leaves
        leaves[self._order.get(group.name, np.arange(group.slots))] = np.arange(group.slots)
        tensors = (slots for slots in self.network.channel_slots.values() if _most_of(slots) == position)
        return max(group.slots - int(leaves[slots[slots[:, 0] == position, 1]].max()) for slots in tensors)

    def _weights(self, layer: Conv) -> tuple[Choice, ...]:
        """What is offered for a layer's weights, without the methods that are not for it."""
        offered, forced = self.spec.weights, self._forced_bits("weight_bits", (layer,))
        if forced is not None:
            offered = [Uniform(weight_bits=bits) for bits in forced]
        refused = {choice: unfit(choice, layer.name, self.network) for choice in offered}
        self.notes += tuple(f"{choice} is not offered: {reason}" for choice, reason in refused.items() if reason)
        return tuple(sorted((choice for choice in offered if not refused[choice]), key=lambda choice: choice.share))

    def _activation_bits(self, writers: tuple[Layer, ...]) -> tuple[int, ...]:
        forced = self._forced_bits("activation_bits", writers)
        if forced is None:
            forced = [8] if isinstance(writers[0], Input) else self.spec.activation_bits
        return tuple(sorted(set(forced)))

    def _forced_bits(
        self, kind: Literal["weight_bits", "activation_bits"], layers: tuple[Layer, ...]
    ) -> Sequence[int] | None:
        """The last pin that says something of a layer counts; a frozen layer has 8 bits."""
        forced: Sequence[int] | None = None
        for pin in self._pins_on(layer.name for layer in layers):
            asked: Sequence[int] | None = getattr(pin, kind)
            forced = sorted(set(asked)) if asked is not None else [8] if pin.freeze else forced
        return forced

    def _pins_on(self, names: Iterable[str]) -> list[Pin]:
        wanted = set(names)
        return [pin for pin, layers in self._pins if wanted & layers]


def _most_of(slots: NDArray[np.int64]) -> int:
    """The index of the group that has most channels of a tensor, `n x 2`; -1 where some channels belong to none."""
    return int(np.bincount(slots[:, 0]).argmax()) if (slots[:, 0] >= 0).all() else -1


def _value_in(policy: Policy, decision: Decision) -> Value:
    match decision.kind:
        case "keep_ratio":
            return policy.keep_ratio[decision.name]
        case "weights":
            return policy.choice(decision.name)
        case "activation_bits":
            return policy.bits_of(decision.name)


def _matching(pin: Pin, network: Network) -> set[str]:
    """The names of the layers that a pin speaks of."""
    if pin.layers == "@first":
        return {network.convs[0].name}
    if pin.layers == "@last":
        return {network.convs[-1].name}
    names = [layer.name for layer in network.layers]
    found = {name for name in names if fnmatchcase(name, pin.layers)}
    if not found:
        hint = closest(pin.layers, [*names, "@first", "@last"])
        raise ConfigError(
            f"the pin on '{pin.layers}' matches no layer of {network.name}{hint} "
            f"(layers: {', '.join(names)}; or a pattern with *, @first, @last)"
        )
    return found
