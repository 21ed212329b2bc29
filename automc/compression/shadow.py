"""Float weights behind a program's integers, so that gradient descent can move the integers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from automc.compression.export import to_torch
from automc.compression.operations import Convolve, Operation, weight_magnitudes
from automc.compression.program import Program
from automc.compression.steps import ConvolveStep, clamp_and_round, signs

_FEW_VALUES, _WEIGHTS_A_VALUE = 65, 4  # a sparse layer of 8 bits with fewer weights has few values by chance


class ShadowWeights(nn.Module):
    """Float weights and biases behind a program's integers, in units of its grids: they round to the integers.

    Biases are those of zero-points of 0, as in `steps.py`, in float64, which holds every int32.
    """

    def __init__(self, program: Program, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.original = program
        self.executed = to_torch(program).to(device)
        self.layers = [position for position, each in enumerate(program.operations) if isinstance(each, Convolve)]
        steps = {position: self.step(position) for position in self.layers}
        self.weights = nn.ParameterList(step.weight.clone() for step in steps.values())
        self.biases = nn.ParameterList(step.bias.to(torch.float64, copy=True) for step in steps.values())
        self._lengths = [_lengths(step.weight) for step in steps.values()]
        entries = {position: shared_entries(self._operation(position)) for position in self.layers}
        self._entries = {position: index.to(device) for position, index in entries.items() if index is not None}

    def forward(self, pixels: Tensor) -> Tensor:
        """The logits of the program that the weights round to, for `n x channels x height x width` uint8 pixels."""
        rounded: dict[str, Tensor] = {}
        for position, weight, bias in zip(self.layers, *self._integers(), strict=True):
            rounded[f"steps.{position}.weight"] = weight
            rounded[f"steps.{position}.bias"] = bias.to(self.step(position).bias.dtype)
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
                    weight=np.ascontiguousarray(weight.cpu().numpy().astype(np.int8)),
                    bias=stored.cpu().numpy().astype(np.int32),
                )
        return dataclasses.replace(self.original, operations=tuple(operations))

    def step(self, position: int) -> ConvolveStep:
        """The layer at that position of the program, as it is computed."""
        step = self.executed.steps[position]
        assert isinstance(step, ConvolveStep)
        return step

    @torch.no_grad()
    def gradients(self) -> list[Tensor]:
        """Each layer's gradient as for channels of unit length, `groups x out/groups x (in/groups * kh * kw + 1)`.

        While batch norm is trained, a network's answers do not depend on the length of each channel's weights, and only
        relative steps matter (Salimans & Kingma 2016, section 2.1). Folded into the weights it gives channels very
        different lengths, and one rate for all of them made a folded ResNet-20 collapse. So these are the gradients of
        `direction` in `weight = length * direction`, with lengths that stay. The last column is the bias's: it counts
        as the weight of one more input, which is always a quarter of its range.
        """
        matrices = []
        for position, weight, bias, lengths in zip(self.layers, self.weights, self.biases, self._lengths, strict=True):
            of_weight, of_bias = (torch.zeros_like(each) if each.grad is None else each.grad for each in (weight, bias))
            taps = of_weight.flatten(1) * lengths[:, None]
            constant = of_bias * lengths * self._bias_unit(position)
            matrix = torch.cat([taps, constant.float()[:, None]], 1)
            matrices.append(matrix.view(self._operation(position).groups, -1, matrix.shape[1]))
        return matrices

    @torch.no_grad()
    def move(self, steps: list[Tensor]) -> None:
        """Add steps, in the form of `gradients`; weights stay on their grids, and accumulators within int32."""
        for position, weight, bias, lengths, step in zip(
            self.layers, self.weights, self.biases, self._lengths, steps, strict=True
        ):
            operation = self._operation(position)
            moved = step.flatten(0, 1) * lengths[:, None]
            weight.add_(moved[:, :-1].reshape(weight.shape))
            bias.add_(moved[:, -1].double() * self._bias_unit(position))
            _, largest = weight_magnitudes(operation.weight_bits)
            integers = self._rounded(position, weight.clamp_(-largest, largest)).double()
            source = self.original.tensors[operation.source]
            room = 2**31 - 1 - source.limit * integers.abs().sum((1, 2, 3))
            middle = source.zero_point * integers.sum((1, 2, 3))
            bias.clamp_(middle - room, middle + room)

    @torch.no_grad()
    def shrink(self, share: float) -> None:
        """Make every weight smaller by `share`: decay apart from the gradient (Loshchilov & Hutter 2019)."""
        for weight in self.weights:
            weight.mul_(1 - share)

    @torch.no_grad()
    def hold_lengths(self, layers: Sequence[int]) -> None:
        """Give each channel's weights of these layers, by their positions, the length that they began with."""
        for position, weight, lengths in zip(self.layers, self.weights, self._lengths, strict=True):
            if position in layers:
                weight.mul_((lengths / weight.flatten(1).norm(dim=1).clamp(min=1e-30)).view(-1, 1, 1, 1))

    @torch.no_grad()
    def take_weights(self, other: ShadowWeights) -> None:
        """Go on with the weights of another shadow on the same grids, not with what they round to."""
        for weight, others in zip(self.weights, other.weights, strict=True):
            weight.copy_(others)

    def _bias_unit(self, position: int) -> float:
        """The input that a bias is the weight of."""
        return self.original.tensors[self._operation(position).source].limit / 4

    def _integers(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases rounded, with straight-through gradients."""
        weights = [self._rounded(*pair) for pair in zip(self.layers, self.weights, strict=True)]
        return weights, [clamp_and_round(bias.clone(), -(2**32), 2**32) for bias in self.biases]

    def _rounded(self, position: int, weight: Tensor) -> Tensor:
        """A layer's weights rounded: one bit to a sign; zeros that are not stored stay zeros, shared values shared."""
        operation = self._operation(position)
        if operation.weight_bits == 1:
            return signs(weight)
        if position in self._entries:
            weight = _means(weight, self._entries[position])
        rounded = clamp_and_round(weight.clone(), -128, 128)  # so that the grid's ends pass gradients, too
        return rounded * (self.step(position).weight != 0) if operation.leaves_out_zeros else rounded

    def _operation(self, position: int) -> Convolve:
        operation = self.original.operations[position]
        assert isinstance(operation, Convolve)
        return operation


def shared_entries(operation: Convolve) -> Tensor | None:
    """Which entry of a table each weight is, where a layer's weights share them; those of an entry move together.

    A layer that is stored without its zeros shares entries if its other weights have few values.
    """
    values, index = np.unique(operation.weight, return_inverse=True)
    few = len(values) <= _FEW_VALUES and operation.weight.size >= _WEIGHTS_A_VALUE * len(values)
    if operation.encoding == "codebook" or (operation.encoding == "sparse" and operation.weight_bits == 8 and few):
        return torch.from_numpy(index.reshape(operation.weight.shape))
    return None


def _means(weight: Tensor, index: Tensor) -> Tensor:
    """Every weight as the mean of those that share its entry, so that an entry's gradient is theirs together.

    Han et al. 2016 (section 3.3) move an entry by the sum of the gradients, which differs by a factor that a step
    relative to the weights' length takes out.
    """
    count = int(index.max()) + 1
    sums = weight.new_zeros(count).index_add(0, index.flatten(), weight.flatten())
    means = sums / torch.bincount(index.flatten(), minlength=count)
    return means[index]


def _lengths(weight: Tensor) -> Tensor:
    """The length of each channel's weights, `out`; a channel of zeros has a tenth of the usual."""
    squares = weight.square().sum((1, 2, 3))
    return torch.maximum(squares, 0.01 * squares.mean()).sqrt()
