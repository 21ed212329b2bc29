"""Views: how values of one layer's tensor are moved about (sliced, padded, flattened ...) before a layer reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from automc.network.graph import Layer


class Refused(Exception):
    """An operation of the module that automc cannot express; the message says why, and what to do."""


@dataclass(frozen=True)
class View:
    """What an operation of the module reads: a layer's tensor, its values perhaps moved about.

    `size` is what the module sees: two images first, so that whatever mixes the images of a batch, or holds for a
    batch of one only, shows. `positions` has this size: 0 for a zero, else 1 + the place of the value in the two
    images' tensors. None stands for the tensor as it is.
    """

    layer: Layer
    size: torch.Size
    positions: Tensor | None = None

    def moved(self, move: Callable[[Tensor], Any]) -> Any:
        """This view after `move`, an operation that only moves values: it is run on the positions themselves."""
        positions = torch.arange(1, self.size.numel() + 1).view(self.size) if self.positions is None else self.positions
        return pytree.tree_map_only(Tensor, lambda moved: View(self.layer, moved.shape, moved), move(positions))

    def of(self, layer: Layer) -> View:
        """The same view of another layer with a tensor of the same shape."""
        return View(layer, self.size, self.positions)

    def image(self) -> NDArray[np.int64]:
        """The positions of one image, without the dimension of images."""
        if self.positions is None:
            return np.arange(1, int(np.prod(self.layer.shape)) + 1).reshape(tuple(self.size[1:]))
        length = int(np.prod(self.layer.shape))
        shown: NDArray[np.int64] = self.positions.numpy()
        if (
            shown.ndim < 2
            or len(shown) != 2
            or not np.array_equal(shown[1], np.where(shown[0] > 0, shown[0] + length, 0))
        ):
            raise Refused("it mixes the images of a batch; keep the first dimension as it is")
        first: NDArray[np.int64] = shown[0]
        return first

    def gather(self) -> tuple[tuple[int, ...], int] | None:
        """The view as channels by index (-1 for zeros) and a stride; None where it is the tensor as it is.

        Raises `Refused` where values are moved in a way that no gather of whole channels expresses.
        """
        channels, height, width = self.layer.shape
        image = self.image()
        if image.size == 0:
            raise Refused(f"it reads none of the values of {self.layer.name}; leave the empty tensor out")
        shown = image if image.ndim == 3 else image.reshape(image.shape[0], 1, 1) if image.ndim == 1 else None
        everything = np.arange(1, channels * height * width + 1).reshape(channels, height, width)
        if shown is not None and np.array_equal(shown, everything):
            return None
        for stride in range(1, max(height, width) + 1):
            grid = everything[:, ::stride, ::stride]
            if shown is not None and shown.shape[1:] == grid.shape[1:]:
                index = (shown[:, 0, 0] - 1) // (height * width)
                if np.array_equal(shown, np.where(index[:, None, None] < 0, 0, grid[index])):
                    return tuple(int(channel) for channel in index), stride
        raise Refused(
            f"it reads {self.layer.name} after its values were moved in a way that is neither a choice of channels "
            "(with zeros between them) nor of every s-th pixel; pad and crop inside a convolution or a pooling"
        )
