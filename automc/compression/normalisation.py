"""Batch norms behind a program's sums while its fine-tuning is young; then multipliers and biases take them over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from automc.compression.operations import Convolve
from automc.compression.program import Program
from automc.compression.shadow import ShadowWeights

_FORGETTING = 0.05  # of the running statistics, a step
_LEAST_GAIN = 0.05  # of what it was: a multiplier stays positive, and a bias small beside it


class BatchNorms:
    """Batch norms over what each convolution of a shadow would write, `accumulator * multiplier`, before its clamp.

    They normalise by the batch while weights move far, as they did when the dense network was trained, and do not
    change what the program is: an integer weight stays on its grid, and the gain and offset of a channel are its
    multiplier's and its bias's in the end (Jacob et al. 2018, section 3.2, folds them into weights instead). At first
    they change nothing. Results of one pixel have too few values for statistics, and none; neither have the logits.
    """

    def __init__(self, shadow: ShadowWeights, pixels: Tensor) -> None:
        self.shadow = shadow
        self.layers = [each for each in shadow.layers if _is_map(shadow.original, each)]
        steps = [shadow.step(position) for position in self.layers]
        for step in steps:
            step.normalise = _Recorder()
        with torch.no_grad():
            shadow(pixels)
        self._norms = [_norm(step.normalise.values) for step in steps]  # type: ignore[arg-type]
        self._scales = [norm.weight.detach().clone() for norm in self._norms]
        for step, norm in zip(steps, self._norms, strict=True):
            step.normalise = norm

    @torch.no_grad()
    def move(self, rate: float) -> None:
        """Move gains and offsets by about `rate` of their channels' standard deviations, and hold weights' lengths.

        The lengths have no meaning before a batch norm, and would only grow until weights leave their grids.
        """
        for norm, scale in zip(self._norms, self._scales, strict=True):
            for values in (norm.weight, norm.bias):
                assert values.grad is not None
                direction = values.grad * scale
                values.sub_(scale * direction * (rate / (direction.square().mean().sqrt() + 1e-30)))
            norm.weight.copy_(torch.maximum(norm.weight, _LEAST_GAIN * scale))
        self.shadow.hold_lengths(self.layers)

    @torch.no_grad()
    def folded(self) -> ShadowWeights:
        """The shadow of the program whose multipliers and biases do what the batch norms did; with the same weights."""
        program = self.shadow.program()
        operations = list(program.operations)
        for position, norm in zip(self.layers, self._norms, strict=True):
            operation = operations[position]
            assert isinstance(operation, Convolve)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            mean, variance = norm.running_mean.cpu().double(), norm.running_var.cpu().double()
            gain = norm.weight.cpu().double() / (variance + norm.eps).sqrt()
            shift = (norm.bias.cpu().double() / gain - mean).numpy() / operation.multiplier.astype(np.float64)
            operations[position] = dataclasses.replace(
                operation,
                bias=(operation.bias + np.rint(shift)).astype(np.int32),
                multiplier=(operation.multiplier * gain.numpy()).astype(np.float32),
            )
        device = self.shadow.weights[0].device
        shadow = ShadowWeights(dataclasses.replace(program, operations=tuple(operations)), device)
        shadow.take_weights(self.shadow)
        return shadow

    def tensors(self) -> dict[str, Tensor]:
        """The running statistics by name; gains and offsets are parameters of the shadow."""
        return {
            f"norm.{position}.{name}": value
            for position, norm in zip(self.layers, self._norms, strict=True)
            for name, value in norm.named_buffers()
            if value.ndim
        }

    def restore(self, stored: Callable[[str], Tensor]) -> None:
        """Go on from what `tensors` gave."""
        for name, value in self.tensors().items():
            value.copy_(stored(name))


class _Recorder(nn.Module):
    """Keeps what passes it."""

    values: Tensor

    def forward(self, values: Tensor) -> Tensor:
        self.values = values.clone()
        return values


def _is_map(program: Program, position: int) -> bool:
    tensor = program.tensors.get(program.operations[position].target)
    return tensor is not None and tensor.height * tensor.width > 1


def _norm(values: Tensor) -> nn.BatchNorm2d:
    """A batch norm that does nothing to `values`, `n x channels x height x width`."""
    variance, mean = torch.var_mean(values, (0, 2, 3), correction=0)
    norm = nn.BatchNorm2d(values.shape[1], eps=1e-3, momentum=_FORGETTING, device=values.device)
    with torch.no_grad():
        norm.weight.copy_((variance + norm.eps).sqrt())
        for place in (norm.bias, norm.running_mean):
            place.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(variance)  # type: ignore[union-attr]
    return norm
