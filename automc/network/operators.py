"""What automc understands of PyTorch: one small function for each operation of a module, in one table.

A function of the table is called with the place where the operation stands and the operation's own arguments (a
module's operation: the module, then what it reads), tensors as `View`s. It gives the `View` of what the operation
writes, or raises `Refused` with the reason. To support a further operation, add its function.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from automc.network.fold import Activate, Normalise
from automc.network.graph import Activation, Add, Concat, Conv, Layer, Pool, Shape
from automc.network.views import Refused, View

Function = Callable[..., Any]
Given = TypeVar("Given", bound=Function)


class Place(Protocol):
    """Where an operation stands in the traced module."""

    size: torch.Size  # of what it writes, two images first

    def name(self, word: str) -> str:
        """A name for a layer: the module's own qualified name, or `word` inside the module that computes it."""

    def emit(self, layer: Layer) -> View:
        """Add a layer; gives the view of its tensor."""

    def read(self, view: View) -> Layer:
        """The layer whose tensor is the view as it stands, adding a gather where values were moved."""


FUNCTIONS: dict[Any, Function] = {}  # by function, method name, or module type


def understands(*targets: Any) -> Callable[[Given], Given]:
    """Enter a function into the table under functions, names of tensor methods, and types of modules."""

    def enter(function: Given) -> Given:
        FUNCTIONS.update(dict.fromkeys(targets, function))
        return function

    return enter


def shape_of(size: torch.Size) -> Shape:
    """Channels, height and width of a tensor of two images; a vector counts as channels."""
    if len(size) not in (2, 4) or size[0] != 2:
        raise Refused(
            f"it writes {tuple(size[1:])} values for each image; maps (c, h, w) and vectors (c) are understood"
        )
    channels, height, width = (*size[1:], 1, 1)[:3]
    return channels, height, width


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _array(values: Tensor | View) -> NDArray[np.float32]:
    if isinstance(values, View):
        raise Refused("its weights are computed from the image; they must be the same for every image")
    return np.ascontiguousarray(values.detach().numpy(), np.float32)


# Layers with weights.


@understands(nn.Conv2d)
def _conv_module(at: Place, module: nn.Conv2d, x: View) -> View:
    if module.padding_mode != "zeros":
        raise Refused(f"its padding mode is '{module.padding_mode}'; only zeros are padded: set padding_mode='zeros'")
    padding: Any = module.padding
    return _conv(at, x, module.weight, module.bias, module.stride, padding, module.dilation, module.groups)


