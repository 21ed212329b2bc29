"""Binary convolution in OpenCL: an item packs the bits of what it reads, and counts where weights differ from them."""

from __future__ import annotations

from automc.compiler.isa import LANES
from automc.compiler.kernel import Choice, Context, Kernel
from automc.compiler.opencl.convolution import geometry, tiled
from automc.compiler.opencl.weights import decoded, scales
from automc.compiler.schedules.binary import WORD, Bits
from automc.compression.operations import Convolve


def binary(operation: Convolve, context: Context) -> Kernel:
    """The kernel of a convolution of one-bit weights over a one-bit tensor.

    Bits of values that are outside of the source are those of its zero-point, which the biases make up for.
    """
    bits, path = Bits.of(operation), context.target.bits
    assert path is not None
    constants = bits.constants(operation, path)
    used, size = operation.weight.shape[1] % WORD, constants.stored.array.nbytes
    panels = -(-operation.outputs // LANES)
    numbers = {
        **geometry(operation, context),
        **scales(constants),
        "weights": decoded(constants, size, f"memcpy(scratch, stored, {size});", {}),
        "panel_words": size // 4 // panels,
        "words": bits.words,
        "last_word": (1 << used) - 1 if used else -1,
    }
    open_panel = ["const int channel = panel * 8, count = outputs - channel;"]

    def products(pixels: range) -> list[str]:
        return [
            "const __global uint *w = (const __global uint *)(constants + weights) + panel * panel_words;",
            *(f"sum{p} = -sum{p};" for p in pixels),
            "for (int i = 0; i < rows; i++) for (int j = 0; j < columns; j++) {",
            *(f"  TAP({p}, i, j, 0);" for p in pixels),
            "  for (int k = 0; k < words; k++, w += 8) {",
            "    const uint8 weight = vload8(0, w);",
            "    const uint used = k < words - 1 ? -1 : last_word;",
            *(f"    const uint bits{p} = pack_bits(from{p} + {WORD} * k);" for p in pixels),
            *(f"    const uint seen{p} = (bits{p} & inside{p}) | (-source_zero & ~inside{p});" for p in pixels),
            *(f"    sum{p} += as_int8(popcount(weight ^ (uint8)(seen{p} & used)));" for p in pixels),
            "  }",
            "}",
            *(f"sum{p} = -sum{p};" for p in pixels),
        ]

    def choice(kernel: str, tile: str, interval: int) -> Choice:
        return constants.choice(kernel, "1 bit", tile, interval)

    return tiled("bits", operation, context, path, choice, numbers, panels, open_panel, products)
