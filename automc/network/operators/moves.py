"""What only moves values, or does nothing; it is run on the values' positions."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from automc.network.graph import Shuffle
from automc.network.operators.table import Function, Place, shape_of, understands
from automc.network.views import Refused, View


def _moves(call: Function) -> Function:
    def move(at: Place, *arguments: Any, **named: Any) -> Any:
        views = [leaf for leaf in pytree.tree_leaves((arguments, named)) if isinstance(leaf, View)]
        if len(views) != 1:
            raise Refused("where it moves values depends on other values")

        def on_positions(positions: Tensor) -> Any:
            given, options = pytree.tree_map_only(View, lambda _: positions, (arguments, named))
            return call(*given, **options)

        return views[0].moved(on_positions)

    return move


@understands(operator.getitem)
def _getitem(at: Place, values: Any, index: Any) -> Any:
    return values.moved(lambda positions: positions[index]) if isinstance(values, View) else values[index]


for _function in (
    torch.flatten, torch.unflatten, torch.reshape, torch.permute, torch.transpose, torch.movedim,
    torch.squeeze, torch.unsqueeze, torch.chunk, torch.split, torch.tensor_split, torch.narrow, torch.select,
    torch.unbind, torch.index_select, torch.repeat_interleave, torch.flip, torch.clone, F.channel_shuffle,
    F.pixel_unshuffle,
):  # fmt: skip
    understands(_function)(_moves(_function))
for _method in (
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "movedim", "squeeze", "unsqueeze", "chunk",
    "split", "tensor_split", "narrow", "select", "unbind", "index_select", "repeat_interleave", "flip",
    "contiguous", "clone", "detach",
):  # fmt: skip
    understands(_method)(_moves(getattr(Tensor, _method)))
for _module in (nn.Flatten, nn.Unflatten, nn.ChannelShuffle, nn.PixelUnshuffle, nn.ZeroPad2d):
    understands(_module)(_moves(lambda module, positions: module(positions)))


@understands(nn.PixelShuffle)
def _pixel_shuffle_module(at: Place, module: nn.PixelShuffle, x: View) -> View:
    return _pixel_shuffle(at, x, module.upscale_factor)


@understands(F.pixel_shuffle, torch.pixel_shuffle)
def _pixel_shuffle(at: Place, input: View, upscale_factor: int) -> View:
    source = at.read(input)
    return at.emit(Shuffle(at.name("shuffle"), (source.name,), shape_of(at.size), upscale_factor))


@understands(F.pad, "pad")
def _pad(at: Place, input: View, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> View:
    if mode != "constant" or value:
        raise Refused(f"it pads with mode '{mode}' and value {value}; only zeros can be padded")
    padded: View = input.moved(lambda positions: F.pad(positions, list(pad)))
    return padded


@understands(nn.Identity, nn.Dropout, nn.Dropout2d)
def _nothing_module(at: Place, module: nn.Module, x: View) -> View:
    return x


@understands(F.dropout, F.dropout2d)
def _dropout(at: Place, input: View, p: float = 0.5, training: bool = True, inplace: bool = False) -> View:
    if training:
        raise Refused("it drops values in evaluation too; pass training=self.training")
    return input
