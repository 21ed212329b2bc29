"""The operations of an integer program, and the rule that makes their arithmetic one meaning.

Arithmetic, the same on every target: an int32 accumulator (bias included) becomes binary32, is multiplied once by a
binary32 number, clamped, rounded to the nearest even integer, and the zero-point is added. Stored values are unsigned.

A further operation is one class, one entry in `OPERATIONS`, and one in each table of what can be done with a program:
of the interpreter, of the torch module (`steps.py`), of the compiler's schedules, of its ONNX form (`interchange.py`),
of the kernels in a latency table (`cost/recognise.py`), and of the tests' random programs.
"""

from __future__ import annotations

from collections.abc import Mapping

from automc.compression.elementwise import Dequantise, Lookup, Quantise, Scale, Sum
from automc.compression.moves import Join, Rank, Select, Shuffle
from automc.compression.tensors import MULTIPLIER_RANGE, Operation, Tensor
from automc.compression.windows import Convolve, Encoding, Pool, weight_magnitudes, window_counts

__all__ = [
    "MULTIPLIER_RANGE",
    "OPERATIONS",
    "Convolve",
    "Dequantise",
    "Encoding",
    "Join",
    "Lookup",
    "Operation",
    "Pool",
    "Quantise",
    "Rank",
    "Scale",
    "Select",
    "Shuffle",
    "Sum",
    "Tensor",
    "weight_magnitudes",
    "window_counts",
]

OPERATIONS: Mapping[str, type[Operation]] = {
    kind.__name__: kind
    for kind in (Quantise, Convolve, Pool, Sum, Lookup, Scale, Join, Select, Shuffle, Rank, Dequantise)
}
