"""The table of what automc understands of PyTorch, and what its functions are given.

A function of the table is called with the place where the operation stands and the operation's own arguments (a
module's operation: the module, then what it reads), tensors as `View`s. It gives the `View` of what the operation
writes, or raises `Refused` with the reason. To support a further operation, add its function to the file of its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automc.network.graph import Layer, Shape
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


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def array(values: Tensor | View) -> NDArray[np.float32]:
    if isinstance(values, View):
        raise Refused("its weights are computed from the image; they must be the same for every image")
    return np.ascontiguousarray(values.detach().numpy(), np.float32)
