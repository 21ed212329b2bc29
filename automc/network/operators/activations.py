"""Activation functions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from automc.network.fold import Activate
from automc.network.graph import Activation, Curve, CurveKind
from automc.network.operators.table import Function, Place, understands
from automc.network.views import Refused, View

# Clamps. They commute with moves: zeros stay zeros.


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


# Curves. Zeros need not stay zeros, so they are computed where they stand.


def _curve(at: Place, x: View, kind: CurveKind) -> View:
    source = at.read(x)
    return at.emit(Curve(at.name(kind), (source.name,), source.shape, kind))


_MODULES: dict[type[nn.Module], CurveKind] = {
    nn.Hardswish: "hardswish", nn.Hardsigmoid: "hardsigmoid", nn.Sigmoid: "sigmoid", nn.SiLU: "silu", nn.Tanh: "tanh",
}  # fmt: skip
_FUNCTIONS: dict[CurveKind, tuple[Any, ...]] = {
    "hardswish": (F.hardswish,),
    "hardsigmoid": (F.hardsigmoid,),
    "sigmoid": (torch.sigmoid, F.sigmoid, "sigmoid", "sigmoid_"),
    "silu": (F.silu,),
    "tanh": (torch.tanh, F.tanh, "tanh", "tanh_"),
}


@understands(*_MODULES)
def _curve_module(at: Place, module: nn.Module, x: View) -> View:
    return _curve(at, x, next(kind for base, kind in _MODULES.items() if isinstance(module, base)))


def _curve_function(kind: CurveKind) -> Function:
    return lambda at, input, inplace=False: _curve(at, input, kind)


for _kind, _names in _FUNCTIONS.items():
    understands(*_names)(_curve_function(_kind))


@understands(nn.GELU)
def _gelu_module(at: Place, module: nn.GELU, x: View) -> View:
    return _gelu(at, x, module.approximate)


@understands(F.gelu)
def _gelu(at: Place, input: View, approximate: str = "none") -> View:
    if approximate != "none":
        raise Refused(f"it approximates by '{approximate}'; set approximate='none', a table makes it no slower")
    return _curve(at, input, "gelu")
