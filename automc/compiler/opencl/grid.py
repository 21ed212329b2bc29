"""A kernel in OpenCL C: a function of one work item, and the numbers that it is called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from automc.compiler.isa import LANES
from automc.compiler.kernel import Choice, Constant, Kernel, Place

Number = Place | Constant | int | float
Numbers = Mapping[str, Number]  # in the order in which the kernel gets them


def grid(choice: Choice, items: int, numbers: Numbers, body: Sequence[str]) -> Kernel:
    """The kernel whose items each do `body`, C text that knows its `item` and the `numbers` by their names.

    All numbers are passed as int: places and constants as offsets in bytes, floats as their bits.
    """
    parameters = ["__global uchar *arena", "const __global uchar *constants", "int items"]
    code = [
        f"KERNEL NAME({', '.join([*parameters, *(f'int {name}' for name in numbers)])}) {{",
        "  ITEM;",
        *("  " + line for line in body),
        "}",
    ]
    arguments = tuple(each if isinstance(each, Place | Constant) else _bits(each) for each in numbers.values())
    return Kernel("\n".join(code), arguments, choice, items=items)


def vectors(values: int) -> int:
    """How many items it takes to compute so many values."""
    return -(-values // LANES)


def _bits(number: int | float) -> str:
    return str(number if isinstance(number, int) else int(np.float32(number).view(np.int32)))
