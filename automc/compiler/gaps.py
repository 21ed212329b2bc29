"""Sparse weights: the non-zeros of a row and the gaps before them, as a stream of bits (Han et al. 2016, section 2).

A stream holds the rows of `LANES` output channels one after the other. An entry is a gap, how many zeros to skip, and
the symbol of the weight that follows; where a gap is too long for its bits, an entry with the weight zero lies between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.compiler.isa import LANES, STEP, Path
from automc.compiler.storage import Symbols

_WIDTHS = range(1, 9)  # bits of a gap


@dataclass(frozen=True, eq=False)
class Gaps:
    """How the entries of a layer are written: bits of a gap and symbols of weights."""

    bits: int
    symbols: Symbols

    @classmethod
    def smallest(cls, panels: Sequence[NDArray[np.int8]], weight_bits: int) -> Gaps:
        """The widths that take the fewest bytes for the rows of panels, each `outputs x values`."""
        streams = [stream for rows in panels for stream in _streams(rows)]
        values = np.concatenate([stream[stream != 0] for stream in streams])
        options = []
        for bits in _WIDTHS:
            fillers = sum(int((_gaps(stream) >> bits).sum()) for stream in streams)
            needed = np.append(values, np.int8(0)) if fillers or not len(values) else values
            symbols = Symbols.smallest(needed, max(weight_bits, 2))  # one bit has no zero
            size = (len(values) + fillers) * (bits + symbols.bits) / 8 + symbols.table_bytes
            options.append((size, bits, symbols))
        _, bits, symbols = min(options, key=lambda option: option[:2])
        return cls(bits, symbols)

    def encode(self, rows: NDArray[np.int8]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """The stored bytes of a panel's `rows`, `outputs x values`, and how many entries every stream has."""
        pieces, counts = [], []
        for stream in _streams(rows):
            gaps = _gaps(stream)
            ends = ((gaps >> self.bits) + 1).cumsum()
            count = int(ends[-1]) if len(ends) else 0
            skips, values = np.full(count, (1 << self.bits) - 1, np.uint32), np.zeros(count, np.int8)
            skips[ends - 1] = gaps & ((1 << self.bits) - 1)
            values[ends - 1] = stream[stream != 0]
            entries = skips | self.symbols.of(values).astype(np.uint32) << self.bits
            places = entries[:, None] >> np.arange(self.width, dtype=np.uint32) & 1
            pieces.append(np.packbits(places.astype(np.uint8).reshape(-1), bitorder="little"))
            counts.append(count)
        return np.concatenate(pieces), np.array(counts, np.int32)

    @property
    def padding(self) -> NDArray[np.uint8]:
        """What stands behind the last stream, since reading its last entry may touch it."""
        return np.zeros(self._bytes - -(-self.width // 8), np.uint8)

    @property
    def width(self) -> int:
        """Bits of an entry."""
        return self.bits + self.symbols.bits

    @property
    def title(self) -> str:
        """How the weights are stored, for people."""
        return f"non-zeros: {self.symbols.title}, {self.bits} bits for the gap before"

    @property
    def suffix(self) -> str:
        """What tells the C functions for this form from those for others."""
        return f"{self.bits}_{self.symbols.suffix}"

    @property
    def parameters(self) -> str:
        """Those of a C function that reads streams."""
        table = "" if self.symbols.table is None else ", const int8_t *table"
        return f"const uint8_t *stored, const int32_t *counts{table}"

    @property
    def arguments(self) -> str:
        """Those of a C function that reads streams."""
        return "stored, counts" + ("" if self.symbols.table is None else ", table")

    def entries(self, body: str) -> str:
        """C text that reads a stream of `count` entries and goes on to the next.

        It executes `body` for each, with the row `lane`, the place in it `p` and the `value`; rows have `values`.
        Entries behind the last row, which no stream has, are left out.
        """
        word = " | ".join(f"(uint32_t)at[{i}] << {8 * i}" for i in range(self._bytes))
        symbol = f"(entry >> {self.bits} & {(1 << self.symbols.bits) - 1})"
        return f"""{{
    int lane = 0, p = 0;
    for (int i = 0; i < count; i++, p++) {{
      const uint8_t *at = stored + ((size_t)i * {self.width} >> 3);
      const uint32_t entry = ({word}) >> ((size_t)i * {self.width} & 7);
      const int value = {self.symbols.value(f"(int){symbol}")};
      p += (int)(entry & {(1 << self.bits) - 1});
      for (; p >= values; p -= values) lane++;
      if (lane >= {LANES}) break;
      {body}
    }}
    stored += ((size_t)count * {self.width} + 7) >> 3;
  }}"""

    def scatter(self, path: Path) -> tuple[str, str]:
        """The name and the C text of the function that writes the streams of `vectors` into a panel.

        It takes the panel, `arguments`, how many vectors, how many values lie between vectors and between steps of the
        panel, and how many a row has. It returns where the next stream begins.
        """
        name = f"scatter_{self.suffix}_{path.weight_type}{path.order}"
        store = f"out[p / {STEP} * between_steps + {path.place('p')}] = ({path.weight_type})value;"
        return (
            name,
            f"""\
static const uint8_t *{name}({path.weight_type} *out, {self.parameters},
    int vectors, int between_vectors, int between_steps, int values) {{
  memset(out, 0, sizeof *out * (size_t)(vectors * {LANES} * values));
  for (int v = 0; v < vectors; v++, out += between_vectors) {{
    const int count = counts[v];
  {self.entries(store)}
  }}
  return stored;
}}
""",
        )

    @property
    def _bytes(self) -> int:
        """How many bytes an entry may reach into."""
        return self.width // 8 if self.width % 8 == 0 else (self.width + 14) // 8


def _streams(rows: NDArray[np.int8]) -> list[NDArray[np.int8]]:
    return [rows[first : first + LANES].reshape(-1) for first in range(0, len(rows), LANES)]


def _gaps(stream: NDArray[np.int8]) -> NDArray[np.int64]:
    """How many zeros lie before each non-zero."""
    places: NDArray[np.int64] = np.flatnonzero(stream)
    return np.diff(places, prepend=-1) - 1
