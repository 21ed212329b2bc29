"""Float weights behind a program's integers, so that gradient descent can move the integers."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from automc.compression.export import to_torch
from automc.compression.operations import Convolve, Operation, weight_magnitudes
from automc.compression.program import Program
from automc.compression.steps import ConvolveStep, clamp_and_round, signs


class ShadowWeights(nn.Module):
    """Float weights and biases behind a program's integers, in units of its grids: they round to the integers.

    Biases are those of zero-points of 0, as in `steps.py`, in float64, which holds every int32.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.original = program
        self.executed = to_torch(program)
        self.layers = [position for position, each in enumerate(program.operations) if isinstance(each, Convolve)]
        steps = {position: self._step(position) for position in self.layers}
        self.weights = nn.ParameterList(step.weight.clone() for step in steps.values())
        self.biases = nn.ParameterList(step.bias.to(torch.float64, copy=True) for step in steps.values())
        self._lengths = [self._lengths_of(position, step.weight) for position, step in steps.items()]

    def forward(self, pixels: Tensor) -> Tensor:
        """The logits of the program that the weights round to, for `n x channels x height x width` uint8 pixels."""
        rounded: dict[str, Tensor] = {}
        for position, weight, bias in zip(self.layers, *self._integers(), strict=True):
            rounded[f"steps.{position}.weight"] = weight
            rounded[f"steps.{position}.bias"] = bias.to(self._step(position).bias.dtype)
        logits: Tensor = functional_call(self.executed, rounded, (pixels,))
        return logits

    def program(self) -> Program:
        """The program that the weights round to."""
        operations: list[Operation] = list(self.original.operations)
        with torch.no_grad():
            for position, weight, bias in zip(self.layers, *self._integers(), strict=True):
                operation = self._operation(position)
                stored = bias - self.original.tensors[operation.source].zero_point * weight.double().sum((1, 2, 3))
                operations[position] = dataclasses.replace(
                    operation,
                    weight=np.ascontiguousarray(weight.numpy().astype(np.int8)),
                    bias=stored.numpy().astype(np.int32),
                )
        return dataclasses.replace(self.original, operations=tuple(operations))

    @torch.no_grad()
    def normalise_gradients(self) -> None:
        """Make the gradients those of channels of unit length, and no longer than 1 in all.

        While batch norm is trained, a network's answers do not depend on the length of each channel's weights, and only
        relative steps matter (Salimans & Kingma 2016, section 2.1). Folded into the weights it gives channels very
        different lengths, and one rate for all of them made a folded ResNet-20 collapse. For `weight = length *
        direction`, a step of `-rate * d loss/d direction` is one of `-rate * length^2 * d loss/d weight`. A bias counts
        as the weight of one more input, which is always a quarter of its range.
        """
        lengths = [length for pair in self._lengths for length in pair]
        gradients = [parameter.grad for pair in zip(self.weights, self.biases, strict=True) for parameter in pair]
        relative = [gradient * length for gradient, length in zip(gradients, lengths, strict=True)]
        total = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in relative))
        for gradient, length in zip(gradients, lengths, strict=True):
            gradient.mul_(length.square() / max(total, 1.0))

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep weights on their grids and accumulators within int32."""
        for position, weight, bias in zip(self.layers, self.weights, self.biases, strict=True):
            operation = self._operation(position)
            source = self.original.tensors[operation.source]
            _, largest = weight_magnitudes(operation.weight_bits)
            integers = self._rounded(position, weight.clamp_(-largest, largest)).double()
            room = 2**31 - 1 - source.limit * integers.abs().sum((1, 2, 3))
            middle = source.zero_point * integers.sum((1, 2, 3))
            bias.clamp_(middle - room, middle + room)

    def _lengths_of(self, position: int, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The length of each channel's weights, and of its bias; a channel of zeros has a tenth of the usual."""
        squares = weight.square().sum((1, 2, 3), keepdim=True)
        lengths = squares.clamp(min=0.01 * float(squares.mean())).sqrt()
        source = self.original.tensors[self._operation(position).source]
        return lengths, lengths.flatten().double() * (source.limit / 4)

    def _integers(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases rounded, with straight-through gradients."""
        weights = [self._rounded(*pair) for pair in zip(self.layers, self.weights, strict=True)]
        return weights, [clamp_and_round(bias.clone(), -(2**32), 2**32) for bias in self.biases]

    def _rounded(self, position: int, weight: Tensor) -> Tensor:
        """A layer's weights rounded: one bit to a sign, and zeros that are not stored stay zeros."""
        operation = self._operation(position)
        if operation.weight_bits == 1:
            return signs(weight)
        rounded = clamp_and_round(weight.clone(), -127, 127)
        return rounded * (self._step(position).weight != 0) if operation.skips_zeros else rounded

    def _operation(self, position: int) -> Convolve:
        operation = self.original.operations[position]
        assert isinstance(operation, Convolve)
        return operation

    def _step(self, position: int) -> ConvolveStep:
        step = self.executed.steps[position]
        assert isinstance(step, ConvolveStep)
        return step
