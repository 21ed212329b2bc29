"""Operations in parts for several threads: each part computes some neighbouring rows of what the operation writes.

A schedule prints a part as it prints the whole: it is shown an operation whose tensors have fewer rows, and begin where
those of the part lie.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from automc.compiler.kernel import Context
from automc.compiler.layout import Layout
from automc.compression.operations import Convolve, Join, Lookup, Operation, Pool, Scale, Select, Sum
from automc.compression.program import Program

LEAST_MACS, LEAST_VALUES = 1 << 17, 1 << 16  # what less than this computes or writes, one thread does alone


def parts_of(operation: Operation, context: Context, threads: int) -> list[Context]:
    """The contexts to schedule an operation in, one for each of at most `threads` parts; its own if it is not cut."""
    tensor = context.program.tensors.get(operation.target)
    rows = tensor.height if tensor is not None and _is_worth_it(operation, context.program) else 1
    count = min(threads, rows)
    bounds = [rows * part // count for part in range(count + 1)]
    parts = [_Part.of(operation, context, first, last) for first, last in pairwise(bounds)] if count > 1 else []
    found: list[Context] = [part for part in parts if part is not None]
    return found if len(found) == count else [context]


def _is_worth_it(operation: Operation, program: Program) -> bool:
    if isinstance(operation, Convolve):
        return program.macs_of(operation) >= LEAST_MACS
    return program.tensors[operation.target].size >= LEAST_VALUES


@dataclass(frozen=True)
class _Rows:
    """The rows of a tensor that a part sees."""

    first: int
    count: int


class _View(Program):
    """A program as a part sees it: only one operation of it makes sense."""

    def validate(self) -> None:
        """Nothing, since no tensor is as high as another operation has it."""


@dataclass(frozen=True, eq=False)
class _Part(Context):
    """A context in which tensors have only some rows; of the tensors that are not named, all."""

    whole: Context
    rows: Mapping[str, _Rows]

    @classmethod
    def of(cls, operation: Operation, whole: Context, first: int, last: int) -> _Part | None:
        """That of the rows from `first` up to `last` of what an operation writes, or nothing where it cannot be cut."""
        rows = _rows(operation, first, last - first)
        if rows is None:
            return None
        tensors = {
            name: dataclasses.replace(tensor, height=rows[name].count) if name in rows else tensor
            for name, tensor in whole.program.tensors.items()
        }
        view = _View(whole.program.name, tensors, whole.program.operations)
        return cls(view, whole.target, whole, rows)

    @cached_property
    def layouts(self) -> Mapping[str, Layout]:
        return {
            name: Layout(self.program.tensors[name], layout.halo, self.rows[name].first if name in self.rows else 0)
            for name, layout in self.whole.layouts.items()
        }

    @cached_property
    def largest_values(self) -> Mapping[str, int]:
        return self.whole.largest_values

    def pixels_of(self, operation: Convolve) -> int:
        return self.whole.pixels_of(operation)  # so that all parts choose the same constants, which they share


def _rows(operation: Operation, first: int, count: int) -> Mapping[str, _Rows] | None:
    """The rows of every tensor for rows of what an operation writes, or nothing where it is not cut.

    Around the rows of the source lie its padding's, as everywhere: those of the halo, or of the neighbouring parts.
    """
    same = _Rows(first, count)
    match operation:
        case Convolve():
            reach = operation.dilation[0] * (operation.kernel[0] - 1) + 1
            found = [(operation.source, _window_rows(same, operation.stride[0], reach, operation.padding[0]))]
            found += [(operation.residual, same)] if operation.residual is not None else []
        case Pool():
            # The kernel of a maximum cuts windows at the border, and would do so at those of the part.
            if operation.kind == "max" and operation.padding[0] > 0:
                return None
            source = _window_rows(same, operation.stride[0], operation.kernel[0], operation.padding[0])
            found = [(operation.source, source)]
        case Select():
            found = [(operation.source, _window_rows(same, operation.stride, 1, 0))]
        case Scale():
            found = [(operation.source, same)]
        case Sum() | Lookup() | Join():
            found = [(name, same) for name in operation.sources]
        case _:
            return None
    rows = dict(found)
    return {**rows, operation.target: same} if all(rows[name] == each for name, each in found) else None


def _window_rows(target: _Rows, stride: int, reach: int, padding: int) -> _Rows:
    return _Rows(target.first * stride, (target.count - 1) * stride + reach - 2 * padding)
