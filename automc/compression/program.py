"""`Program`: the integer program that is the meaning of a compressed network.

Arithmetic, the same on every target: an int32 accumulator (bias included) becomes binary32, is multiplied once by a
binary32 number, clamped, rounded to the nearest even integer, and the zero-point is added. Stored values are unsigned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from automc.errors import CorruptFile
from automc.files import canonical_json, write_atomic

MULTIPLIER_RANGE = (2.0**-30, 2.0**8)  # so that no product is subnormal, and flushing subnormals changes nothing

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Tensor:
    """A stored tensor: values in [0, 2^bits - 1]; the real value is `scale * (stored - zero_point)`.

    Padding around it holds the zero-point.
    """

    name: str
    channels: int
    height: int
    width: int
    bits: int
    scale: float
    zero_point: int

    @property
    def size(self) -> int:
        return self.channels * self.height * self.width


@dataclass(frozen=True, eq=False)
class Operation:
    """One step; it writes the tensor `target`."""

    target: str

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensors that it reads."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Quantise(Operation):
    """uint8 pixels to the first tensor: `target[c] = table[c][pixel[c]]`. table: `channels x 256` uint8."""

    table: NDArray[np.uint8]

    @property
    def sources(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class Convolve(Operation):
    """Convolution, and the dense layer as the one whose kernel covers its input.

    `acc = bias[o] + sum weight[o] * source`, over stored values: the bias holds `-zero_point * sum(weight[o])`.
    `v = float32(acc) * multiplier[o]`, plus, with a residual, `float32(residual - its zero_point) *
    residual_multiplier`, each operation rounded to binary32. The target is `rint(clamp(v, low - z, high - z)) + z` with
    the target's zero-point `z`. The program's last convolution writes `v` itself: its target is no stored tensor.

    weight: `out x in/groups x kh x kw` int8 in +-(2^(weight_bits-1) - 1), bias: `out` int32, multiplier: `out` float32.
    """

    source: str
    weight: Int8
    weight_bits: int
    bias: Int32
    multiplier: Float32
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    low: int
    high: int
    residual: str | None = None
    residual_multiplier: float = 0.0

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,) if self.residual is None else (self.source, self.residual)

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[0])

    @property
    def kernel(self) -> tuple[int, int]:
        return int(self.weight.shape[2]), int(self.weight.shape[3])


@dataclass(frozen=True, eq=False)
class Sum(Operation):
    """Two tensors added: `v = float32(a - za) * ma + float32(b - zb) * mb`, then as in `Convolve`."""

    first: str
    second: str
    multipliers: tuple[float, float]
    low: int
    high: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.first, self.second)


@dataclass(frozen=True, eq=False)
class Join(Operation):
    """Concatenation: each source is requantised by its multiplier, `rint(clamp(float32(a - za) * m, ...)) + z`.

    A source of the target's scale and zero-point has the multiplier 1.0 and is copied.
    """

    parts: tuple[str, ...]
    multipliers: tuple[float, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        return self.parts


@dataclass(frozen=True, eq=False)
class Select(Operation):
    """Channels by `index`, -1 for the zero-point, of every `stride`-th pixel. Scale and zero-point are the source's."""

    source: str
    index: tuple[int, ...]
    stride: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


@dataclass(frozen=True, eq=False)
class Pool(Operation):
    """Windows of the source: their maximum, or `acc = sum (source - zero_point)`, then as in `Convolve`.

    In a mean, padding counts as zeros and the division is part of the multiplier. In a maximum it is left out, and
    scale and zero-point are the source's.
    """

    source: str
    kind: Literal["mean", "max"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    multiplier: float
    low: int
    high: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


_OPERATIONS: dict[str, type[Operation]] = {kind.__name__: kind for kind in (Quantise, Convolve, Sum, Join, Select, Pool)}


@dataclass(frozen=True, eq=False)
class Program:
    """Operations in order: first `Quantise`, last the `Convolve` that writes the logits (float32, `outputs`)."""

    name: str
    tensors: Mapping[str, Tensor]
    operations: tuple[Operation, ...]

    @property
    def input(self) -> Tensor:
        """The tensor that the pixels become; the pixels have its shape."""
        return self.tensors[self.operations[0].target]

    @property
    def result(self) -> Convolve:
        """The operation that writes the logits."""
        last = self.operations[-1]
        assert isinstance(last, Convolve)
        return last

    @property
    def outputs(self) -> int:
        """How many logits there are."""
        return self.result.outputs

    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        total = 0
        for operation in self.operations:
            if isinstance(operation, Convolve):
                height, width = self.output_size(operation)
                total += int(operation.weight.size) * height * width
        return total

    def output_size(self, operation: Convolve) -> tuple[int, int]:
        """Height and width of what a convolution writes."""
        source = self.tensors[operation.source]
        sizes = []
        for axis, length in enumerate((source.height, source.width)):
            reach = operation.dilation[axis] * (operation.kernel[axis] - 1) + 1
            sizes.append((length + 2 * operation.padding[axis] - reach) // operation.stride[axis] + 1)
        return sizes[0], sizes[1]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that the program computes."""
        header, arrays = _flatten(self)
        digest = hashlib.sha256(header.encode())
        for name in sorted(arrays):
            digest.update(arrays[name].tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write the program as one safetensors file."""
        from safetensors.numpy import save

        header, arrays = _flatten(self)
        write_atomic(path, save(arrays, {"program": header, "fingerprint": self.fingerprint}))

    @classmethod
    def load(cls, path: Path) -> Program:
        """Read a saved program. Raises `CorruptFile` where its content is not what was written."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as stored:
                metadata = stored.metadata()
                arrays = {name: stored.get_tensor(name) for name in stored.keys()}
            program = _unflatten(json.loads(metadata["program"]), arrays)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CorruptFile(f"{path} is not a program of automc: {error}") from error
        if program.fingerprint != metadata["fingerprint"]:
            raise CorruptFile(f"{path} was changed after automc wrote it")
        return program


def _flatten(program: Program) -> tuple[str, dict[str, NDArray[Any]]]:
    arrays: dict[str, NDArray[Any]] = {}
    operations = []
    for position, operation in enumerate(program.operations):
        record: dict[str, Any] = {"kind": type(operation).__name__}
        for entry in fields(operation):
            value = getattr(operation, entry.name)
            if isinstance(value, np.ndarray):
                arrays[f"{position:04d}.{entry.name}"] = np.ascontiguousarray(value)
            else:
                record[entry.name] = value
        operations.append(record)
    tensors = [vars(tensor) for tensor in program.tensors.values()]
    return canonical_json({"name": program.name, "tensors": tensors, "operations": operations}), arrays


def _unflatten(header: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Program:
    operations = []
    for position, record in enumerate(header["operations"]):
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
        kind = _OPERATIONS[values.pop("kind")]
        prefix = f"{position:04d}."
        values |= {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        operations.append(kind(**values))
    tensors = {record["name"]: Tensor(**record) for record in header["tensors"]}
    return Program(header["name"], tensors, tuple(operations))
