"""A hand-made network and latency table, small enough to check by hand, for the tests of the cost room."""

from dataclasses import replace

import numpy as np

from automc.compression.policy import Policy
from automc.cost.energy import HOROWITZ, EnergyCoefficients
from automc.cost.kernels import Kernel, KernelPlan
from automc.cost.table import Header, LatencyTable, Row
from automc.network.graph import Add, Conv, Gather, Group, Input, Layer, Network, Pool

HEADER = Header("bench", "a processor", "portable", "a compiler 1.0", "-O3", "2026-01-01", output_tile=8, input_tile=4)


def kernels_of(network: Network, policy: Policy) -> tuple[Kernel, ...]:
    """The kernels that `network` calls for one image under `policy`, in the order of computation."""
    return tuple(step.kernel for step in KernelPlan(network).steps(policy) for _ in range(step.times))


def conv(name: str, source: str, inputs: int, outputs: int, size: int, kernel: int = 3, **settings: object) -> Conv:
    weight = np.zeros((outputs, inputs, kernel, kernel), np.float32)
    return Conv(name, (source,), (outputs, size, size), weight, np.zeros(outputs, np.float32), **settings)  # type: ignore[arg-type]


def residual_network() -> Network:
    """image 1x8x8 -> a (16) -> b (16, 4x4) -> c (16) + b -> mean -> result (10); `a` and `b` = `c` can be pruned."""
    layers: tuple[Layer, ...] = (
        Input("image", (), (1, 8, 8)),
        conv("a", "image", 1, 16, 8, padding=(1, 1), activation="relu"),
        conv("b", "a", 16, 16, 4, stride=(2, 2), padding=(1, 1), activation="relu"),
        conv("c", "b", 16, 16, 4, padding=(1, 1)),
        Add("total", ("b", "c"), (16, 4, 4), activation="relu"),
        Pool("mean", ("total",), (16, 1, 1), "mean", (4, 4), (4, 4)),
        conv("result", "mean", 16, 10, 1, kernel=1),
    )
    slots = np.arange(16)
    groups = (
        Group("a", 16, {"a": slots}),
        Group("b", 16, {"b": slots, "c": slots}),
        Group("result", 10, {"result": np.arange(10)}, "its channels are the network's answer"),
    )
    of = {"image": (-1, 1), "a": (0, 16), "result": (2, 10)} | dict.fromkeys(("b", "c", "total", "mean"), (1, 16))
    return Network("small", layers, groups, {name: _slots(*pair) for name, pair in of.items()}, (0.5,), (0.5,))


def splitting_network() -> Network:
    """image 1x4x4 -> a (8) -> its first half -> result (2): how many channels remain depends on which slots leave."""
    layers: tuple[Layer, ...] = (
        Input("image", (), (1, 4, 4)),
        conv("a", "image", 1, 8, 4, padding=(1, 1), activation="relu"),
        Gather("half", ("a",), (4, 4, 4), index=(0, 1, 2, 3)),
        conv("result", "half", 4, 2, 1, kernel=4),
    )
    groups = (
        Group("a", 8, {"a": np.arange(8)}),
        Group("result", 2, {"result": np.arange(2)}, "its channels are the network's answer"),
    )
    slots = {"image": _slots(-1, 1), "a": _slots(0, 8), "half": _slots(0, 8)[:4], "result": _slots(1, 2)}
    return Network("splitting", layers, groups, slots, (0.5,), (0.5,))


def row(kernel: Kernel, latency_ms: float) -> Row:
    return Row(kernel, latency_ms, latency_ms / 100, 100, "measured")


def table_for(
    latencies: dict[Kernel, float], energy: EnergyCoefficients | None = HOROWITZ, overhead_ms: float = 0.0
) -> LatencyTable:
    header = replace(HEADER, overhead_ms=overhead_ms)
    return LatencyTable(header, energy, tuple(row(kernel, latency) for kernel, latency in latencies.items()))


def _slots(group: int, count: int) -> np.ndarray:
    return np.stack([np.full(count, group), np.arange(count)], axis=1)
