"""Convolution in OpenCL: an item computes a few pixels of eight neighbouring output channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from automc.compiler.isa import LANES, STEP, Path
from automc.compiler.kernel import Choice, Context, Kernel, chunks, padded
from automc.compiler.opencl.grid import Numbers, grid
from automc.compiler.opencl.result import Result
from automc.compiler.opencl.weights import decoded_weights, path_of
from automc.compiler.schedules.convolution import window_rows
from automc.compiler.schedules.products import Window
from automc.compiler.schedules.weights import Weights
from automc.compression.operations import Convolve


def convolution(operation: Convolve, context: Context) -> Kernel:
    """The kernel of a convolution that is not depthwise, and whose zeros are not left out."""
    groups, channels = operation.groups, operation.weight.shape[1]
    window = Window.of(operation.weight.shape, operation.dilation, groups)
    panels = chunks(operation.outputs // groups, LANES) * groups
    weights = Weights.of(
        operation, window_rows(operation.weight, window), window.run, path_of(operation, context), panels, False
    )
    numbers = {
        **geometry(operation, context),
        **decoded_weights(weights, len(panels)),
        "channels": channels,
        "group_panels": len(panels) // groups,
        "group_outputs": operation.outputs // groups,
        **value_strides(window, channels),
    }
    open_panel = [
        "const int group = panel / group_panels;",
        "const int channel = group * group_outputs + panel % group_panels * 8;",
        "const int count = (group + 1) * group_outputs - channel, first_channel = group * channels;",
    ]

    def products(pixels: range) -> list[str]:
        return [
            "for (int i = 0; i < rows; i++) for (int j = 0; j < columns; j++) {",
            "  const __global char *w = (const __global char *)(constants + weights) + panel * panel_bytes",
            "    + (i * row_values + j * column_values) * 8;",
            *(f"  TAP({p}, i, j, first_channel);" for p in pixels),
            "  for (int k = 0; k < channels; k++, w += 8) {",
            "    const int8 weight = convert_int8(vload8(0, w));",
            *(f"    sum{p} = mad24((int8)((from{p}[k] - source_zero) & inside{p}), weight, sum{p});" for p in pixels),
            "  }",
            "}",
        ]

    return tiled(
        "dot products", operation, context, weights.path, weights.choice, numbers, len(panels), open_panel, products
    )


def depthwise(operation: Convolve, context: Context) -> Kernel:
    """The kernel of a convolution that gives every channel its own window."""
    channels = operation.outputs
    rows = padded(operation.weight.reshape(channels, -1), STEP).reshape(channels, -1, STEP)
    panels = chunks(channels, LANES)
    weights = Weights.of(
        operation, rows, math.prod(operation.kernel), path_of(operation, context), panels, one_by_one=False
    )
    numbers = {**geometry(operation, context), **decoded_weights(weights, len(panels))}
    open_panel = ["const int channel = panel * 8, count = outputs - channel;"]

    def products(pixels: range) -> list[str]:
        return [
            "const __global char *w = (const __global char *)(constants + weights) + panel * panel_bytes;",
            "for (int i = 0; i < rows; i++) for (int j = 0; j < columns; j++) {",
            "  const int8 weight = convert_int8(vload8(i * columns + j, w));",
            *(
                line
                for p in pixels
                for line in (
                    f"  TAP({p}, i, j, channel);",
                    f"  sum{p} = mad24(centred(from{p}, source_zero) & inside{p}, weight, sum{p});",
                )
            ),
            "}",
        ]

    return tiled(
        "depthwise", operation, context, weights.path, weights.choice, numbers, len(panels), open_panel, products
    )


def tiled(
    title: str,
    operation: Convolve,
    context: Context,
    path: Path,
    choice: Callable[[str, str, int], Choice],
    numbers: Numbers,
    panels: int,
    open_panel: Sequence[str],
    products: Callable[[range], list[str]],
) -> Kernel:
    """The kernel whose items compute tiles of neighbouring pixels, in the order of rows, by panels of `LANES` channels.

    `open_panel` prints which `channel` is an item's first, and `count`, how many are its own; `products` what adds to
    the sums of a tile's pixels. Behind the last pixel, a tile computes it again and does not store it.
    """
    height, width = context.program.output_size(operation)
    pixels = range(path.pixels if height * width >= path.pixels else 1)
    result = Result.of(operation, context)
    body = [
        f"const int panel = item % panels, first = item / panels * {len(pixels)};",
        *open_panel,
        *result.open,
        *(
            f"const int pixel{p} = min(first + {p}, pixels - 1), "
            f"y{p} = pixel{p} / target_width * stride_y - padding_y, "
            f"x{p} = pixel{p} % target_width * stride_x - padding_x;"
            for p in pixels
        ),
        *(f"int8 sum{p} = vload8(panel, (const __global int *)(constants + bias));" for p in pixels),
        *products(pixels),
        *(f"if (first + {p} < pixels) {line}" for p in pixels for line in result.store(f"sum{p}", f"pixel{p}")),
    ]
    tiles = {"panels": panels, "pixels": height * width, "target_width": width}
    chosen = choice(f"{title}, {path.name}{result.title}", f"1x{len(pixels)} x {LANES}", 0)
    items = -(-height * width // len(pixels)) * panels
    return grid(chosen, items, {**numbers, **tiles, **result.numbers}, body)


def value_strides(window: Window, channels: int) -> Numbers:
    """How many values of a panel lie between the rows and between the columns of a window of so many channels."""
    run = window.steps * STEP
    merged = window.run > channels  # the columns lie in one run, without what fills up steps between them
    return {"row_values": run * window.columns, "column_values": channels if merged else run}


def geometry(operation: Convolve, context: Context) -> Numbers:
    """The source, and how windows lie on it."""
    source = context.program.tensors[operation.source]
    return {
        "source": context.interior(operation.source),
        "height": source.height,
        "width": source.width,
        "source_channels": source.channels,
        "source_zero": source.zero_point,
        "rows": operation.kernel[0],
        "columns": operation.kernel[1],
        "stride_y": operation.stride[0],
        "stride_x": operation.stride[1],
        "padding_y": operation.padding[0],
        "padding_x": operation.padding[1],
        "dilation_y": operation.dilation[0],
        "dilation_x": operation.dilation[1],
    }
