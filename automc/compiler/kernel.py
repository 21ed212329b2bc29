"""What a schedule hands to the emitter: one C function, and what it is called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automc.compiler.bounds import largest_values
from automc.compiler.huffman import huffman_encode
from automc.compiler.isa import Target
from automc.compiler.layout import Layout, layouts
from automc.compression.operations import Convolve
from automc.compression.program import Program


class Own(Enum):
    """Pieces of the arena that belong to one kernel."""

    SCRATCH = "lives only while its kernel runs"
    EXPANDED = "holds weights from `init` on"


@dataclass(frozen=True)
class Place:
    """A piece of the arena and an offset in bytes: a tensor, the logits, or one of the kernel's own."""

    name: str | Own
    offset: int = 0


@dataclass(frozen=True, eq=False)
class Constant:
    """An array of the library: int8, uint8, int16, int32 or float32."""

    array: NDArray[Any]

    @property
    def stored(self) -> NDArray[Any]:
        """What lies in the library."""
        return self.array


@dataclass(frozen=True, eq=False)
class Coded(Constant):
    """Bytes that lie in the library as Huffman codes, and that `init` expands into the arena."""

    alphabets: int = 1  # 2 where the bytes are pairs

    @cached_property
    def stored(self) -> NDArray[Any]:
        return huffman_encode(self.array, self.alphabets)


@dataclass(frozen=True, eq=False)
class Decoded(Constant):
    """Weights that `init` decodes for the device of an OpenCL library; `form` is how their bytes are stored.

    `code` is C that fills `size_bytes` bytes at `scratch` from `stored`, whose Huffman codes are expanded by then, and
    from `others` by their names.
    """

    form: Constant
    size_bytes: int
    code: str
    others: Mapping[str, NDArray[Any]]
    helpers: Mapping[str, str]  # C functions by name

    @property
    def stored(self) -> NDArray[Any]:
        return self.form.stored

    @property
    def expanded_bytes(self) -> int:
        """What its Huffman codes take when they are expanded."""
        return self.array.nbytes if isinstance(self.form, Coded) else 0


Argument = Place | Constant | str  # a string is C text

SCRATCH = Place(Own.SCRATCH)


@dataclass(frozen=True)
class Choice:
    """What the compiler decided for one operation, for people."""

    kernel: str  # the schedule and the path that it multiplies by
    storage: str = ""  # how the weights are stored
    tile: str = ""  # pixels x output channels that stay in registers
    widened_every: int = 0  # steps between widenings of the partial sums; 0 where there are none
    weight_bytes: int = 0  # stored weights, biases and multipliers


@dataclass(frozen=True, eq=False)
class Kernel:
    """One operation as C. `code` defines the function `NAME`; equal codes become one function."""

    code: str
    arguments: tuple[Argument, ...]
    choice: Choice
    helpers: Mapping[str, str] = field(default_factory=dict)  # further C functions by name
    scratch_bytes: int = 0
    items: int = 0  # work items of a kernel in OpenCL C
    in_place: bool = False  # whether it may write its target over its residual: each value is read once, just before

    @property
    def expanded_bytes(self) -> int:
        """What the kernel's coded weights take in the arena."""
        return sum(argument.array.nbytes for argument in self.arguments if isinstance(argument, Coded))


@dataclass(frozen=True, eq=False)
class Context:
    """What a schedule may look at besides its operation."""

    program: Program
    target: Target

    @cached_property
    def layouts(self) -> Mapping[str, Layout]:
        return layouts(self.program, halos=self.target.language == "C")

    @cached_property
    def largest_values(self) -> Mapping[str, int]:
        return largest_values(self.program)

    def pixels_of(self, operation: Convolve) -> int:
        """How many pixels a convolution writes; all of them, where this is the context of a part."""
        rows, columns = self.program.output_size(operation)
        return rows * columns

    def interior(self, name: str) -> Place:
        """The first pixel of a tensor, or the logits."""
        layout = self.layouts.get(name)
        return Place(name, layout.start() if layout else 0)


def literal(value: float) -> str:
    """A binary32 number as C text, exactly."""
    return f"{float(np.float32(value)).hex()}f"


def signature(*parameters: str) -> str:
    """The head of a kernel's definition."""
    return f"static NOINLINE void NAME({', '.join(parameters)}) {{"


def padded(values: NDArray[Any], multiple: int) -> NDArray[Any]:
    """`values` with zeros behind its last axis, up to a multiple."""
    missing = -values.shape[-1] % multiple
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])


def chunks(count: int, size: int) -> list[int]:
    """`count` cut into full pieces of `size` and what remains."""
    return [size] * (count // size) + ([count % size] if count % size else [])
