"""What an agent sees before each decision: relative features in AMC's manner, of one length for every network."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from automc.environment.measures import Floats
from automc.environment.problem import Problem
from automc.environment.space import KINDS, MAX_CHOICES, SearchSpace, replaced
from automc.environment.walk import Walks
from automc.errors import ConfigError
from automc.network.graph import Add, Concat, Conv, Gather, Input, Layer, Pool

_LAYER_KINDS = ("input", "convolution", "depthwise", "dense", "sum", "concatenation", "other")
_SIZES = ("input_channels", "output_channels", "pixels", "kernel", "stride", "weights", "macs")

STATIC_FEATURES = (
    *(f"asks_{kind}" for kind in KINDS),
    *(f"is_{kind}" for kind in _LAYER_KINDS),
    "position",
    *(f"log_{size}" for size in _SIZES),  # relative to the network's largest
    "macs_share",  # of the dense network's MACs, in this layer
    "macs_left",  # ... in all layers after it
    "saving",  # of the dense cost, if this decision alone compresses most
    *(f"choice_{index}" for index in range(MAX_CHOICES)),  # as many for every search space
)
WALK_FEATURES = (
    "budget",  # what may be used of the limits, as a share of the dense cost
    "least_cost",  # of what is chosen with the smallest rest, as a share of the dense cost
    "most_cost",  # ... with the largest rest
    "kept_inputs",  # the share of the layer's input channels that remains
    "kept_outputs",
    "previous_choice",
    *(f"previous_{kind}" for kind in KINDS),
)
FEATURES = STATIC_FEATURES + WALK_FEATURES


def require_shown(space: SearchSpace) -> None:
    """Raises `ConfigError`, naming it, where a decision has more choices than an agent is shown."""
    for decision in space.decisions:
        if len(decision.choices) > MAX_CHOICES:
            lists = "weight_bits and methods" if decision.kind == "weights" else decision.kind
            raise ConfigError(
                f"an agent is shown at most {MAX_CHOICES} choices of a decision. Got {len(decision.choices)} for "
                f"{decision.kind} of {decision.name} instead; offer fewer values in {lists}, or use a searcher that is "
                "no agent"
            )


class Observer:
    """Turns the state of walks into `len(FEATURES)` float32 in [-1, 1] for each.

    State after He et al. 2018 (AMC), section 3.1, with cost shares beside MACs and the values of the choices.
    Raises as `require_shown`.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._space = problem.space
        require_shown(self._space)
        self._dense = problem.limits.ratio(problem.dense_cost)
        self._weights = problem.limits.weights / self._dense
        self._static = self._static_features()
        self._kept = [_kept_shares(problem, problem.network[asked.layer]) for asked in self._space.decisions]

    def observe(self, walks: Walks) -> NDArray[np.float32]:
        """`walks x features` before the next decision; after the last, those of the last with the final costs."""
        position = min(walks.position, len(self._space.decisions) - 1)
        static = np.tile(self._static[position], (len(walks.shares), 1))
        features = np.column_stack([static, *self._walk_features(walks, position)])
        return np.asarray(np.clip(features, -1, 1), np.float32)

    def _walk_features(self, walks: Walks, position: int) -> list[Floats]:
        """One column for each of `WALK_FEATURES`."""
        whole = np.ones(len(walks.shares))
        previous: dict[str, Floats] = dict.fromkeys(KINDS, whole)
        ratios, last = {}, whole
        for decision, chosen in zip(self._space.decisions, walks.chosen.T, strict=False):
            last = previous[decision.kind] = np.array(decision.shares)[chosen]
            if decision.kind == "keep_ratio":
                ratios[decision.name] = last
        return [
            walks.shares / self._dense,
            walks.least @ self._weights,
            walks.most @ self._weights,
            *(whole - _pruned(groups, ratios) for groups in self._kept[position]),
            last,
            *previous.values(),
        ]

    def _share(self, choices: tuple[int, ...]) -> float:
        problem = self._problem
        return problem.limits.ratio(problem.cost_of(choices)) / self._dense

    def _static_features(self) -> NDArray[np.float64]:
        network, decisions = self._problem.network, self._space.decisions
        sizes = {
            layer.name: _sizes(layer, network[layer.inputs[0]] if layer.inputs else layer) for layer in network.layers
        }
        largest = np.maximum(np.max([*sizes.values()], axis=0), 1.0)
        done = {}
        total = 0
        for layer in network.layers:
            total += layer.macs if isinstance(layer, Conv) else 0
            done[layer.name] = total
        whole = self._share(self._space.largest())
        rows = []
        for position, decision in enumerate(decisions):
            layer = network[decision.layer]
            macs = layer.macs if isinstance(layer, Conv) else 0
            rows.append(
                [
                    *(float(decision.kind == kind) for kind in KINDS),
                    *(float(_kind(layer) == kind) for kind in _LAYER_KINDS),
                    position / max(1, len(decisions) - 1),
                    *(np.log1p(sizes[layer.name]) / np.log1p(largest)),
                    macs / network.macs,
                    1 - done[layer.name] / network.macs,
                    whole - self._share(replaced(self._space.largest(), position, 0)),
                    *decision.shares,
                    *[0.0] * (MAX_CHOICES - len(decision.shares)),
                ]
            )
        return np.array(rows)


def _kind(layer: Layer) -> str:
    match layer:
        case Conv():
            return layer.kind
        case Input():
            return "input"
        case Add():
            return "sum"
        case Concat():
            return "concatenation"
    return "other"


def _sizes(layer: Layer, source: Layer) -> NDArray[np.float64]:
    """The numbers that `_SIZES` names."""
    kernel, stride, weights, macs = 1, 1, 0, 0
    if isinstance(layer, Conv | Pool):
        kernel, stride = math.prod(layer.kernel), math.prod(layer.stride)
    if isinstance(layer, Gather):
        stride = layer.stride**2
    if isinstance(layer, Conv):
        weights, macs = layer.weight.size, layer.macs
    channels, height, width = layer.shape
    return np.array([source.shape[0], channels, height * width, kernel, stride, weights, macs], np.float64)


def _kept_shares(problem: Problem, layer: Layer) -> tuple[dict[str, float], dict[str, float]]:
    """For what a layer reads and what it writes: the share of channels that belongs to each group."""
    return _groups(problem, layer.inputs[0] if layer.inputs else layer.name), _groups(problem, layer.name)


def _groups(problem: Problem, tensor: str) -> dict[str, float]:
    owners = problem.network.channel_slots[tensor][:, 0]
    return {
        group.name: float((owners == position).mean())
        for position, group in enumerate(problem.network.groups)
        if (owners == position).any()
    }


def _pruned(groups: dict[str, float], ratios: dict[str, Floats]) -> Floats | float:
    """The share of channels that is gone."""
    return sum((share * (1 - ratios[group]) for group, share in groups.items() if group in ratios), 0.0)
