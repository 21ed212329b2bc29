"""`Program`: the integer program that is the meaning of a compressed network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automc.compression.operations import (
    OPERATIONS,
    Convolve,
    Dequantise,
    Operation,
    Quantise,
    Tensor,
    window_counts,
)
from automc.errors import CorruptFile, InvalidProgram
from automc.files import canonical_json, write_atomic

_RESULTS = (Convolve, Dequantise)  # what can be the last operation


@dataclass(frozen=True, eq=False)
class Program:
    """Operations in order: first `Quantise`, last the one that writes `outputs` float32 results.

    The last is a `Convolve`, whose results are logits, or `Dequantise`, whose results are a map, flat in the order
    `height x width x channels`.
    """

    name: str
    tensors: Mapping[str, Tensor]
    operations: tuple[Operation, ...]

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Check every rule that makes the program mean the same on every target; construction does it.

        Raises `InvalidProgram` naming the operation and the rule that it breaks.
        """
        _require_frame(self)
        written: set[str] = set()
        for operation in self.operations:
            title = f"{self.name}: {type(operation).__name__} '{operation.target}'"
            for source in operation.sources:
                if source not in written:
                    raise InvalidProgram(f"{title} reads '{source}' before it is written")
            if operation.target in written:
                raise InvalidProgram(f"{title} writes a tensor that is already written")
            try:
                if operation is not self.operations[-1]:
                    self.tensors[operation.target].check()
                operation.check(self.tensors)
            except InvalidProgram as fault:
                raise InvalidProgram(f"{title}: {fault}") from None
            written.add(operation.target)

    @property
    def input(self) -> Tensor:
        """The tensor that the pixels become; the pixels have its shape."""
        return self.tensors[self.operations[0].target]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images that it takes."""
        return self.input.height, self.input.width, self.input.channels

    @property
    def result(self) -> Operation:
        """The operation that writes the results."""
        return self.operations[-1]

    @property
    def outputs(self) -> int:
        """How many float32 results an image gives."""
        return self.result.results(self.tensors)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image, as `Cost` counts them for a policy."""
        return sum(self.macs_of(operation) for operation in self.operations if isinstance(operation, Convolve))

    def macs_of(self, operation: Convolve) -> int:
        """The multiply-accumulates of one convolution that every target computes.

        Removed channels and blocks of zeros save them everywhere. Single zeros and closed gates do not: some targets
        skip the products of some of them, and what that is worth their latency tables say.
        """
        height, width = self.output_size(operation)
        return operation.multiplied_weights * height * width

    def output_size(self, operation: Convolve) -> tuple[int, int]:
        """Height and width of what a convolution writes."""
        source = self.tensors[operation.source]
        return window_counts(source, operation.kernel, operation.stride, operation.padding, operation.dilation)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that the program computes."""
        header, arrays = _flatten(self)
        digest = hashlib.sha256(header.encode())
        for name in sorted(arrays):
            array = arrays[name]
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write the program as one safetensors file."""
        from safetensors.numpy import save

        header, arrays = _flatten(self)
        # One entry alone: safetensors writes several in an order that differs from run to run.
        seal = canonical_json({"program": header, "fingerprint": self.fingerprint})
        write_atomic(path, save(arrays, {"automc": seal}))

    @classmethod
    def load(cls, path: Path) -> Program:
        """Read a saved program. Raises `CorruptFile` where its content is not what was written."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as stored:
                seal = json.loads(stored.metadata()["automc"])
                names = stored.keys()
                arrays = {name: stored.get_tensor(name) for name in names}
            program = _unflatten(json.loads(seal["program"]), arrays)
            sealed = seal["fingerprint"]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CorruptFile(f"{path} is not a program of automc: {error}") from error
        if program.fingerprint != sealed:
            raise CorruptFile(f"{path} was changed after automc wrote it, or another version of automc wrote it")
        return program


def _require_frame(program: Program) -> None:
    """The first operation quantises, the last can give results, and every other writes one of the tensors."""
    kinds = [type(operation) for operation in program.operations]
    if len(kinds) < 2 or kinds[0] is not Quantise or kinds.count(Quantise) != 1 or kinds[-1] not in _RESULTS:
        names = " or a ".join(kind.__name__ for kind in _RESULTS)
        raise InvalidProgram(f"{program.name}: must begin with its only Quantise and end with a {names}")
    for name, tensor in program.tensors.items():
        if tensor.name != name:
            raise InvalidProgram(f"{program.name}: the tensor '{name}' calls itself '{tensor.name}'")
    targets = [operation.target for operation in program.operations[:-1]]
    if set(targets) != set(program.tensors):
        odd = ", ".join(sorted(set(targets) ^ set(program.tensors)))
        raise InvalidProgram(f"{program.name}: all operations but the last write the tensors, each one; not so: {odd}")


def _flatten(program: Program) -> tuple[str, dict[str, NDArray[Any]]]:
    arrays: dict[str, NDArray[Any]] = {}
    operations = []
    for position, operation in enumerate(program.operations):
        record: dict[str, Any] = {"operation": type(operation).__name__}
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
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in record.items()
        }
        kind = OPERATIONS[values.pop("operation")]
        prefix = f"{position:04d}."
        values |= {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        operations.append(kind(**values))
    tensors = {record["name"]: Tensor(**record) for record in header["tensors"]}
    return Program(header["name"], tensors, tuple(operations))
