"""Canonical Huffman codes of bytes, and the C function that expands them (Huffman 1952; Schwartz and Kallick 1964).

Coded bytes are, for each alphabet, how many codes there are of each length from 1 to 15 as 16-bit numbers, low byte
first; then for each alphabet its symbols in the order of their codes; then the codes, highest bit first. Where the
bytes are pairs, first and second have alphabets of their own.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

LONGEST = 15  # bits of a code


def code_lengths(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The length of each symbol's code, 0 for those that do not occur, from how often each occurs."""
    lengths = np.zeros(len(counts), np.int64)
    present = np.flatnonzero(counts)
    weights = counts[present]
    while len(present):
        lengths[present] = _unlimited(weights.tolist())
        if lengths.max() <= LONGEST:
            break
        weights = (weights + 1) // 2  # flatter counts have shorter longest codes
    return lengths


def huffman_encode(values: NDArray[np.uint8], alphabets: int = 1) -> NDArray[np.uint8]:
    """The coded bytes of `values`, whose place modulo `alphabets` says which alphabet they are of."""
    heads, orders = [], []
    codes, widths = np.zeros(len(values), np.int64), np.zeros(len(values), np.int64)
    for first in range(alphabets):
        mine = values[first::alphabets]
        lengths = code_lengths(np.bincount(mine, minlength=256))
        order = np.lexsort((np.arange(256), lengths))[np.count_nonzero(lengths == 0) :]
        by_symbol = np.zeros(256, np.int64)
        code, last = 0, 0
        for symbol in order.tolist():
            code <<= int(lengths[symbol]) - last
            last = int(lengths[symbol])
            by_symbol[symbol] = code
            code += 1
        codes[first::alphabets], widths[first::alphabets] = by_symbol[mine], lengths[mine]
        heads.append(np.bincount(lengths, minlength=LONGEST + 1)[1:].astype("<u2").view(np.uint8))
        orders.append(order.astype(np.uint8))
    ends = widths.cumsum()
    place = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - widths, widths)
    bits = np.repeat(codes, widths) >> (np.repeat(widths, widths) - 1 - place) & 1
    return np.concatenate([*heads, *orders, np.packbits(bits.astype(np.uint8))])


def _unlimited(weights: list[int]) -> list[int]:
    """Huffman's lengths; a lone symbol has one bit."""
    if len(weights) == 1:
        return [1]
    lengths = [0] * len(weights)
    heap = [(weight, position, [position]) for position, weight in enumerate(weights)]
    heapq.heapify(heap)
    while len(heap) > 1:
        (one, position, members), (other, _, others) = heapq.heappop(heap), heapq.heappop(heap)
        for member in members + others:
            lengths[member] += 1
        heapq.heappush(heap, (one + other, position, members + others))
    return lengths


EXPAND = f"""\
/* Decodes exactly `count` bytes, or answers 0 where the coded bytes are damaged; never reads or writes elsewhere. */
static int expand(uint8_t *out, int32_t count, const uint8_t *coded, int32_t size, int alphabets) {{
  const uint8_t *const end = coded + size, *symbols[2], *from = coded + {2 * LONGEST} * alphabets;
  if (size < {2 * LONGEST} * alphabets) return 0;
  for (int a = 0; a < alphabets; a++) {{
    symbols[a] = from;
    int32_t total = 0;
    for (int i = 0; i < {LONGEST}; i++) {{
      total += coded[2 * ({LONGEST} * a + i)] | coded[2 * ({LONGEST} * a + i) + 1] << 8;
    }}
    if (total > end - from) return 0;
    from += total;
  }}
  unsigned bits = 0;
  int left = 0;
  for (int32_t i = 0; i < count; i++) {{
    const int a = (int)(i % alphabets);
    const uint8_t *counts = coded + {2 * LONGEST} * a;
    int32_t code = 0, first = 0, index = 0;
    for (int length = 0;; length++) {{
      if (length == {LONGEST}) return 0;
      if (left == 0) {{
        if (from == end) return 0;
        bits = *from++;
        left = 8;
      }}
      code |= (int32_t)(bits >> --left & 1);
      const int32_t here = counts[2 * length] | counts[2 * length + 1] << 8;
      if (code - first < here) break;
      index += here;
      first = (first + here) << 1;
      code <<= 1;
    }}
    if (code < first) return 0;
    out[i] = symbols[a][index + code - first];
  }}
  return 1;
}}
"""
