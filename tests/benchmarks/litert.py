"""A Program of 8-bit tensors as a LiteRT (TFLite) model of the same layers, to time that runtime with.

For its speed alone: stored values are shifted by 128, as the runtime wants them, and where a stride of two meets
padding, it pads on the other side than the Program. Upper clamps within the stored range are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from automc.compression.operations import Convolve, Pool, Select, Sum, Tensor
from automc.compression.program import Program

_KINDS = {np.dtype(np.int8): schema.TensorType.INT8, np.dtype(np.int32): schema.TensorType.INT32}
_VERSIONS = {
    schema.BuiltinOperator.CONV_2D: 3, schema.BuiltinOperator.DEPTHWISE_CONV_2D: 3, schema.BuiltinOperator.ADD: 2,
    schema.BuiltinOperator.AVERAGE_POOL_2D: 2, schema.BuiltinOperator.STRIDED_SLICE: 2, schema.BuiltinOperator.PAD: 2,
}  # fmt: skip


class _Model:
    """Collects tensors and operators; a tensor is known by its number."""

    def __init__(self) -> None:
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []
        self.graph.tensors, self.graph.operators = [], []
        self.numbers: dict[str, int] = {}

    def tensor(
        self, shape: Sequence[int], scales: Sequence[float] = (), zero_point: int = 0,
        values: NDArray[np.generic] | None = None, axis: int = 0,
    ) -> int:  # fmt: skip
        """A tensor; with `values`, a constant."""
        added = schema.TensorT()
        added.shape, added.buffer = list(shape), 0
        added.type = schema.TensorType.INT8 if values is None else _KINDS[values.dtype]
        added.name = f"tensor{len(self.graph.tensors)}".encode()
        if len(scales):
            quantisation = schema.QuantizationParametersT()
            quantisation.scale = np.asarray(scales, np.float32)
            quantisation.zeroPoint = np.full(len(scales), zero_point, np.int64)
            quantisation.quantizedDimension = axis
            added.quantization = quantisation
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            added.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(added)
        return len(self.graph.tensors) - 1

    def stored(self, name: str, tensor: Tensor) -> int:
        """The number of a tensor of the program."""
        shape = (1, tensor.height, tensor.width, tensor.channels)
        self.numbers[name] = self.tensor(shape, [tensor.scale], tensor.zero_point - 128)
        return self.numbers[name]

    def operate(self, kind: int, inputs: Sequence[int], output: int, name: str, **settings: object) -> None:
        """An operator `kind`, whose options are the schema's table `name` with these settings."""
        operator, options = schema.OperatorT(), getattr(schema, f"{name}T")()
        for setting, value in settings.items():
            setattr(options, setting, value)
        operator.opcodeIndex = len(self.model.operatorCodes)
        operator.inputs, operator.outputs = list(inputs), [output]
        operator.builtinOptionsType, operator.builtinOptions = getattr(schema.BuiltinOptions, name), options
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = kind, kind, _VERSIONS[kind]
        self.model.operatorCodes.append(code)
        self.graph.operators.append(operator)

    def convolve(self, program: Program, operation: Convolve) -> None:
        """A convolution, and the sum with its residual behind it."""
        source = program.tensors[operation.source]
        target = program.tensors.get(operation.target) or Tensor(operation.target, operation.outputs, 1, 1, 8, 0.1, 128)
        scales = np.maximum(operation.multiplier * np.float32(target.scale / source.scale), 1e-12)
        axes = (1, 2, 3, 0) if operation.is_depthwise else (0, 2, 3, 1)
        weight = np.ascontiguousarray(operation.weight.transpose(axes))
        bias = operation.bias + source.zero_point * operation.weight.sum((1, 2, 3), dtype=np.int32)
        inputs = [
            self.numbers[operation.source],
            self.tensor(weight.shape, scales, 0, weight, axis=axes.index(0)),
            self.tensor(bias.shape, scales * source.scale, 0, bias.astype(np.int32)),
        ]
        kind, options = schema.BuiltinOperator.CONV_2D, "Conv2DOptions"
        if operation.is_depthwise:
            kind, options = schema.BuiltinOperator.DEPTHWISE_CONV_2D, "DepthwiseConv2DOptions"
        settings = {
            "padding": schema.Padding.SAME if any(operation.padding) else schema.Padding.VALID,
            "strideH": operation.stride[0], "strideW": operation.stride[1],
            "dilationHFactor": operation.dilation[0], "dilationWFactor": operation.dilation[1],
        }  # fmt: skip
        settings |= {"depthMultiplier": 1} if operation.is_depthwise else {}
        output = self.stored(operation.target, target)
        self.operate(kind, inputs, output, options, **settings)
        if operation.residual is not None:
            terms = [output, self.numbers[operation.residual]]
            self.operate(schema.BuiltinOperator.ADD, terms, self.stored(operation.target, target), "AddOptions")

    def pool(self, program: Program, operation: Pool) -> None:
        """A mean; the runtime has it without requantisation, so what comes behind sees another scale."""
        source, target = program.tensors[operation.source], program.tensors[operation.target]
        alike = Tensor(target.name, *target.shape, 8, source.scale, source.zero_point)
        settings = {
            "padding": schema.Padding.VALID, "strideH": operation.stride[0], "strideW": operation.stride[1],
            "filterHeight": operation.kernel[0], "filterWidth": operation.kernel[1],
        }  # fmt: skip
        inputs, output = [self.numbers[operation.source]], self.stored(operation.target, alike)
        self.operate(schema.BuiltinOperator.AVERAGE_POOL_2D, inputs, output, "Pool2DOptions", **settings)

    def select(self, program: Program, operation: Select) -> None:
        """Every `stride`-th pixel, and zeros before and behind the channels: a shortcut between two stages."""
        source, target = program.tensors[operation.source], program.tensors[operation.target]
        kept = [channel for channel in operation.index if channel >= 0]
        assert kept == list(range(source.channels))
        before = operation.index.index(0)
        ends = np.array([1, source.height, source.width, source.channels], np.int32)
        steps = np.array([1, operation.stride, operation.stride, 1], np.int32)
        shape = (1, target.height, target.width, source.channels)
        sliced = self.tensor(shape, [source.scale], source.zero_point - 128)
        constants = [self.tensor((4,), values=each) for each in (np.zeros(4, np.int32), ends, steps)]
        inputs = [self.numbers[operation.source], *constants]
        self.operate(schema.BuiltinOperator.STRIDED_SLICE, inputs, sliced, "StridedSliceOptions")
        behind = target.channels - source.channels - before
        frame = self.tensor((4, 2), values=np.array([[0, 0], [0, 0], [0, 0], [before, behind]], np.int32))
        self.operate(schema.BuiltinOperator.PAD, [sliced, frame], self.stored(operation.target, target), "PadOptions")

    def sum(self, program: Program, operation: Sum) -> None:
        """Two tensors added."""
        terms = [self.numbers[operation.first], self.numbers[operation.second]]
        output = self.stored(operation.target, program.tensors[operation.target])
        self.operate(schema.BuiltinOperator.ADD, terms, output, "AddOptions")


def litert_model(program: Program) -> bytes:
    """The flatbuffer of a program of convolutions, means, sums and selections; the image is already quantised."""
    model = _Model()
    first, *others = program.operations
    model.graph.inputs = [model.stored(first.target, program.tensors[first.target])]
    steps = {Convolve: model.convolve, Pool: model.pool, Select: model.select, Sum: model.sum}
    for operation in others:
        steps[type(operation)](program, operation)
    model.graph.outputs = [model.numbers[program.result.target]]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
