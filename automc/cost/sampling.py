"""Which kernels to time, so that a table knows every policy of some networks by rows or by short interpolations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from automc.choices import Choice, Uniform
from automc.compiler.isa import LANES
from automc.compression.policy import Policy, unfit
from automc.cost.kernels import Kernel, KernelPlan, partial_sum_growth
from automc.network.graph import Network
from automc.schema import SearchSpaceSpec

_INPUT_POINTS = 3  # a kernel's time is nearly linear in its input channels


def kernels_to_measure(needs: Iterable[tuple[Network, SearchSpaceSpec]]) -> tuple[Kernel, ...]:
    """The kernels to time for these networks and what may be chosen for their layers.

    For each geometry (operation, pixels, window, stride): a grid of input and output channels for the bits of the
    slowest and the fastest growth of partial sums; for all other bits that may lead to other instructions, or to
    another decoding of weights, and for the methods that the space offers, only its two ends and its middle; and a
    residual along the output channels. Where no channels can go there is no grid: then all kernels are timed, as those
    of the dense 8-bit network always are. Of pins only the bits that they ask for count; what they forbid is little.
    """
    chosen: set[Kernel] = set()
    pruned: dict[Kernel, list[Kernel]] = defaultdict(list)
    for network, space in needs:
        plan = KernelPlan(network)
        ratios = {*space.ratios, 1.0}
        pairs = product(_weights(space), _activation_bits(space))
        policies = [_uniform(network, ratio, *pair) for ratio, pair in product(ratios, pairs)]
        needed = {step.kernel for policy in policies for step in plan.steps(policy)}
        if len(ratios) == 1:
            chosen |= needed
            continue
        chosen.update(step.kernel for step in plan.steps(Policy()))
        for kernel in sorted(needed):
            pruned[kernel.geometry].append(kernel)
    for members in pruned.values():
        chosen.update(_representatives(members))
    return tuple(sorted(chosen))


def _representatives(members: Sequence[Kernel]) -> Iterator[Kernel]:
    like = members[0]
    if not like.weight_bits:
        yield from members
        return
    pairs = _distinct_bits((kernel.weight_bits, kernel.activation_bits) for kernel in members)
    inputs = _spread(sorted({kernel.inputs for kernel in members}), _INPUT_POINTS)
    outputs = _one_for_each_vector_count(kernel.outputs for kernel in members)
    grid = list(product(inputs, outputs))
    few = list(zip(_spread(inputs, 3), _spread(outputs, 3), strict=False))
    if like.operation == "depthwise":
        grid = few = [(count, count) for count in outputs]
    few = [grid[0], *few, grid[-1]]
    ends = (pairs[0], pairs[-1]) if like == like.dense else ()
    for bits in pairs:
        for channels in grid if bits in ends else few:
            yield _kernel(like, channels, bits, residual=False)
    if any(kernel.residual for kernel in members):
        for count in outputs:
            yield _kernel(like, (inputs[0], count), pairs[-1], residual=True)


def _kernel(like: Kernel, channels: tuple[int, int], bits: tuple[int, int], residual: bool) -> Kernel:
    return like._replace(
        inputs=channels[0], outputs=channels[1], weight_bits=bits[0], activation_bits=bits[1], residual=residual
    )


def _uniform(network: Network, keep_ratio: float, choice: Choice, activation_bits: int) -> Policy:
    """The same everywhere; a layer that the method is not for keeps 8 bits."""
    return Policy(
        keep_ratio={group.name: keep_ratio for group in network.groups if group.prunable},
        weights={layer.name: choice for layer in network.convs if unfit(choice, layer.name, network) is None},
        activation_bits=dict.fromkeys(network.quantised_tensors, activation_bits),
    )


def _weights(space: SearchSpaceSpec) -> list[Choice]:
    """What the space offers; 8 bits are always among it, because frozen layers and dense networks have them."""
    forced = [bits for pin in space.pins for bits in pin.weight_bits or []]
    widths = sorted({*space.weight_bits, *forced, 8})
    return [*(Uniform(weight_bits=bits) for bits in widths), *space.methods]


def _activation_bits(space: SearchSpaceSpec) -> list[int]:
    forced = [bits for pin in space.pins for bits in pin.activation_bits or []]
    return sorted({*space.activation_bits, *forced, 8})


def _distinct_bits(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """One pair for each width of weights and growth of partial sums, the one of most activation bits; slowest first."""
    distinct = {(weight, partial_sum_growth(weight, act)): (weight, act) for weight, act in sorted(pairs)}
    return sorted(distinct.values(), key=lambda bits: (partial_sum_growth(*bits), bits))


def _spread(values: Sequence[int], count: int) -> list[int]:
    """At most `count` of the ascending `values`, evenly spread, the first and the last among them."""
    if len(values) <= count:
        return list(values)
    return [values[round(position * (len(values) - 1) / (count - 1))] for position in range(count)]


def _one_for_each_vector_count(outputs: Iterable[int]) -> list[int]:
    """For each number of vectors, which decides how a kernel is cut into panels, the most channels that have it."""
    return list({-(-count // LANES): count for count in sorted(outputs)}.values())