@understands(torch.conv2d, F.conv2d)
def _conv(
    at: Place, input: View, weight: Tensor | View, bias: Tensor | None = None,
    stride: int | Sequence[int] = 1, padding: str | int | Sequence[int] = 0, dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> View:  # fmt: skip
    source, kernel, dilated = at.read(input), _array(weight), _pair(dilation)
    if padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilated, kernel.shape[2:], strict=True)]
        if any(total % 2 for total in reach):
            raise Refused("its padding 'same' differs between the two sides; take an odd kernel")
        padding = [total // 2 for total in reach]
    padded = _pair(0 if isinstance(padding, str) else padding)
    numbers = np.zeros(len(kernel), np.float32) if bias is None else _array(bias)
    layer = Conv(
        at.name("conv"), (source.name,), shape_of(at.size), kernel, numbers, _pair(stride), padded, dilated, groups
    )
    return at.emit(layer)


@understands(nn.Linear)
def _linear_module(at: Place, module: nn.Linear, x: View) -> View:
    return _linear(at, x, module.weight, module.bias)


@understands(F.linear)
def _linear(at: Place, input: View, weight: Tensor | View, bias: Tensor | None = None) -> View:
    if len(input.size) != 2:
        raise Refused(f"it reads a tensor of size {tuple(input.size)}; flatten it first: torch.flatten(x, 1)")
    # However the map was rearranged before, the dense layer is a convolution over the map itself, its columns moved.
    dense = _array(weight)
    columns = np.zeros((int(np.prod(input.layer.shape)) + 1, len(dense)), np.float32)
    np.add.at(columns, input.image(), dense.T)
    kernel = np.ascontiguousarray(columns[1:].T).reshape(len(dense), *input.layer.shape)
    numbers = np.zeros(len(dense), np.float32) if bias is None else _array(bias)
    return at.emit(Conv(at.name("linear"), (input.layer.name,), shape_of(at.size), kernel, numbers))


@understands(nn.BatchNorm2d, nn.BatchNorm1d)
def _batch_norm(at: Place, module: nn.BatchNorm2d, x: View) -> View:
    if module.running_mean is None or module.running_var is None:
        raise Refused("it keeps no running statistics; train with track_running_stats=True")
    source = at.read(x)
    scale = (module.running_var.double() + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * module.weight.double()
    shift = -module.running_mean.double() * scale
    if module.bias is not None:
        shift = shift + module.bias.double()
    return at.emit(
        Normalise(at.name("norm"), (source.name,), source.shape, scale.detach().numpy(), shift.detach().numpy())
    )


# Activations. They commute with moves: zeros stay zeros.


def _activate(at: Place, x: View, activation: Activation) -> View:
    layer = x.layer
    return x.of(at.emit(Activate(at.name(activation), (layer.name,), layer.shape, activation)).layer)


@understands(nn.ReLU, nn.ReLU6)
def _relu_module(at: Place, module: nn.Module, x: View) -> View:
    return _activate(at, x, "relu6" if isinstance(module, nn.ReLU6) else "relu")


@understands(nn.Hardtanh)
def _hardtanh_module(at: Place, module: nn.Hardtanh, x: View) -> View:
    return _clamp(at, x, module.min_val, module.max_val)


@understands(F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
def _relu(at: Place, input: View, inplace: bool = False) -> View:
    return _activate(at, input, "relu")


@understands(F.relu6)
def _relu6(at: Place, input: View, inplace: bool = False) -> View:
    return _activate(at, input, "relu6")


@understands(F.hardtanh, F.hardtanh_)
def _hardtanh(at: Place, input: View, min_val: float = -1, max_val: float = 1, inplace: bool = False) -> View:
    return _clamp(at, input, min_val, max_val)


@understands(torch.clamp, torch.clip, torch.clamp_, "clamp", "clip", "clamp_", "clip_")
def _clamp(at: Place, input: View, min: float | None = None, max: float | None = None) -> View:
    if min != 0 or max not in (None, 6):
        raise Refused(f"it clamps to [{min}, {max}]; only ReLU (from 0) and ReLU6 (0 to 6) are understood")
    return _activate(at, input, "relu" if max is None else "relu6")


# Sums and concatenations.


@understands(operator.add, operator.iadd, torch.add, "add", "add_")
def _add(at: Place, input: View | float, other: View | float, alpha: float = 1) -> View:
    if isinstance(input, View) and isinstance(other, View) and alpha == 1:
        first, second = at.read(input), at.read(other)
        if first.shape == second.shape:
            return at.emit(Add(at.name("add"), (first.name, second.name), first.shape))
        raise Refused(f"it adds tensors of the shapes {first.shape} and {second.shape}; both must have one shape")
    if isinstance(other, View) and isinstance(input, int | float) and input == 0 and alpha == 1:
        return other  # Python's sum() starts with 0
    raise Refused("it adds a constant or a multiple; only sums of two computed tensors are understood")


@understands(torch.cat, torch.concat, torch.concatenate)
def _concat(at: Place, tensors: Sequence[View], dim: int = 0) -> View:
    if not all(isinstance(part, View) for part in tensors):
        raise Refused("it joins a computed tensor with a constant; zeros are padded by F.pad")
    if dim % len(at.size) != 1:
        raise Refused(f"it joins along dimension {dim}; only channels (dim=1) can be joined")
    parts = [at.read(part) for part in tensors]
    return at.emit(Concat(at.name("concat"), tuple(part.name for part in parts), shape_of(at.size)))


# Pooling.


def _pool(at: Place, x: View, kind: str, kernel: Any, stride: Any, padding: Any) -> View:
    source, window, pad = at.read(x), _pair(kernel), _pair(padding)
    step = _pair(stride) if stride else window
    lengths = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(source.shape[1:], pad, window, step, strict=True)]
    shape = shape_of(at.size)
    if shape[1:] != tuple(lengths):
        raise Refused("its last windows reach past the edge; set ceil_mode=False")
    if window == (1, 1) and step == (1, 1):
        alone: View = x.moved(lambda positions: positions.view(at.size))
        return alone
    return at.emit(
        Pool(at.name(f"{kind}_pool"), (source.name,), shape, "mean" if kind == "mean" else "max", window, step, pad)
    )


@understands(nn.MaxPool2d)
def _max_pool_module(at: Place, module: nn.MaxPool2d, x: View) -> View:
    return _max_pool(at, x, module.kernel_size, module.stride, module.padding, module.dilation)


@understands(F.max_pool2d, torch.max_pool2d)
def _max_pool(
    at: Place, input: View, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> View:  # fmt: skip
    if _pair(dilation) != (1, 1):
        raise Refused("its windows are dilated; set dilation=1")
    return _pool(at, input, "max", kernel_size, stride, padding)


@understands(nn.AvgPool2d)
def _mean_pool_module(at: Place, module: nn.AvgPool2d, x: View) -> View:
    settings = (module.ceil_mode, module.count_include_pad, module.divisor_override)
    return _mean_pool(at, x, module.kernel_size, module.stride, module.padding, *settings)


@understands(F.avg_pool2d)
def _mean_pool(
    at: Place, input: View, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> View:  # fmt: skip
    if divisor_override is not None or not (count_include_pad or _pair(padding) == (0, 0)):
        raise Refused("its windows are divided by different numbers; set count_include_pad=True, no divisor_override")
    return _pool(at, input, "mean", kernel_size, stride, padding)


@understands(nn.AdaptiveAvgPool2d)
def _adaptive_pool_module(at: Place, module: nn.AdaptiveAvgPool2d, x: View) -> View:
    return _adaptive_pool(at, x, module.output_size)


@understands(F.adaptive_avg_pool2d)
def _adaptive_pool(at: Place, input: View, output_size: Any) -> View:
    wide, narrow = input.size[2:], at.size[2:]
    if any(large % small for large, small in zip(wide, narrow, strict=True)):
        raise Refused(f"its windows differ in size ({tuple(wide)} to {tuple(narrow)}); choose sizes that divide")
    return _pool(at, input, "mean", [large // small for large, small in zip(wide, narrow, strict=True)], None, 0)


@understands(torch.mean, "mean")
def _mean(at: Place, input: View, dim: Any = None, keepdim: bool = False) -> View:
    if len(input.size) != 4 or not isinstance(dim, tuple | list) or {axis % 4 for axis in dim} != {2, 3}:
        raise Refused("it averages over something else than the whole map: use x.mean((2, 3))")
    return _pool(at, input, "mean", input.size[2:], None, 0)


# What only moves values, or does nothing, is run on the values' positions.


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
    torch.unbind, torch.index_select, torch.flip, torch.clone, F.channel_shuffle, F.pixel_unshuffle,
):  # fmt: skip
    understands(_function)(_moves(_function))
for _method in (
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "movedim", "squeeze", "unsqueeze", "chunk",
    "split", "tensor_split", "narrow", "select", "unbind", "index_select", "flip", "contiguous", "clone", "detach",
):  # fmt: skip
    understands(_method)(_moves(getattr(Tensor, _method)))
for _module in (nn.Flatten, nn.Unflatten, nn.ChannelShuffle, nn.PixelUnshuffle, nn.ZeroPad2d):
    understands(_module)(_moves(lambda module, positions: module(positions)))


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


@understands(
    nn.Softmax, nn.LogSoftmax, F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, "softmax", "log_softmax"
)
def _softmax(at: Place, *arguments: Any, **named: Any) -> View:
    raise Refused("automc takes a network that writes logits; leave the softmax to the loss")
