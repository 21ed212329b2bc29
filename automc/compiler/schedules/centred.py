"""Partial sums that start at minus half of the largest value times their weights, so that they are near zero longer.

Stored values are never negative, so that sums of products leave a narrow range on the side of the more numerous
weights. What counts of a sum is how far apart its ends are: if it starts so that zero is in their middle, about twice
as many products fit. The starts are made once for each panel, and the biases take back what they all add up to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.compiler.arena import aligned
from automc.compiler.bounds import widening_interval
from automc.compiler.isa import LANES, STEP, Path
from automc.compiler.kernel import Own, Place
from automc.compiler.schedules.products import START_LANES, Window, widened_blocks

_FEWEST_PIXELS = 16  # for which it pays to make the starts


def centred(
    path: Path, interval: int, rows: NDArray[np.int8], largest_value: int, window: Window, pixels: int
) -> tuple[Path, int]:
    """The path with an offset, and its interval, where that halves the widenings of a layer of so many `pixels`.

    rows: `outputs x steps x STEP`, as for `widening_interval`, which found that the products of one step are safe.
    """
    if not path.starts or pixels < _FEWEST_PIXELS:
        return path, interval
    shifted = dataclasses.replace(path, offset=(largest_value + 1) // 2)
    longer = widening_interval(rows, largest_value, shifted)
    worth_it = 2 * Starts.of(shifted, window, longer).blocks <= Starts.of(path, window, interval).blocks
    return (shifted, longer) if worth_it else (path, interval)


@dataclass(frozen=True)
class Starts:
    """Where the partial sums of a panel start, one after the other as its kernel widens them.

    The panel has `runs` of so many `steps` at most, of which a `block` lies between widenings.
    """

    path: Path
    runs: int
    steps: int
    block: int

    @classmethod
    def of(cls, path: Path, window: Window, interval: int) -> Starts:
        """Those of a kernel that walks over `window`."""
        return cls(path, *widened_blocks(window, interval))

    @property
    def blocks(self) -> int:
        """How often the sums are widened."""
        return self.runs * -(-self.steps // self.block)

    @property
    def parameters(self) -> tuple[str, ...]:
        return ("int16_t *starts",) if self.path.centred else ()

    def arguments(self, scratch_bytes: int) -> tuple[Place, ...]:
        """Where they lie: behind so many bytes of the kernel's scratch."""
        return (Place(Own.SCRATCH, aligned(scratch_bytes)),) if self.path.centred else ()

    def scratch_bytes(self, before: int, vectors: int) -> int:
        """So many bytes of scratch, and those of the starts of a panel of so many vectors."""
        return aligned(before) + 2 * self.blocks * vectors * START_LANES if self.path.centred else before

    def open(self, vectors: int, steps: int | str) -> list[str]:
        """C text that makes the starts of `panel`, whose runs have so many steps."""
        arguments = f"starts, panel, {self.runs}, {steps}, {self.block}, {vectors}, {self.path.offset}"
        return [f"{self.path.name}_starts({arguments});"] if self.path.centred else []

    @property
    def helpers(self) -> Mapping[str, str]:
        """The C function for that, by name."""
        if not self.path.centred:
            return {}
        path = self.path.name
        code = f"""\
/* A run without any steps has a start, too. */
static void {path}_starts(int16_t *starts, const {self.path.weight_type} *w, int runs, int steps, int block,
    int vectors, int offset) {{
  uint8_t offsets[{STEP}];
  memset(offsets, offset, sizeof offsets);
  const {path}_act act = {path}_load(offsets);
  for (int run = 0; run < runs; run++, w += steps * vectors * {LANES * STEP})
    for (int first = 0; first == 0 || first < steps; first += block)
      for (int v = 0; v < vectors; v++, starts += {START_LANES}) {{
        {path}_sum s = {path}_zero();
        for (int k = first; k < first + block && k < steps; k++)
          s = {path}_dot(s, act, w + (k * vectors + v) * {LANES * STEP});
        {path}_set_start(starts, s);
      }}
}}
"""
        return {f"{path}_starts": code}
