"""What the actual weights prove: how many products a narrow partial sum can take without ever overflowing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from automc.compiler.isa import STEP, Path
from automc.compression.program import Program


def largest_values(program: Program) -> Mapping[str, int]:
    """The largest value that each stored tensor, its halo included, can hold for any image."""
    largest: dict[str, int] = {}
    for operation in program.operations:
        if operation is not program.result:
            bound = operation.largest_value(program.tensors, largest)
            largest[operation.target] = max(bound, program.tensors[operation.target].zero_point)
    return largest


def widening_interval(rows: NDArray[np.int8], largest_value: int, path: Path) -> int:
    """How many consecutive steps of a kernel may be summed before widening, or 0 where not even one is safe.

    rows: `outputs x steps x STEP`, the weights in the order in which the kernel meets them. Each partial sum takes
    `path.values_per_sum` of the products of a step; it is safe if neither the products that can be positive nor those
    that can be negative, each as large as it gets, together leave its range.
    """
    if largest_value > path.largest_value:
        return 0
    steps = rows.shape[1]
    grouped = rows.reshape(len(rows), steps, STEP // path.values_per_sum, path.values_per_sum).astype(np.int64)
    products = np.stack([grouped * -path.offset, grouped * (largest_value - path.offset)])
    reach = np.stack([products.max(0).clip(min=0).sum(3), (-products.min(0)).clip(min=0).sum(3)])
    # running[..., s, ...] is what the first s steps add up to; differences are sums over windows of steps.
    running = np.concatenate([np.zeros_like(reach[:, :, :1]), reach.cumsum(2)], axis=2)

    def safe(window: int) -> bool:
        return int((running[:, :, window:] - running[:, :, :-window]).max()) <= path.largest_sum

    low, high = 0, steps
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if safe(middle) else (low, middle - 1)
    return low
