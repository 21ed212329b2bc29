"""A network in plain text: its layers, which channels leave together, and what is kept as it is."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from automc.network.graph import Add, Conv, Curve, Group, Layer, Network, Pool


def describe(network: Network) -> str:
    """What automc understood of `network`, for a person to read."""
    group_of = {name: group.name for group in network.groups for name in group.members}
    header = ("layer", "kind", "output", "kernel", "MACs", "parameters", "group")
    rows = [_row(network, layer, group_of.get(layer.name, "")) for layer in network.layers]
    return "\n".join(
        [
            str(network),
            "",
            *_table([header, *rows], right=(4, 5)),
            "",
            "Channels that leave together:",
            *(f"  {_sentence(group)}" for group in network.groups if group.prunable),
            "",
            "Weights that can be quantised:",
            *_listing([layer.name for layer in network.convs]),
            "Tensors that can be quantised:",
            *_listing(network.quantised_tensors),
            "",
            "Kept as it is:",
            *(f"  {line}" for line in _kept(network)),
        ]
    )


def _row(network: Network, layer: Layer, group: str) -> tuple[str, ...]:
    kernel = macs = parameters = ""
    if isinstance(layer, Conv):
        macs, parameters = f"{layer.macs:,}", f"{layer.weight.size + layer.bias.size:,}"
    if isinstance(layer, Conv | Pool):
        kernel = f"{layer.kernel[0]} x {layer.kernel[1]}"
        if layer.stride != (1, 1):
            kernel += f" / {layer.stride[0]}" if layer.stride[0] == layer.stride[1] else f" / {layer.stride}"
    return layer.name, _kind(network, layer), " x ".join(map(str, layer.shape)), kernel, macs, parameters, group


def _kind(network: Network, layer: Layer) -> str:
    if isinstance(layer, Conv):
        kind: str = layer.kind
        kind += f" in {layer.groups} sets" if layer.groups > 1 and not layer.is_depthwise else ""
    elif isinstance(layer, Pool):
        kind = f"{layer.kind} pool"
    elif isinstance(layer, Curve):
        kind = layer.kind
    elif isinstance(layer, Add) and layer.name in network.fused_sums:
        kind = f"sum in {network.fused_sums[layer.name]}"
    else:
        words = {"Add": "sum", "Gather": "channels", "Multiply": "gains", "Shuffle": "pixel shuffle"}
        kind = words.get(type(layer).__name__, type(layer).__name__.lower())
    activation = getattr(layer, "activation", "none")
    return kind if activation == "none" else f"{kind}, {activation}"


def _sentence(group: Group) -> str:
    together = "alone" if len(group.members) == 1 else "removed together"
    return f"{', '.join(group.members)}: {group.slots} channels, {together}"


def _kept(network: Network) -> list[str]:
    """Why something is not compressed, a line each."""
    reasons = [
        f"{', '.join(group.members)}: all channels stay; {group.reason}" for group in network.groups if group.reason
    ]
    return [*reasons, *network.notes] or ["nothing"]


def _listing(names: Sequence[str]) -> list[str]:
    text = f"{len(names)}: {', '.join(names)}"
    return textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _table(rows: Sequence[tuple[str, ...]], right: tuple[int, ...]) -> list[str]:
    """Rows as aligned lines; the columns in `right` end at one place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return lines
