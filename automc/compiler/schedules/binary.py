"""Binary convolution: weights of -1 and +1 by values of 0 and 1, as exclusive or and population count of 32 at a time.

The sum of `w * a` is how many of the window's weights are +1, less how many bits of `w` (1 for +1) and `a` differ. So a
kernel starts from biases that hold the former, and walks over a copy of its source that has a bit for each value.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.compiler.isa import LANES, STEP, Path
from automc.compiler.kernel import SCRATCH, Context, Kernel, Place, chunks, padded, signature
from automc.compiler.schedules.convolution import Reading, Tile, loops, window_rows
from automc.compiler.schedules.products import Products, Window
from automc.compiler.schedules.result import Result
from automc.compiler.schedules.weights import Constants, Weights, pack
from automc.compiler.storage import Symbols
from automc.compression.operations import Convolve

WORD = 8 * STEP  # bits of a step


def is_binary(weight_bits: int, source_bits: int, groups: int) -> bool:
    """Whether weights and values of so many bits are computed with bits."""
    return weight_bits == 1 and source_bits == 1 and groups == 1


@dataclass(frozen=True, eq=False)
class Bits:
    """The weights of a binary layer as words of bits, 1 for +1; each word is a step."""

    words: int  # of a pixel
    window: Window
    rows: NDArray[np.int8]  # `outputs x steps x STEP`

    @classmethod
    def of(cls, operation: Convolve) -> Bits:
        """Those of a convolution of one-bit weights."""
        bits = padded((operation.weight > 0).transpose(0, 2, 3, 1), WORD)
        packed = np.packbits(bits, axis=-1, bitorder="little").view(np.int8).transpose(0, 3, 1, 2)
        window = Window.of(packed.shape, operation.dilation, 1)
        return cls(packed.shape[1] // STEP, window, window_rows(packed, window))

    def constants(self, operation: Convolve, path: Path) -> Constants:
        """What is stored of them, and biases that hold how many of a window's weights are +1."""
        panels = chunks(operation.outputs, path.vectors * LANES)
        starts = operation.bias + (operation.weight > 0).sum((1, 2, 3), dtype=np.int32)
        parts = np.split(self.rows, np.cumsum(panels)[:-1])
        stored = np.concatenate([pack(part, path).view(np.uint8) for part in parts])
        return Constants.of(dataclasses.replace(operation, bias=starts), panels, stored, Symbols(8), {})


def binary(operation: Convolve, context: Context) -> Kernel:
    """The kernel of a convolution of one-bit weights over a one-bit tensor."""
    source = context.layouts[operation.source]
    tensor, padding = source.tensor, operation.padding
    bits = Bits.of(operation)
    words, window, rows = bits.words, bits.window, bits.rows
    height, width = tensor.height + 2 * padding[0], tensor.width + 2 * padding[1]
    pixel_bytes = words * STEP
    reading = Reading(operation, width * pixel_bytes, pixel_bytes)

    path = context.target.bits or _BITS
    interval = min(path.largest_sum // path.values_per_sum, rows.shape[1])
    panels = chunks(operation.outputs, path.vectors * LANES)
    constants = bits.constants(operation, path)
    weights = Weights(path, constants, "1 bit", rows.shape[1] * STEP)
    tile = Tile.of(*context.program.output_size(operation), path.pixels)
    result = Result.of(operation, context)

    def products(offsets: tuple[int, ...], vectors: int) -> list[str]:
        return Products(path, interval, offsets, vectors, window, *reading.window_bytes).lines()

    last = tensor.channels % WORD
    mask = f" & {(1 << last) - 1:#x}u" if last else ""
    code = [
        signature("const uint8_t *values", *constants.parameters, "uint8_t *bits", *result.parameters),
        f"  for (int y = 0; y < {height}; y++) for (int x = 0; x < {width}; x++) {{",
        f"    const uint8_t *from = values + y * {source.row_bytes} + x * {tensor.channels};",
        f"    uint8_t *to = bits + y * {reading.row_bytes} + x * {pixel_bytes};",
        f"    for (int i = 0; i < {words - 1}; i++) store_word(to + i * {STEP}, pack_bits(from + i * {WORD}));",
        f"    store_word(to + {(words - 1) * STEP}, pack_bits(from + {(words - 1) * WORD}){mask});",
        "  }",
        "  const uint8_t *source = bits;",
        *loops(panels, tile, reading, result, path, weights.open, products),
        "}",
    ]
    return Kernel(
        "\n".join(code),
        (Place(operation.source, source.start(padding)), *weights.arguments, SCRATCH, *result.arguments),
        weights.choice(f"bits, {path.name}{result.title}", f"{tile.height}x{tile.width} x {panels[0]}", interval),
        {"store_word": _STORE_WORD, **result.helpers} | ({} if context.target.bits else {"bits": _PLAIN_BITS}),
        height * reading.row_bytes,
    )


# What computes with bits on targets that have no instructions for it.
_BITS = Path("bits", "int8_t", lanes_together=False, values_per_sum=32, largest_sum=2**31 - 1, pixels=4, vectors=1)

_PLAIN_BITS = """
INLINE uint32_t pack_bits(const uint8_t *p) {
  uint32_t word = 0;
  for (int i = 0; i < 32; i++) word |= (uint32_t)p[i] << i;
  return word;
}
typedef struct { int32_t lane[8]; } bits_sum;
typedef uint32_t bits_act;
INLINE uint32_t bits_word(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
INLINE bits_sum bits_zero(void) { bits_sum s = {{0}}; return s; }
INLINE bits_act bits_load(const uint8_t *p) { return bits_word(p); }
INLINE bits_sum bits_dot(bits_sum s, bits_act a, const int8_t *w) {
  for (int i = 0; i < 8; i++) {
    uint32_t x = bits_word((const uint8_t *)w + 4 * i) ^ a;
    x -= x >> 1 & 0x55555555u;
    x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
    x = (x + (x >> 4)) & 0x0F0F0F0Fu;
    s.lane[i] -= (int32_t)(x * 0x01010101u >> 24);
  }
  return s;
}
INLINE acc_t bits_widen(acc_t a, bits_sum s) { return acc_add(a, acc_load(s.lane)); }
"""

_STORE_WORD = """
INLINE void store_word(uint8_t *p, uint32_t word) {
  for (int i = 0; i < 4; i++) p[i] = (uint8_t)(word >> 8 * i);
}
"""
