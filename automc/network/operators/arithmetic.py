"""Sums, differences, products and concatenations of tensors."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automc.network.fold import Normalise
from automc.network.graph import Add, Concat, Multiply
from automc.network.operators.table import Place, shape_of, understands
from automc.network.views import Refused, View

Operand = View | Tensor | float


def _affine(at: Place, word: str, x: View, scale: Tensor | float, shift: Tensor | float) -> View:
    """`scale * x + shift`, with constants that are one number, or one for each channel."""
    source = at.read(x)
    numbers = [_by_channel(constant, x.size) for constant in (scale, shift)]
    return at.emit(Normalise(at.name(word), (source.name,), source.shape, *numbers))


def _by_channel(constant: Tensor | float, size: torch.Size) -> NDArray[np.float64]:
    values = torch.as_tensor(constant, dtype=torch.float64)
    try:
        rows = values.expand(size)[0].flatten(1) if len(size) > 2 else values.expand(size)[0][:, None]
    except RuntimeError:
        raise Refused(
            f"its constant of size {tuple(values.shape)} does not fit a tensor of size {tuple(size)}"
        ) from None
    if (rows != rows[:, :1]).any():
        raise Refused("its constant differs from pixel to pixel; one number, or one for each channel, is understood")
    numbers: NDArray[np.float64] = rows[:, 0].detach().numpy()
    return numbers


@understands(operator.add, operator.iadd, torch.add, "add", "add_")
def _add(at: Place, input: Operand, other: Operand, alpha: float = 1) -> View:
    if not isinstance(input, View):
        if isinstance(input, int | float) and input == 0 and alpha == 1 and isinstance(other, View):
            return other  # Python's sum() starts with 0
        return _affine(at, "add", _view(other), alpha, input)
    if not isinstance(other, View):
        return _affine(at, "add", input, 1, alpha * other)
    if input.size != other.size:
        raise Refused(
            f"it adds tensors of the shapes {tuple(input.size[1:])} and {tuple(other.size[1:])}; "
            "both must have one shape"
        )
    first, second = at.read(input), at.read(other if alpha == 1 else _affine(at, "scale", other, alpha, 0))
    if first.shape != second.shape:
        raise Refused(f"it adds tensors of the shapes {first.shape} and {second.shape}; both must have one shape")
    return at.emit(Add(at.name("add"), (first.name, second.name), first.shape))


@understands(operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_")
def _subtract(at: Place, input: Operand, other: Operand, alpha: float = 1) -> View:
    return _add(at, input, other, -alpha) if isinstance(other, View) else _add(at, input, -alpha * other)


@understands(operator.neg, torch.neg, "neg")
def _negate(at: Place, input: View) -> View:
    return _affine(at, "scale", input, -1, 0)


@understands(operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_")
def _multiply(at: Place, input: Operand, other: Operand) -> View:
    if not isinstance(input, View):
        input, other = _view(other), input
    if not isinstance(other, View):
        return _affine(at, "scale", input, other, 0)
    values, gains = at.read(input), at.read(other)
    if values.shape == (gains.shape[0], 1, 1):
        values, gains = gains, values
    if gains.shape != (values.shape[0], 1, 1):
        raise Refused(
            f"it multiplies tensors of the shapes {values.shape} and {gains.shape}; a map can be multiplied by gains "
            "of (channels, 1, 1), as in squeeze-and-excitation. For x * f(x) use nn.SiLU or nn.Hardswish"
        )
    return at.emit(Multiply(at.name("scale"), (values.name, gains.name), values.shape))


@understands(operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_")
def _divide(at: Place, input: Operand, other: Operand) -> View:
    if isinstance(other, View) or not isinstance(input, View):
        raise Refused("it divides by a computed tensor; only division by a constant is understood")
    return _affine(at, "scale", input, 1 / other, 0)


@understands("expand_as")
def _expand_as(at: Place, input: View, other: View) -> View:
    if input.size != other.size and input.size != (*other.size[:2], 1, 1):
        raise Refused("only gains of (channels, 1, 1) can be expanded to a map")
    return input  # what multiplies by it does so


def _view(operand: Operand) -> View:
    assert isinstance(operand, View)  # an operation of constants alone is known without an image
    return operand


@understands(torch.cat, torch.concat, torch.concatenate)
def _concat(at: Place, tensors: Sequence[View], dim: int = 0) -> View:
    if not all(isinstance(part, View) for part in tensors):
        raise Refused("it joins a computed tensor with a constant; zeros are padded by F.pad")
    if dim % len(at.size) != 1:
        raise Refused(f"it joins along dimension {dim}; only channels (dim=1) can be joined")
    parts = [at.read(part) for part in tensors]
    return at.emit(Concat(at.name("concat"), tuple(part.name for part in parts), shape_of(at.size)))
