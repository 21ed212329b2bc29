"""A Program as an ONNX model with quantised tensors (QDQ), for other runtimes.

Every tensor is stored as in the Program, and between two tensors stands the operation on real numbers, as runtimes
expect it when they look for layers that they can compute in 8 bits. How they round in between is theirs: their results
are near the Program's, and not the same. What is exact is the library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from automc.compression.operations import (
    Convolve,
    Dequantise,
    Join,
    Lookup,
    Operation,
    Pool,
    Quantise,
    Rank,
    Scale,
    Select,
    Shuffle,
    Sum,
    Tensor,
)
from automc.compression.program import Program
from automc.errors import ConfigError
from automc.files import write_atomic

if TYPE_CHECKING:
    from onnx import ModelProto

_OPSET = 19
_IR_VERSION = 9  # of the format; what runtimes of the last years read


def write_onnx(program: Program, path: Path) -> None:
    """Write `program` as an ONNX model: `pixels`, `n x height x width x channels` uint8, to `results`, `n x outputs`.

    Raises `ConfigError` where the package `onnx` is not installed.
    """
    write_atomic(path, onnx_model(program).SerializeToString())


def onnx_model(program: Program) -> ModelProto:
    """`program` as an ONNX model; see `write_onnx`."""
    try:
        from onnx import checker
    except ImportError as error:
        raise ConfigError("the package onnx is not installed: pip install 'automc[onnx]'") from error
    graph = _Graph(program)
    for operation in program.operations:
        _OPERATIONS[type(operation)](graph, operation)
    model = graph.model()
    checker.check_model(model)
    return model


class _Graph:
    """The nodes so far. A tensor of the Program bears its own name, and holds what is stored, `n x c x h x w` uint8."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._count = 0

    def node(self, kind: str, inputs: Sequence[str], output: str = "", outputs: int = 1, **attributes: Any) -> str:
        """Add a node; gives the name of the first of what it writes."""
        from onnx import helper

        names = [output or self._fresh(kind), *(self._fresh(kind) for _ in range(1, outputs))]
        self._nodes.append(helper.make_node(kind, inputs, names, names[0], **attributes))
        return names[0]

    def constant(self, values: NDArray[Any] | Sequence[int] | float) -> str:
        """Add a constant; numbers without a type are float32, sequences int64."""
        from onnx import numpy_helper

        array = np.asarray(values)
        if not isinstance(values, np.ndarray):
            array = array.astype(np.float32 if isinstance(values, float) else np.int64)
        name = self._fresh("constant")
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def real(self, name: str) -> str:
        """The real values of a tensor of the Program."""
        tensor = self.program.tensors[name]
        return self.node("DequantizeLinear", [name, *self._grid(tensor)])

    def store(self, values: str, operation: Operation, low: int, high: int) -> None:
        """Store real values in the operation's target, within stored bounds."""
        tensor = self.program.tensors[operation.target]
        if (low, high) != (0, 255):
            ends = [self.constant((end - tensor.zero_point) * tensor.scale) for end in (low, high)]
            values = self.node("Clip", [values, *ends])
        self.node("QuantizeLinear", [values, *self._grid(tensor)], operation.target)

    def times(self, values: str, multiplier: float, source: str, target: str) -> str:
        """Real values of `source` times what the Program's `multiplier` makes of them beyond a change of scale."""
        tensors = self.program.tensors
        factor = multiplier * tensors[target].scale / tensors[source].scale
        return values if abs(factor - 1) < 1e-6 else self.node("Mul", [values, self.constant(float(factor))])

    def model(self) -> ModelProto:
        """The model of all nodes."""
        from onnx import TensorProto, helper

        program = self.program
        pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", *program.image_shape])
        results = helper.make_tensor_value_info("results", TensorProto.FLOAT, ["n", program.outputs])
        graph = helper.make_graph(self._nodes, program.name, [pixels], [results], self._constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)

    def _grid(self, tensor: Tensor) -> tuple[str, str]:
        return self.constant(float(tensor.scale)), self.constant(np.array(tensor.zero_point, np.uint8))

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"{kind}:{self._count}"


def _quantise(graph: _Graph, operation: Quantise) -> None:
    table = operation.table
    offsets = np.arange(0, table.size, table.shape[1], dtype=np.int32)
    index = graph.node("Add", [graph.node("Cast", ["pixels"], to=6), graph.constant(offsets)])
    stored = graph.node("Gather", [graph.constant(table.reshape(-1)), index])
    graph.node("Transpose", [stored], operation.target, perm=[0, 3, 1, 2])


def _convolve(graph: _Graph, operation: Convolve) -> None:
    source, target = graph.program.tensors[operation.source], graph.program.tensors.get(operation.target)
    steps = operation.accumulator_steps(graph.program.tensors)
    bias = operation.centred_bias(graph.program.tensors).astype(np.int32)
    scales = graph.constant((steps / source.scale).astype(np.float32)), graph.constant(steps.astype(np.float32))
    weight = graph.node("DequantizeLinear", [graph.constant(operation.weight), scales[0]], axis=0)
    offset = graph.node("DequantizeLinear", [graph.constant(bias), scales[1]], axis=0)
    values = graph.node(
        "Conv",
        [graph.real(operation.source), weight, offset],
        kernel_shape=operation.kernel,
        strides=operation.stride,
        pads=operation.padding * 2,
        dilations=operation.dilation,
        group=operation.groups,
    )
    if target is None:
        graph.node("Flatten", [values], "results")
        return
    if operation.residual is not None:
        other = graph.real(operation.residual)
        other = graph.times(other, operation.residual_multiplier, operation.residual, operation.target)
        values = graph.node("Add", [values, other])
    if operation.gate is not None:
        ends = [graph.constant((end - target.zero_point) * target.scale) for end in (operation.low, operation.high)]
        values = graph.node("Mul", [graph.node("Clip", [values, *ends]), graph.real(operation.gate)])
        graph.store(values, operation, 0, target.limit)
        return
    graph.store(values, operation, operation.low, operation.high)


