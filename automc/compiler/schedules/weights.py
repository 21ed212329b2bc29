"""A layer's weights as its kernel meets them: choice of the path, packing into panels, storage, and decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.compiler.bounds import widening_interval
from automc.compiler.isa import LANES, STEP, Path
from automc.compiler.kernel import SCRATCH, Argument, Constant, padded
from automc.compiler.storage import decoder, encode, needs_decoding, stored_bits
from automc.compression.operations import Convolve


def choose_path(rows: NDArray[np.int8], largest_value: int, paths: Sequence[Path]) -> tuple[Path, int]:
    """The first path on which these weights are exact, and how many of its steps fit between widenings.

    rows: `outputs x steps x STEP`; `largest_value` is the source's.
    """
    for path in paths:
        interval = widening_interval(rows, largest_value, path)
        if interval > 0:
            return path, interval
    raise AssertionError("a target's last path is exact for all weights")


@dataclass(frozen=True, eq=False)
class Weights:
    """What a kernel needs to know of a layer's weights, and the constants that it is called with.

    The constants are weights in panels of output channels, each padded to whole vectors; biases; multipliers.
    """

    path: Path
    bits: int
    constants: tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.float32]]
    decoded_values: int  # at once; 0 where the kernel reads the stored weights themselves

    @classmethod
    def of(
        cls, operation: Convolve, rows: NDArray[np.int8], run: int, path: Path, panels: Sequence[int], one_by_one: bool
    ) -> Weights:
        """Pack `rows`, `outputs x steps x STEP`, into panels of so many channels, to decode one by one or at once.

        run: how many values stand before those, zeros, that fill up a step.
        """
        packed, biases, multipliers, first = [], [], [], 0
        for channels in panels:
            part = slice(first, first + channels)
            packed.append(_packed(rows[part], path))
            biases.append(padded(_biases(operation.bias[part], rows[part], path), LANES))
            multipliers.append(padded(operation.multiplier[part], LANES))
            first += channels
        if not one_by_one:
            packed = [np.concatenate(packed)]
        bits = stored_bits(operation.weight_bits, run)
        stored = np.concatenate([encode(panel, bits) for panel in packed])
        decoded = max(map(len, packed)) if needs_decoding(bits, path.weight_type) else 0
        constants = (stored, np.concatenate(biases), np.concatenate(multipliers))
        return cls(path, bits, constants, decoded)

    @property
    def parameters(self) -> tuple[str, ...]:
        scratch = (f"{self.path.weight_type} *scratch",) if self.decoded_values else ()
        return ("const uint8_t *stored", "const int32_t *bias", "const float *multipliers", *scratch)

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (*[Constant(array) for array in self.constants], *((SCRATCH,) if self.decoded_values else ()))

    @property
    def scratch_bytes(self) -> int:
        return self.decoded_values * (2 if self.path.weight_type == "int16_t" else 1)

    @property
    def size_bytes(self) -> int:
        return sum(array.nbytes for array in self.constants)

    @property
    def helpers(self) -> Mapping[str, str]:
        """The C function that decodes, by its name."""
        return dict([decoder(self.bits, self.path.weight_type)]) if self.decoded_values else {}

    def open(self, values: int) -> str:
        """C text that makes `panel` point to the next `values` weights, decoded where they must be."""
        kind = self.path.weight_type
        if not self.decoded_values:
            return f"const {kind} *panel = (const {kind} *)stored;"
        (name,) = self.helpers
        return f"{name}(scratch, stored, {values}); const {kind} *panel = scratch;"


def _biases(bias: NDArray[np.int32], rows: NDArray[np.int8], path: Path) -> NDArray[np.int32]:
    """The biases that make up for the path's offset: the weights times it; modulo 2^32, as accumulators are."""
    shifts: NDArray[np.int64] = path.offset * rows.sum((1, 2), dtype=np.int64)
    return np.asarray(bias + shifts).astype(np.int32)


def _packed(rows: NDArray[np.int8], path: Path) -> NDArray[np.int8]:
    """One panel in the order of the kernel: steps, vectors, then lanes and values as the path wants them; flat."""
    lanes = np.zeros((-(-len(rows) // LANES) * LANES, *rows.shape[1:]), np.int8)
    lanes[: len(rows)] = rows
    vectors = lanes.reshape(-1, LANES, rows.shape[1], STEP).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(vectors.swapaxes(2, 3) if path.lanes_together else vectors).reshape(-1)
