"""The float32 forward pass over a traced network's layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from automc.network.curves import CURVES
from automc.network.graph import Activation, Add, Concat, Conv, Curve, Gather, Input, Layer, Multiply, Pool, Shuffle


@torch.no_grad()
def forward(layers: Sequence[Layer], images: Tensor) -> dict[str, Tensor]:
    """Every layer's tensor, `n x c x h x w` float32, for normalised `images`, `n x c x h x w`."""
    return {layer.name: after for layer, _, _, after in walk(layers, images)}


def walk(layers: Sequence[Layer], images: Tensor) -> Iterator[tuple[Layer, list[Tensor], Tensor, Tensor]]:
    """Each layer with what it reads, and what it computes before and after its activation; all `n x c x h x w`.

    Tensors that no later layer reads are let go.
    """
    last_reader = {name: layer for layer in layers for name in layer.inputs}
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        sources = [tensors[name] for name in layer.inputs]
        before = images if isinstance(layer, Input) else _compute(layer, sources)
        after = activate(before, layer.activation) if isinstance(layer, Conv | Add) else before
        tensors[layer.name] = after
        yield layer, sources, before, after
        for name in set(layer.inputs):
            if last_reader[name] is layer:
                del tensors[name]


def _compute(layer: Layer, sources: list[Tensor]) -> Tensor:
    """What the layer computes before its activation."""
    source = sources[0]
    match layer:
        case Conv():
            weight, bias = torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
            return F.conv2d(source, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
        case Add():
            return source + sources[1]
        case Concat():
            return torch.cat(sources, 1)
        case Gather():
            padded = F.pad(source[:, :, :: layer.stride, :: layer.stride], (0, 0, 0, 0, 0, 1))
            return padded[:, list(layer.index)]  # -1 is the channel of zeros that the padding put last
        case Pool(kind="mean"):
            return F.avg_pool2d(source, layer.kernel, layer.stride, layer.padding)
        case Pool():
            return F.max_pool2d(source, layer.kernel, layer.stride, layer.padding)
        case Curve():
            return CURVES[layer.kind](source)
        case Multiply():
            return source * sources[1]
        case Shuffle():
            return F.pixel_shuffle(source, layer.factor)
        case _:
            raise TypeError(f"no forward pass for {type(layer).__name__} {layer.name}")


def activate(values: Tensor, activation: Activation) -> Tensor:
    """`values` after a layer's activation function."""
    if activation == "none":
        return values
    return values.clamp(0, 6 if activation == "relu6" else None)
