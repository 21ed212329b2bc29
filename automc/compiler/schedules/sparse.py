"""Sparse convolution for processors without vectors: each output channel's products go over its non-zeros alone."""

from __future__ import annotations

import dataclasses

import numpy as np

from automc.compiler.gaps import Gaps
from automc.compiler.isa import LANES, STEP, Target
from automc.compiler.kernel import Context, Kernel, Own, Place, chunks, signature
from automc.compiler.schedules.convolution import Reading, Tile, loops, window_rows
from automc.compiler.schedules.products import Window
from automc.compiler.schedules.result import Result
from automc.compiler.schedules.weights import sparse, storage_title
from automc.compression.operations import Convolve


def skips_zeros(operation: Convolve, target: Target) -> bool:
    """Whether the layer has so few non-zeros that `target` skips zeros one by one."""
    density = np.count_nonzero(operation.weight) / operation.weight.size
    return operation.encoding == "sparse" and bool(density <= target.skipped_density)


def sparse_convolution(operation: Convolve, context: Context) -> Kernel:
    """The kernel of a convolution that is stored as non-zeros; groups are computed one after the other."""
    source = context.layouts[operation.source]
    groups = operation.groups
    window = Window.of(operation.weight.shape, operation.dilation, groups)
    rows = window_rows(operation.weight, window)
    rows = rows.reshape(len(rows), -1)
    panels = chunks(operation.outputs // groups, LANES)
    parts = np.split(rows, np.cumsum(panels * groups)[:-1])
    gaps, constants = sparse(operation, parts, panels * groups)
    most = max(1, int(constants.extra["counts"].max()))
    # Whose sums are not needed: lanes are accumulated one by one.
    path = dataclasses.replace(context.target.paths[-1], weight_type="int8_t")
    reading = Reading(operation, source.row_bytes, source.tensor.channels)
    tile = Tile.of(*context.program.output_size(operation), path.pixels)
    result = Result.of(operation, context)

    name, helper = _lister(gaps)
    geometry = f"{rows.shape[1]}, {window.steps * STEP}, {window.columns}, {', '.join(map(str, reading.window_bytes))}"

    def open_panel(vectors: int) -> list[str]:
        assert vectors == 1
        return [
            f"stored = {name}(offsets, panel, ends, {gaps.arguments}, {geometry});",
            "counts++;",
        ]

    def products(offsets: tuple[int, ...], vectors: int) -> list[str]:
        pixels = range(len(offsets))
        return [
            f"int32_t sums[{len(offsets)}][{LANES}] = {{{{0}}}};",
            f"for (int lane = 0; lane < {LANES}; lane++) for (int i = ends[lane]; i < ends[lane + 1]; i++) {{",
            "  const uint8_t *from = at + offsets[i];",
            *(f"  sums[{p}][lane] += w[i] * from[{offsets[p]}];" for p in pixels),
            "}",
            *(f"c{p}_0 = acc_add(c{p}_0, acc_load(sums[{p}]));" for p in pixels),
        ]

    scratch = ("int32_t *offsets", "int32_t *ends", "int8_t *panel")
    places = tuple(Place(Own.SCRATCH, offset) for offset in (0, 4 * most, 4 * (most + LANES + 1)))
    code = [
        signature("const uint8_t *source", *constants.parameters, *scratch, *result.parameters),
        f"  for (int group = 0; group < {groups}; group++) {{",
        *loops(panels, tile, reading, result, path, open_panel, products),
        *([f"    source += {window.run};"] if groups > 1 else []),
        "  }",
        "}",
    ]
    return Kernel(
        "\n".join(code),
        (Place(operation.source, source.start(operation.padding)), *constants.arguments, *places, *result.arguments),
        constants.choice(
            f"non-zeros, one by one{result.title}",
            storage_title(operation, gaps),
            f"{tile.height}x{tile.width} x {panels[0]}",
            0,
        ),
        {name: helper, **result.helpers},
        places[-1].offset + most,
        in_place=tile.fits,
    )


def _lister(gaps: Gaps) -> tuple[str, str]:
    """The name and the C text of the function that lists the entries of a stream, and where each channel's end.

    `offsets` are where the value that a weight is multiplied by lies behind the window's first.
    """
    name = f"list_{gaps.suffix}"
    body = (
        "for (; row < lane; ) ends[++row] = i; weights[i] = (int8_t)value; "
        "offsets[i] = p / run / columns * row_bytes + p / run % columns * column_bytes + p % run;"
    )
    return (
        name,
        f"""\
static const uint8_t *{name}(int32_t *offsets, int8_t *weights, int32_t *ends, {gaps.parameters},
    int values, int run, int columns, int row_bytes, int column_bytes) {{
  const int count = *counts;
  int row = 0;
  ends[0] = 0;
  {gaps.entries(body)}
  while (row < {LANES}) ends[++row] = count;
  return stored;
}}
""",
    )
