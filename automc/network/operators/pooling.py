"""Averages and maxima."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from automc.network.graph import Pool
from automc.network.operators.table import Place, pair, shape_of, understands
from automc.network.views import Refused, View


def _pool(at: Place, x: View, kind: str, kernel: Any, stride: Any, padding: Any) -> View:
    source, window, pad = at.read(x), pair(kernel), pair(padding)
    step = pair(stride) if stride else window
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
    if pair(dilation) != (1, 1):
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
    if divisor_override is not None or not (count_include_pad or pair(padding) == (0, 0)):
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
