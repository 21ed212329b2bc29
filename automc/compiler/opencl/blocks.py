"""Block-sparse convolution in OpenCL: an item goes over the list of its panel's blocks that are not all zero."""

from __future__ import annotations

from collections.abc import Mapping

from automc.compiler.isa import LANES, STEP
from automc.compiler.kernel import Choice, Context, Decoded, Kernel
from automc.compiler.opencl.convolution import geometry, tiled
from automc.compiler.opencl.weights import decoded, path_of, scales
from automc.compiler.schedules.blocks import Blocks
from automc.compiler.schedules.weights import Constants, decoding, storage_title
from automc.compiler.storage import needs_decoding
from automc.compression.operations import Convolve
from automc.compression.windows import BLOCK_OUTPUTS

_VECTOR = LANES * STEP  # weights of a block for the channels of one item
_VECTORS = BLOCK_OUTPUTS // LANES  # of a panel, but perhaps the last


def block_sparse(operation: Convolve, context: Context) -> Kernel:
    """The kernel of a convolution that is stored in blocks of `STEP` inputs by `BLOCK_OUTPUTS` outputs."""
    blocks = Blocks.of(operation)
    path = path_of(operation, context)
    constants = blocks.constants(operation, path)
    window, channels = blocks.window, operation.weight.shape[1]
    vectors = -(-operation.outputs // LANES)
    numbers = {
        **geometry(operation, context),
        **scales(constants),
        "weights": _listed(constants, blocks, vectors),
        "weight_bytes": _weight_bytes(blocks, vectors),
        "run_steps": window.steps,
        "run_columns": window.columns,
        "run_channels": channels if window.run > channels else window.steps * STEP,
    }
    open_panel = ["const int channel = panel * 8, count = outputs - channel;"]

    def products(pixels: range) -> list[str]:
        return [
            "const __global int *starts = (const __global int *)(constants + weights + weight_bytes);",
            f"const int own = panel / {_VECTORS}, neighbours = min({_VECTORS}, panels - own * {_VECTORS});",
            f"const __global int *blocks = starts + (panels + {_VECTORS - 1}) / {_VECTORS} + 1;",
            "const int last_block = rows > 0 ? starts[own + 1] : 0;",
            "const __global char *w = (const __global char *)(constants + weights)",
            f"  + starts[own] * {_VECTORS * _VECTOR} + panel % {_VECTORS} * {_VECTOR};",
            f"for (int block = starts[own]; block < last_block; block++, w += neighbours * {_VECTOR}) {{",
            f"  const int run = blocks[block] / run_steps, place = blocks[block] % run_steps * {STEP};",
            "  const int i = run / run_columns, j = run % run_columns + place / run_channels;",
            *(f"  TAP({p}, i, j, place % run_channels);" for p in pixels),
            f"  for (int k = 0; k < {STEP}; k++) {{",
            "    const int8 weight = convert_int8(vload8(k, w));",
            *(f"    sum{p} = mad24((int8)((from{p}[k] - source_zero) & inside{p}), weight, sum{p});" for p in pixels),
            "  }",
            "}",
        ]

    def choice(kernel: str, tile: str, interval: int) -> Choice:
        return constants.choice(kernel, storage_title(operation, constants.symbols, blocks.share), tile, interval)

    return tiled("blocks", operation, context, path, choice, numbers, vectors, open_panel, products)


def _weight_bytes(blocks: Blocks, vectors: int) -> int:
    counts = [min(_VECTORS, vectors - panel * _VECTORS) * len(present) for panel, present in enumerate(blocks.present)]
    return sum(counts) * _VECTOR


def _listed(constants: Constants, blocks: Blocks, vectors: int) -> Decoded:
    """The weights of the blocks, and behind them as int32 where each panel's list begins and ends, and the lists."""
    panels, weight_bytes = len(blocks.panels), _weight_bytes(blocks, vectors)
    decode = "memcpy(scratch, stored, count); stored += count;"
    helpers: Mapping[str, str] = {}
    if needs_decoding(constants.symbols, "int8_t"):
        decode, helpers = decoding(constants.symbols, "int8_t", "count")
    last = vectors - (panels - 1) * _VECTORS
    code = f"""\
int32_t *starts = (int32_t *)(scratch + {weight_bytes}), *blocks = starts + {panels + 1}, n = 0;
for (int p = 0; p < {panels}; p++, mask += {blocks.masks.shape[1]}) {{
  starts[p] = n;
  for (int b = 0; b < {blocks.rows.shape[1]}; b++) if (mask[b >> 3] >> (b & 7) & 1) blocks[n++] = b;
  const int count = (n - starts[p]) * (p < {panels - 1} ? {_VECTORS} : {last}) * {_VECTOR};
  {decode}
  scratch += count;
}}
starts[{panels}] = n;"""
    size = weight_bytes + 4 * (panels + 1 + sum(map(len, blocks.present)))
    return decoded(constants, size, code, helpers)
