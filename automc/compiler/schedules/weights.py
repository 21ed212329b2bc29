"""A layer's weights as its kernel meets them: choice of the path, packing into panels, storage, and decoding."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automc.compiler.bounds import widening_interval
from automc.compiler.gaps import Gaps
from automc.compiler.isa import LANES, STEP, Path
from automc.compiler.kernel import SCRATCH, Argument, Choice, Coded, Constant, padded
from automc.compiler.storage import LOOK_UP, Symbols, decoder, encode, needs_decoding
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


def symbols_of(operation: Convolve) -> Symbols:
    """How a layer writes a weight. What is Huffman coded has symbols of 8 bits, since codes make them short again."""
    if operation.huffman:
        return Symbols(8)
    if operation.encoding == "codebook":
        return Symbols.tabled(operation.weight)
    if operation.encoding == "dense":
        return Symbols(operation.weight_bits)
    return Symbols.smallest(np.append(operation.weight, np.int8(0)), operation.weight_bits)


@dataclass(frozen=True, eq=False)
class Constants:
    """What every kernel with weights is called with: stored weights, biases, multipliers, and what their form needs."""

    stored: Constant
    biases: NDArray[np.int32]
    multipliers: NDArray[np.float32]
    symbols: Symbols
    extra: Mapping[str, NDArray[Any]]  # further parameters

    @classmethod
    def of(
        cls,
        operation: Convolve,
        panels: Sequence[int],
        stored: NDArray[np.uint8],
        symbols: Symbols,
        extra: Mapping[str, NDArray[Any]],
        alphabets: int = 1,
    ) -> Constants:
        """`stored` for panels of so many channels, Huffman coded where the operation asks for it."""
        biases, multipliers, first = [], [], 0
        for channels in panels:
            part = slice(first, first + channels)
            biases.append(padded(operation.bias[part], LANES))
            multipliers.append(padded(operation.multiplier[part], LANES))
            first += channels
        if symbols.table is not None:
            extra = {**extra, "table": symbols.table}
        stored = stored if len(stored) else np.zeros(1, np.uint8)  # C has no empty arrays
        weights = Coded(stored, alphabets) if operation.huffman else Constant(stored)
        return cls(weights, np.concatenate(biases), np.concatenate(multipliers), symbols, extra)

    @property
    def parameters(self) -> tuple[str, ...]:
        extra = [f"const {array.dtype.name}_t *{name}" for name, array in self.extra.items()]
        return ("const uint8_t *stored", "const int32_t *bias", "const float *multipliers", *extra)

    @property
    def arguments(self) -> tuple[Argument, ...]:
        extra = [Constant(array) for array in self.extra.values()]
        return (self.stored, Constant(self.biases), Constant(self.multipliers), *extra)

    def choice(self, kernel: str, storage: str, tile: str, interval: int) -> Choice:
        """What was decided for the layer."""
        return Choice(kernel, storage, tile, interval, self.size_bytes)

    @property
    def size_bytes(self) -> int:
        """What lies in the library."""
        arrays = [self.stored.stored, self.biases, self.multipliers, *self.extra.values()]
        return sum(array.nbytes for array in arrays)


def decoding(symbols: Symbols, weight_type: str, count: str) -> tuple[str, Mapping[str, str]]:
    """C text that decodes the next `count` weights into `scratch`, and the functions for it by name."""
    name, code = decoder(symbols, weight_type)
    table = "" if symbols.table is None else ", table"
    helpers = {name: code} if symbols.table is None else {"look_up": LOOK_UP, name: code}
    return f"{name}(scratch, stored, {count}{table}); stored += {count} / 8 * {symbols.bits};", helpers


def sparse(operation: Convolve, parts: Sequence[NDArray[np.int8]], panels: Sequence[int]) -> tuple[Gaps, Constants]:
    """The non-zeros of panels, each `outputs x values`, and the gaps between them."""
    gaps = Gaps(8, Symbols(8)) if operation.huffman else Gaps.smallest(parts, operation.weight_bits)
    streams = [gaps.encode(part) for part in parts]
    stored = np.concatenate([*(stream for stream, _ in streams), gaps.padding])
    counts = np.concatenate([count for _, count in streams])
    return gaps, Constants.of(operation, panels, stored, gaps.symbols, {"counts": counts}, alphabets=2)


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of a kernel that multiplies by all of them: panels of output channels, each padded to whole vectors.

    decoded_values: how many are decoded at once, 0 where the kernel reads the stored weights themselves.
    """

    path: Path
    constants: Constants
    storage: str
    values: int  # of an output channel, those that fill up steps included
    decoded_values: int = 0
    decode: str = ""  # C text that decodes VECTORS vectors from `stored` into `scratch`
    helpers: Mapping[str, str] = field(default_factory=dict)  # the C functions for that, by name

    @classmethod
    def of(
        cls,
        operation: Convolve,
        rows: NDArray[np.int8],
        run: int,
        path: Path,
        panels: Sequence[int],
        one_by_one: bool,
        order: Sequence[int] = (),
    ) -> Weights:
        """Pack `rows`, `outputs x steps x STEP`, into panels of so many channels, to decode one by one or at once.

        run: how many values stand before those, zeros, that fill up a step; order: the channel of each lane, where it
        is not that of the same number.
        """
        operation = with_offset(operation, rows, path)
        parts = np.split(rows[list(order)] if order else rows, np.cumsum(panels)[:-1])
        vectors = [-(-len(part) // LANES) for part in parts]
        values = rows.shape[1] * STEP
        decoded = (max(vectors) if one_by_one else sum(vectors)) * LANES * values
        # In a panel, the vectors of one step are neighbours; panels that are decoded at once have one vector each.
        strides = f"{LANES * STEP}, VECTORS * {LANES * STEP}" if one_by_one else f"{LANES * values}, {LANES * STEP}"
        if operation.encoding == "sparse":
            gaps, constants = sparse(operation, [part.reshape(len(part), -1) for part in parts], panels)
            name, code = gaps.scatter(path)
            decode = f"stored = {name}(scratch, {gaps.arguments}, VECTORS, {strides}, {values}); counts += VECTORS;"
            return cls(path, constants, storage_title(operation, gaps), values, decoded, decode, {name: code})
        symbols = symbols_of(operation)
        packed = [pack(part, path) for part in parts]
        packed = packed if one_by_one else [np.concatenate(packed)]
        stored = np.concatenate([encode(symbols.of(panel), symbols.bits) for panel in packed])
        constants = Constants.of(operation, panels, stored, symbols, {})
        if not needs_decoding(symbols, path.weight_type):
            return cls(path, constants, storage_title(operation, symbols), values)
        decode, helpers = decoding(symbols, path.weight_type, f"VECTORS * {LANES * values}")
        if run % STEP and not symbols.holds_zero:
            name, code = _clear(path)
            decode += f" {name}(scratch, VECTORS, {strides}, {run}, {values});"
            helpers = {**helpers, name: code}
        return cls(path, constants, storage_title(operation, symbols), values, decoded, decode, helpers)

    @property
    def parameters(self) -> tuple[str, ...]:
        scratch = (f"{self.path.weight_type} *scratch",) if self.decoded_values else ()
        return (*self.constants.parameters, *scratch)

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (*self.constants.arguments, *((SCRATCH,) if self.decoded_values else ()))

    @property
    def scratch_bytes(self) -> int:
        return self.decoded_values * self.path.weight_bytes

    def choice(self, kernel: str, tile: str, interval: int) -> Choice:
        """What was decided for the layer."""
        return self.constants.choice(kernel, self.storage, tile, interval)

    def open(self, vectors: int) -> list[str]:
        """C text that makes `panel` point to the weights of the next `vectors`, and `stored` to what comes behind."""
        kind = self.path.weight_type
        if self.decoded_values:
            return [self.decode.replace("VECTORS", str(vectors)), f"const {kind} *panel = scratch;"]
        return [f"const {kind} *panel = (const {kind} *)stored;", f"stored += {vectors * LANES * self.values};"]


def pack(rows: NDArray[np.int8], path: Path) -> NDArray[np.int8]:
    """One panel in the order of the kernel: steps, vectors, then lanes and values as the path wants them; flat."""
    lanes = np.zeros((-(-len(rows) // LANES) * LANES, *rows.shape[1:]), np.int8)
    lanes[: len(rows)] = rows
    vectors = lanes.reshape(len(lanes) // LANES, LANES, rows.shape[1], STEP).transpose(2, 0, 1, 3)
    if path.lanes_together:
        vectors = vectors.swapaxes(2, 3)
    elif path.even_first:
        vectors = vectors.reshape(*vectors.shape[:3], STEP // 2, 2).transpose(0, 1, 4, 2, 3)
    return np.ascontiguousarray(vectors).reshape(-1)


def with_offset(operation: Convolve, rows: NDArray[np.int8], path: Path) -> Convolve:
    """The layer with biases that make up for the path's offset: the weights times it; modulo 2^32, as accumulators are.

    rows: `outputs x steps x STEP`.
    """
    shifts: NDArray[np.int64] = path.offset * rows.sum((1, 2), dtype=np.int64)
    return dataclasses.replace(operation, bias=np.asarray(operation.bias + shifts).astype(np.int32))


def storage_title(operation: Convolve, form: Symbols | Gaps, before: str = "") -> str:
    """How the weights are stored, for people."""
    return f"{before}{'Huffman codes' if operation.huffman else form.title}"


def _clear(path: Path) -> tuple[str, str]:
    """The name and the C text of the function that makes what fills up steps zero where no symbol stands for zero."""
    name = f"clear_{path.weight_type}{path.order}"
    code = f"""\
static void {name}({path.weight_type} *panel, int vectors, int between_vectors, int between_steps, int run,
    int values) {{
  for (int v = 0; v < vectors; v++, panel += between_vectors)
    for (int first = 0; first < values; first += (run + {STEP - 1}) / {STEP} * {STEP})
      for (int k = first + run; k % {STEP}; k++)
        for (int lane = 0; lane < {LANES}; lane++) panel[k / {STEP} * between_steps + {path.place("k")}] = 0;
}}
"""
    return name, code
