"""`Policy`: how many channels each group keeps, how each layer's weights are made, in how many bits it computes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from automc.choices import Bits, Choice, Gated, LowRank, Ratio, Sparse, Uniform
from automc.errors import ConfigError, PolicyError
from automc.files import canonical_json, sha256_of, suggest
from automc.network.graph import Conv, Network
from automc.reading import make_spec

_WHOLE = Uniform()  # made once: a search asks for the choices of thousands of policies


class Policy(BaseModel):
    """One compressed network, as three choices by name.

    `keep_ratio` is for channel groups (1.0 keeps every channel), `weights` for layers, `activation_bits` for tensors.
    What is not named is kept whole, at 8 bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    keep_ratio: Mapping[str, Ratio] = Field(default_factory=dict)
    weights: Mapping[str, Choice] = Field(default_factory=dict)
    activation_bits: Mapping[str, Bits] = Field(default_factory=dict)

    def choice(self, layer: str) -> Choice:
        """What was chosen for the weights of `layer`."""
        return self.weights.get(layer, _WHOLE)

    def bits_of(self, tensor: str) -> int:
        """The bits of the tensor that the layer `tensor` writes."""
        return self.activation_bits.get(tensor, 8)

    def kept_count(self, group: str, slots: int) -> int:
        """How many of a group's `slots` remain: the nearest whole number, at least one."""
        return max(1, int(np.floor(self.keep_ratio.get(group, 1.0) * slots + 0.5)))

    def normalised(self, network: Network) -> Policy:
        """The same policy with every name of `network` written out, so that equal meanings are equal texts.

        Raises `PolicyError` for names that the network does not have, groups that it cannot prune, and methods that
        are not for the layer for which they were chosen.
        """
        groups = {group.name: group for group in network.groups}
        prunable = [name for name, group in groups.items() if group.prunable]
        layers = [layer.name for layer in network.convs]
        for kind, given, known in (
            ("keep_ratio", self.keep_ratio, list(groups)),
            ("weights", self.weights, layers),
            ("activation_bits", self.activation_bits, list(network.quantised_tensors)),
        ):
            for name in given:
                if name not in known:
                    raise PolicyError(f"{kind}: {network.name} has no '{name}'{suggest(name, known)}")
        for name, ratio in self.keep_ratio.items():
            if ratio < 1 and name not in prunable:
                raise PolicyError(f"keep_ratio: '{name}' cannot be pruned: {groups[name].reason}")
        for name, choice in self.weights.items():
            if (reason := unfit(choice, name, network)) is not None:
                raise PolicyError(f"weights: {reason}")
        return Policy(
            keep_ratio={name: self.kept_count(name, groups[name].slots) / groups[name].slots for name in prunable},
            weights={name: self.choice(name) for name in layers},
            activation_bits={name: self.bits_of(name) for name in network.quantised_tensors},
        )

    def to_json(self) -> str:
        """The policy as a file that a person can read and edit."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "policy") -> Policy:
        """Read a policy's file. Raises `PolicyError` naming the place and what is allowed there."""
        try:
            content = from_json(text)
            if not isinstance(content, dict):
                raise ValueError("must be a mapping of fields")
        except ValueError as error:
            raise PolicyError(f"{source}: {error}") from error
        try:
            return make_spec(cls, content, source)
        except ConfigError as error:
            raise PolicyError(str(error)) from error

    @property
    def fingerprint(self) -> str:
        """A hash of what was chosen."""
        return sha256_of(canonical_json(self.model_dump(mode="json")).encode())


def unfit(choice: Choice, name: str, network: Network) -> str | None:
    """Why `choice` is not for the layer `name`, and what to do instead; None where it is."""
    layer = network[name]
    assert isinstance(layer, Conv)
    match choice:
        case LowRank() if layer.groups > 1 or not layer.is_dense:
            kernel = " x ".join(map(str, layer.kernel))
            return (
                f"low_rank is for dense layers, and '{name}' is a convolution of {kernel} over a map; "
                "choose uniform, codebook or sparse for it"
            )
        case Gated() if name in network.fused_sums.values():
            return f"'{name}' computes a sum, which needs all its channels; gate the layer before it"
        case Gated() if layer is network.output:
            return f"'{name}' writes the network's result, which needs all its channels; choose uniform for it"
        case Sparse() if choice.pattern != "unstructured" and layer.groups > 1:
            return (
                f"the pattern {choice.pattern} needs an output to read all inputs, and '{name}' has {layer.groups} "
                "groups; choose the pattern unstructured for it"
            )
    return None


def kept_slots(
    policy: Policy, network: Network, order: Mapping[str, NDArray[np.int64]]
) -> dict[str, NDArray[np.int64]]:
    """The slots that each prunable group keeps, ascending, where slots leave in the given `order`, its first first."""
    kept = {}
    for group in network.groups:
        if group.prunable:
            count = policy.kept_count(group.name, group.slots)
            kept[group.name] = np.sort(order[group.name][group.slots - count :])
    return kept


def uniform_policy(network: Network, keep_ratio: float = 1.0, weight_bits: int = 8, activation_bits: int = 8) -> Policy:
    """The same choice everywhere: the plainest baseline.

    What touches the image or the result stays finer, as is usual: the first and the last layer's weights, what they
    read, and a result that is a map keep 8 bits. Groups that cannot be pruned stay whole.
    """
    ends = (network.convs[0], network.convs[-1])
    finer = [network.storage[name] for name in (*(layer.inputs[0] for layer in ends), network.output.name)]
    return Policy(
        keep_ratio={group.name: keep_ratio for group in network.groups if group.prunable},
        weights={layer.name: Uniform(weight_bits=weight_bits) for layer in network.convs if layer not in ends},
        activation_bits={name: activation_bits for name in network.quantised_tensors if name not in finer},
    ).normalised(network)
