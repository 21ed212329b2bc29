"""Convolutions, dense layers, batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automc.network.fold import Normalise
from automc.network.graph import Conv
from automc.network.operators.table import Place, array, pair, shape_of, understands
from automc.network.views import Refused, View


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
    source, kernel, dilated = at.read(input), array(weight), pair(dilation)
    if padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilated, kernel.shape[2:], strict=True)]
        if any(total % 2 for total in reach):
            raise Refused("its padding 'same' differs between the two sides; take an odd kernel")
        padding = [total // 2 for total in reach]
    padded = pair(0 if isinstance(padding, str) else padding)
    numbers = np.zeros(len(kernel), np.float32) if bias is None else array(bias)
    layer = Conv(
        at.name("conv"), (source.name,), shape_of(at.size), kernel, numbers, pair(stride), padded, dilated, groups
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
    dense = array(weight)
    columns = np.zeros((int(np.prod(input.layer.shape)) + 1, len(dense)), np.float32)
    np.add.at(columns, input.image(), dense.T)
    kernel = np.ascontiguousarray(columns[1:].T).reshape(len(dense), *input.layer.shape)
    numbers = np.zeros(len(dense), np.float32) if bias is None else array(bias)
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
