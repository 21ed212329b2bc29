"""How weights are stored: symbols of a few bits as planes of 4, 2 and 1 bits, decoded into a scratch in the cache.

A symbol of `b` bits is the weight moved to be unsigned, `w + 2^(b-1)` (8 bits: the int8 itself; 1 bit: its sign), or
its place in the layer's table of values. The symbols' bits are cut into planes as `b` is a sum of 4, 2 and 1, highest
bits first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PLANES = (4, 2, 1)
_PARTS = 8  # a plane's byte holds values that lie an eighth of the panel apart, so that decoding runs along memory


@dataclass(frozen=True, eq=False)
class Symbols:
    """The symbols of a layer, of `bits` bits. table: the int8 values that they stand for, ascending, or None."""

    bits: int
    table: NDArray[np.int8] | None = None

    @classmethod
    def tabled(cls, weights: NDArray[np.int8]) -> Symbols:
        """Symbols that are places in the table of the values that occur in `weights`."""
        values = np.unique(weights)
        bits = max(1, int(len(values) - 1).bit_length())
        return cls(bits, np.concatenate([values, np.full((1 << bits) - len(values), values[-1])]))

    @classmethod
    def smallest(cls, weights: NDArray[np.int8], bits: int) -> Symbols:
        """Symbols of `bits` bits, or of fewer that are places in a table where those take fewer bytes."""
        direct, tabled = cls(bits), cls.tabled(weights)
        size = weights.size * tabled.bits / 8 + tabled.table_bytes
        return tabled if size < weights.size * bits / 8 else direct

    @property
    def table_bytes(self) -> int:
        return 0 if self.table is None else self.table.nbytes

    @property
    def title(self) -> str:
        """How a weight is written, for people."""
        known = "" if self.table is None else f"{len(np.unique(self.table))} values in "
        return f"{known}{self.bits} bit{'s' if self.bits > 1 else ''}"

    @property
    def suffix(self) -> str:
        """What tells the C functions for these symbols from those for others."""
        return f"{self.bits}" if self.table is None else f"{self.bits}_table"

    @property
    def holds_zero(self) -> bool:
        """Whether some symbol stands for zero; where none does, zeros become the value that is nearest to it."""
        return self.bits > 1 if self.table is None else 0 in self.table

    def of(self, weights: NDArray[np.int8]) -> NDArray[np.uint8]:
        """The symbol of each weight."""
        if self.table is not None:
            nearest = int(np.abs(self.table.astype(np.int16)).argmin())
            places = np.full(256, nearest, np.uint8)
            places[self.table[::-1].view(np.uint8)] = np.arange(len(self.table))[::-1]
            return places[weights.view(np.uint8)]
        if self.bits == 1:
            return (weights > 0).astype(np.uint8)
        if self.bits == 8:
            return weights.view(np.uint8)
        return (weights.astype(np.int16) + (1 << (self.bits - 1))).astype(np.uint8)

    def value(self, symbol: str) -> str:
        """C text of the weight that a symbol, C text of an unsigned number, stands for."""
        if self.table is not None:
            return f"table[{symbol}]"
        if self.bits == 1:
            return f"2 * ({symbol}) - 1"
        return f"(int8_t)({symbol})" if self.bits == 8 else f"({symbol}) - {1 << (self.bits - 1)}"


def encode(symbols: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The stored bytes of a panel's symbols, whose count must be a multiple of 8: `count * bits / 8` bytes."""
    if bits == 8:
        return symbols.reshape(-1)
    values = symbols.reshape(_PARTS, -1)
    planes, below = [], bits
    for width in _PLANES:
        if bits & width:
            below -= width
            piece = values >> below & ((1 << width) - 1)
            shared = 8 // width  # values in a byte
            shifts = (np.arange(shared, dtype=np.uint8) * width)[None, :, None]
            planes.append((piece.reshape(width, shared, -1) << shifts).sum(1, dtype=np.uint8).reshape(-1))
    return np.concatenate(planes) if planes else symbols[:0].reshape(-1)


def needs_decoding(symbols: Symbols, weight_type: str) -> bool:
    """Whether the kernel cannot read the stored weights themselves."""
    return symbols.bits != 8 or symbols.table is not None or weight_type != "int8_t"


def decoder(symbols: Symbols, weight_type: str) -> tuple[str, str]:
    """The name and the C text of the function `(out, stored, count)`, with a table `(.., table)`, that undoes `encode`.

    Values of a table are looked up in a pass of its own, `look_up(bytes, count, table, bits)`, for which processors
    have instructions.
    """
    bits, tabled = symbols.bits, symbols.table is not None
    name = f"decode_{symbols.suffix}_{weight_type}"
    parameters = f"{weight_type} *restrict out, const uint8_t *restrict stored, int count"
    if not tabled:
        lines = _unpacked(bits, lambda place, symbol: f"out[{place}] = ({weight_type})({symbols.value(symbol)});")
    else:
        wide = weight_type != "int8_t"
        lines = [
            # The bytes lie in the upper half of wider weights, where each is read before it is written over.
            f"  uint8_t *bytes = (uint8_t *)out{' + count' if wide else ''};",
            *_unpacked(bits, lambda place, symbol: f"bytes[{place}] = (uint8_t)({symbol});"),
            f"  look_up(bytes, count, table, {bits});",
            *(["  for (int i = 0; i < count; i++) out[i] = (int8_t)bytes[i];"] if wide else []),
        ]
    head = f"static void {name}({parameters}{', const int8_t *table' if tabled else ''}) {{"
    return name, "\n".join([head, *lines, "}", ""])


def _unpacked(bits: int, store: Callable[[str, str], str]) -> list[str]:
    """Loops over the symbols of `count` weights; `store` prints what happens to the symbol of a place."""
    if bits == 8:
        return [f"  for (int i = 0; i < count; i++) {store('i', 'stored[i]')}"]
    lines = [f"  const int part = count / {_PARTS};"]
    pieces, start, below = [], "stored", bits
    for width in _PLANES:
        if bits & width:
            below -= width
            lines.append(f"  const uint8_t *plane{width} = {start};")
            start = f"plane{width} + {width} * part"
            pieces.append((width, below))
    for part in range(_PARTS):
        terms = []
        for width, shift in pieces:
            row, place = divmod(part, 8 // width)
            byte = f"plane{width}[{row} * part + i] >> {place * width}"
            terms.append(f"({byte} & {(1 << width) - 1}) << {shift}")
        symbol = " | ".join(f"({term})" for term in terms)
        lines.append(f"  ROLLED for (int i = 0; i < part; i++) {store(f'{part} * part + i', symbol)}")
    return lines


LOOK_UP = """\
#ifndef LOOKS_UP
static void look_up(uint8_t *bytes, int count, const int8_t *table, int bits) {
  (void)bits;
  for (int i = 0; i < count; i++) bytes[i] = (uint8_t)table[bytes[i]];
}
#endif
"""
