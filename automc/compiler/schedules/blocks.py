"""Block-sparse convolution: a panel's products go over the list of its blocks that are not all zero."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from automc.compiler.isa import LANES, STEP, Path
from automc.compiler.kernel import Context, Kernel, Own, Place, chunks, signature
from automc.compiler.schedules.centred import Starts, centred
from automc.compiler.schedules.convolution import Reading, Tile, loops, window_rows
from automc.compiler.schedules.products import ListedProducts, Window
from automc.compiler.schedules.result import Result
from automc.compiler.schedules.weights import (
    Constants,
    choose_path,
    decoding,
    pack,
    storage_title,
    symbols_of,
    with_offset,
)
from automc.compiler.storage import encode, needs_decoding
from automc.compression.windows import BLOCK_OUTPUTS, Convolve


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a layer that are not all zero: steps of a window, for each panel of `BLOCK_OUTPUTS` channels."""

    window: Window
    rows: NDArray[np.int8]  # `outputs x steps x STEP`
    panels: list[int]

    @classmethod
    def of(cls, operation: Convolve) -> Blocks:
        """Those of a convolution."""
        window = Window.of(operation.weight.shape, operation.dilation, 1, in_blocks=True)
        return cls(window, window_rows(operation.weight, window), chunks(operation.outputs, BLOCK_OUTPUTS))

    @cached_property
    def parts(self) -> list[NDArray[np.int8]]:
        """The rows of each panel."""
        return np.split(self.rows, np.cumsum(self.panels)[:-1])

    @cached_property
    def present(self) -> list[NDArray[np.intp]]:
        """The steps of each panel that are not all zero."""
        return [np.flatnonzero(part.any((0, 2))) for part in self.parts]

    @property
    def most(self) -> int:
        """How many steps a panel has at most, at least 1."""
        return max(1, *map(len, self.present))

    @property
    def masks(self) -> NDArray[np.uint8]:
        """A bit for each step of each panel, the first in the lowest bit of the first byte, and full bytes a panel."""
        return np.stack([np.packbits(part.any((0, 2)), bitorder="little") for part in self.parts])

    @property
    def share(self) -> str:
        """For people: how many there are."""
        return f"{sum(map(len, self.present)) / (len(self.parts) * self.rows.shape[1]):.0%} of the blocks: "

    def constants(self, operation: Convolve, path: Path) -> Constants:
        """What is stored of them."""
        symbols = symbols_of(operation)
        packed = [pack(part[:, steps], path) for part, steps in zip(self.parts, self.present, strict=True)]
        stored = np.concatenate([encode(symbols.of(panel), symbols.bits) for panel in packed])
        shifted = with_offset(operation, self.rows, path)
        return Constants.of(shifted, self.panels, stored, symbols, {"mask": self.masks.reshape(-1)})


def block_sparse(operation: Convolve, context: Context) -> Kernel:
    """The kernel of a convolution that is stored in blocks of `STEP` inputs by `BLOCK_OUTPUTS` outputs."""
    source = context.layouts[operation.source]
    blocks = Blocks.of(operation)
    window, panels, most = blocks.window, blocks.panels, blocks.most
    # What a kernel meets between widenings are neighbours in the list.
    listed = np.zeros((len(blocks.rows), most, STEP), np.int8)
    for start, part, steps in zip(np.cumsum([0, *panels]), blocks.parts, blocks.present, strict=False):
        listed[start : start + len(part), : len(steps)] = part[:, steps]
    in_list = Window(1, 1, most * STEP)
    largest, size = context.largest_values[operation.source], context.program.output_size(operation)
    path, interval = choose_path(listed, largest, context.target.paths)
    path, interval = centred(path, interval, listed, largest, in_list, context.pixels_of(operation))
    starts = Starts.of(path, in_list, interval)

    constants = blocks.constants(operation, path)
    symbols = constants.symbols
    decoded = needs_decoding(symbols, path.weight_type)
    scratch_bytes = most * -(-panels[0] // LANES) * LANES * STEP * path.weight_bytes if decoded else 0

    def open_panel(vectors: int) -> list[str]:
        values = f"count * {vectors * LANES * STEP}"
        decode = decoding(symbols, path.weight_type, values)[0] if decoded else f"stored += {values};"
        kind = path.weight_type
        return [
            f"const int count = list_blocks(offsets, mask, {window.rows}, {window.columns}, {window.steps}, "
            f"{reading.window_bytes[0]}, {reading.window_bytes[1]});",
            f"mask += {blocks.masks.shape[1]};",
            f"const {kind} *panel = {'scratch' if decoded else f'(const {kind} *)stored'};",
            decode,
            *starts.open(vectors, "count"),
        ]

    def products(offsets: tuple[int, ...], vectors: int) -> list[str]:
        return ListedProducts(path, starts.block, offsets, vectors, most).lines()

    reading = Reading(operation, source.row_bytes, source.tensor.channels)
    # Blocks have two vectors whatever the registers hold, so that what is stored is the same on every target.
    pixels = max(1, path.pixels * path.vectors * LANES // BLOCK_OUTPUTS)
    tile = Tile.of(*size, pixels)
    result = Result.of(operation, context)
    scratch = (f"{path.weight_type} *scratch",) if decoded else ()
    code = [
        signature(
            "const uint8_t *source",
            *constants.parameters,
            "int32_t *offsets",
            *scratch,
            *starts.parameters,
            *result.parameters,
        ),
        *loops(panels, tile, reading, result, path, open_panel, products),
        "}",
    ]
    vectors = -(-panels[0] // LANES)
    places = (Place(Own.SCRATCH, -(-scratch_bytes // 4) * 4), *((Place(Own.SCRATCH),) if decoded else ()))
    before_starts = places[0].offset + 4 * (most + 1)  # of a block that is not there, too
    return Kernel(
        "\n".join(code),
        (
            Place(operation.source, source.start(operation.padding)),
            *constants.arguments,
            *places,
            *starts.arguments(before_starts),
            *result.arguments,
        ),
        constants.choice(
            f"blocks, {path.name}{result.title}",
            storage_title(operation, symbols, blocks.share),
            f"{tile.height}x{tile.width} x {panels[0]}",
            starts.block,
        ),
        {
            "list_blocks": _LIST_BLOCKS,
            **starts.helpers,
            **result.helpers,
            **(decoding(symbols, path.weight_type, "")[1] if decoded else {}),
        },
        starts.scratch_bytes(before_starts, vectors),
        in_place=tile.fits,
    )


_LIST_BLOCKS = f"""\
/* Where the bytes of each block lie that the mask has a bit for; without branches, which nothing could foretell. */
static int list_blocks(int32_t *offsets, const uint8_t *mask, int rows, int columns, int steps, int row_bytes,
    int column_bytes) {{
  int count = 0, block = 0;
  for (int i = 0; i < rows; i++) for (int j = 0; j < columns; j++) for (int k = 0; k < steps; k++, block++) {{
    offsets[count] = i * row_bytes + j * column_bytes + k * {STEP};
    count += mask[block >> 3] >> (block & 7) & 1;
  }}
  return count;
}}
"""