def _sum(graph: _Graph, operation: Sum) -> None:
    parts = [
        graph.times(graph.real(source), multiplier, source, operation.target)
        for source, multiplier in zip(operation.sources, operation.multipliers, strict=True)
    ]
    graph.store(graph.node("Add", parts), operation, operation.low, operation.high)


def _join(graph: _Graph, operation: Join) -> None:
    parts = [
        graph.times(graph.real(part), multiplier, part, operation.target)
        for part, multiplier in zip(operation.parts, operation.multipliers, strict=True)
    ]
    graph.store(graph.node("Concat", parts, axis=1), operation, 0, graph.program.tensors[operation.target].limit)


def _select(graph: _Graph, operation: Select) -> None:
    source = graph.program.tensors[operation.source]
    padded, index = operation.source, np.array(operation.index, np.int64)
    if (index < 0).any():  # one channel of zeros more, for all that have no source
        zero = graph.constant(np.array(source.zero_point, np.uint8))
        padded = graph.node("Pad", [padded, graph.constant([0, 0, 0, 0, 0, 1, 0, 0]), zero])
        index[index < 0] = source.channels
    if operation.stride == 1:
        graph.node("Gather", [padded, graph.constant(index)], operation.target, axis=1)
        return
    picked = graph.node("Gather", [padded, graph.constant(index)], axis=1)
    ends = [graph.constant(ends) for ends in ([0, 0], [2**31, 2**31], [2, 3], [operation.stride] * 2)]
    graph.node("Slice", [picked, *ends], operation.target)


def _pool(graph: _Graph, operation: Pool) -> None:
    window: dict[str, Any] = {
        "kernel_shape": operation.kernel,
        "strides": operation.stride,
        "pads": operation.padding * 2,
    }
    if operation.kind == "max":
        graph.node("MaxPool", [operation.source], operation.target, **window)
        return
    mean = graph.node("AveragePool", [graph.real(operation.source)], count_include_pad=1, **window)
    multiplier = operation.multiplier * operation.kernel[0] * operation.kernel[1]
    mean = graph.times(mean, multiplier, operation.source, operation.target)
    graph.store(mean, operation, operation.low, operation.high)


def _lookup(graph: _Graph, operation: Lookup) -> None:
    index = graph.node("Cast", [operation.source], to=6)
    graph.node("Gather", [graph.constant(operation.table), index], operation.target)


def _scale(graph: _Graph, operation: Scale) -> None:
    tensors = graph.program.tensors
    product = graph.node("Mul", [graph.real(operation.source), graph.real(operation.gains)])
    multiplier = operation.multiplier / tensors[operation.gains].scale
    product = graph.times(product, multiplier, operation.source, operation.target)
    graph.store(product, operation, operation.low, operation.high)


def _shuffle(graph: _Graph, operation: Shuffle) -> None:
    target, factor = graph.program.tensors[operation.target], operation.factor
    height, width = target.height // factor, target.width // factor
    split = graph.constant([-1, target.channels, factor, factor, height, width])
    blocks = graph.node("Transpose", [graph.node("Reshape", [operation.source, split])], perm=[0, 1, 4, 2, 5, 3])
    graph.node("Reshape", [blocks, graph.constant([-1, *target.shape])], operation.target)


def _rank(graph: _Graph, operation: Rank) -> None:
    channels = graph.program.tensors[operation.source].channels
    # Of equal values the one of the lower index is the greater.
    scaled = graph.node("Mul", [graph.node("Cast", [operation.source], to=1), graph.constant(float(channels))])
    order = np.arange(channels, 0, -1, dtype=np.float32).reshape(1, channels, 1, 1)
    ranked = graph.node("Add", [scaled, graph.constant(order)])
    # The count-th greatest, which no other value equals, is the least that counts.
    values = graph.node("TopK", [ranked, graph.constant([operation.count])], axis=1, outputs=2)
    least = graph.node("ReduceMin", [values, graph.constant([1])])
    graph.node("Cast", [graph.node("GreaterOrEqual", [ranked, least])], operation.target, to=2)


def _dequantise(graph: _Graph, operation: Dequantise) -> None:
    values = graph.node("Transpose", [graph.real(operation.source)], perm=[0, 2, 3, 1])
    graph.node("Flatten", [values], "results")


_OPERATIONS: dict[type[Operation], Callable[[_Graph, Any], None]] = {
    Quantise: _quantise,
    Convolve: _convolve,
    Sum: _sum,
    Join: _join,
    Select: _select,
    Pool: _pool,
    Lookup: _lookup,
    Scale: _scale,
    Shuffle: _shuffle,
    Rank: _rank,
    Dequantise: _dequantise,
}
