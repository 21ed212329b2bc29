"""How weights are stored: as planes of 4, 2 and 1 bits, decoded panel by panel into a scratch near the processor.

A weight of `b` bits is stored as `w + 2^(b-1)`; its bits are cut into planes as `b` is a sum of 4, 2 and 1, highest
bits first. Eight bits are stored as they are, and of one bit the sign.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from automc.compiler.isa import STEP

_PLANES = (4, 2, 1)
_PARTS = 8  # a plane's byte holds values that lie an eighth of the panel apart, so that decoding runs along memory


def encode(panel: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """The stored bytes of a panel's weights, whose count must be a multiple of 8: `count * bits / 8` bytes."""
    if bits == 8:
        return panel.reshape(-1).view(np.uint8)
    values = (panel.reshape(_PARTS, -1).astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    if bits == 1:
        values >>= 1
    planes, below = [], bits
    for width in _PLANES:
        if bits & width:
            below -= width
            piece = values >> below & ((1 << width) - 1)
            shared = 8 // width  # values in a byte
            shifts = (np.arange(shared, dtype=np.uint8) * width)[None, :, None]
            planes.append((piece.reshape(width, shared, -1) << shifts).sum(1, dtype=np.uint8).reshape(-1))
    return np.concatenate(planes)


def stored_bits(weight_bits: int, run: int) -> int:
    """The bits that a weight takes: one bit has no zero to fill up the last step of a run with, and so takes two."""
    return 2 if weight_bits == 1 and run % STEP else weight_bits


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
        weight = f"2 * ({value}) - 1" if bits == 1 else f"({value}) - {1 << (bits - 1)}"
        lines.append(f"    out[{part} * part + i] = ({weight_type})({weight});")
    return name, head + "\n".join(lines) + "\n}\n"
