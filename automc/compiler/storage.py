"""How weights are stored: as planes of 4, 2 and 1 bits, decoded panel by panel into a scratch near the processor.

A weight of `b` bits is stored as `w + 2^(b-1)`; its bits are cut into planes as `b` is a sum of 4, 2 and 1, highest
bits first. Eight bits are stored as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PLANES = (4, 2, 1)
_PARTS = 8  # a plane's byte holds values that lie an eighth of the panel apart, so that decoding runs along memory


def encode(panel: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """The stored bytes of a panel's weights, whose count must be a multiple of 8: `count * bits / 8` bytes."""
    if bits == 8:
        return panel.reshape(-1).view(np.uint8)
    values = (panel.reshape(_PARTS, -1).astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    planes, below = [], bits
    for width in _PLANES:
        if bits & width:
            below -= width
            piece = values >> below & ((1 << width) - 1)
            shared = 8 // width  # values in a byte
            shifts = (np.arange(shared, dtype=np.uint8) * width)[None, :, None]
            planes.append((piece.reshape(width, shared, -1) << shifts).sum(1, dtype=np.uint8).reshape(-1))
    return np.concatenate(planes)


def needs_decoding(bits: int, weight_type: str) -> bool:
    """Whether the kernel cannot read the stored weights themselves."""
    return bits != 8 or weight_type != "int8_t"


def decoder(bits: int, weight_type: str) -> tuple[str, str]:
    """The name and the C text of the function `(out, stored, count)` that undoes `encode`."""
    name = f"decode_{bits}_{weight_type}"
    head = f"static void {name}({weight_type} *restrict out, const uint8_t *restrict stored, int count) {{\n"
    if bits == 8:
        return name, head + f"  for (int i = 0; i < count; i++) out[i] = ({weight_type})(int8_t)stored[i];\n}}\n"
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
        value = " | ".join(f"({term})" for term in terms)
        lines.append("  for (int i = 0; i < part; i++)")
        lines.append(f"    out[{part} * part + i] = ({weight_type})(({value}) - {1 << (bits - 1)});")
    return name, head + "\n".join(lines) + "\n}\n"
