"""Where a tensor's values lie in memory: rows of pixels of channels, with a halo that holds the zero-point.

Channels stay as many as they are: kernels store exact counts, and pad a window's values with weights that are zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from automc.compression.operations import Convolve, Pool, Tensor
from automc.compression.program import Program


@dataclass(frozen=True)
class Layout:
    """A tensor in memory: uint8 `(halo + height + halo) x (halo + width + halo) x channels`."""

    tensor: Tensor
    halo: tuple[int, int]  # rows above and below, pixels left and right
    first_row: int = 0  # of the tensor in memory, where this is some of its rows

    @property
    def row_bytes(self) -> int:
        return (self.tensor.width + 2 * self.halo[1]) * self.tensor.channels

    @property
    def size_bytes(self) -> int:
        return (self.tensor.height + 2 * self.halo[0]) * self.row_bytes

    def start(self, padding: tuple[int, int] = (0, 0)) -> int:
        """The offset of pixel (0, 0), or of the first pixel of its `padding`, which the halo must have room for."""
        assert padding[0] <= self.halo[0]
        assert padding[1] <= self.halo[1]
        return (self.first_row + self.halo[0] - padding[0]) * self.row_bytes + (
            self.halo[1] - padding[1]
        ) * self.tensor.channels


def layouts(program: Program, halos: bool = True) -> Mapping[str, Layout]:
    """The layout of every stored tensor: its halo is as wide as the widest padding that an operation reads it with.

    Without `halos`, nothing lies around the tensors, and kernels leave out what a window has outside.
    """
    around = dict.fromkeys(program.tensors, (0, 0))
    for operation in program.operations if halos else ():
        if isinstance(operation, Convolve) or (isinstance(operation, Pool) and operation.kind == "mean"):
            known, padding = around[operation.source], operation.padding
            around[operation.source] = (max(known[0], padding[0]), max(known[1], padding[1]))
    return {name: Layout(tensor, around[name]) for name, tensor in program.tensors.items()}
