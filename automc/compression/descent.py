"""How fine-tuning moves weights: by orthogonalised momentum, relative to their lengths; and their running average."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from automc.compression.program import Program
from automc.compression.shadow import ShadowWeights

_MOMENTUM = 0.8
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # the coefficients of Jordan et al.


class Descent:
    """Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") on a program's weights.

    A layer's gradient, with momentum, is replaced by the nearest matrix whose rows or columns are orthonormal, so that
    every direction moves alike and a step of rate r moves each channel by about r times its length. `average` holds an
    exponential moving average of the weights, which lie quieter than the last ones where few bits make them jump.
    """

    def __init__(self, shadow: ShadowWeights) -> None:
        self._shadow = shadow
        matrices = shadow.gradients()
        self._momentum = [torch.zeros_like(each) for each in matrices]
        self._averages = {name: value.detach().clone() for name, value in shadow.named_parameters()}

    @torch.no_grad()
    def step(self, rate: float, weight_decay: float, memory: float) -> None:
        """Move by the gradients of the shadow; `memory` is the average's share of what it was."""
        steps = []
        for gradient, momentum in zip(self._shadow.gradients(), self._momentum, strict=True):
            momentum.lerp_(gradient, 1 - _MOMENTUM)
            steps.append(orthogonalised(gradient.lerp(momentum, _MOMENTUM)).mul_(-rate))
        self._shadow.shrink(rate * weight_decay)
        self._shadow.move(steps)
        for name, value in self._shadow.named_parameters():
            self._averages[name].lerp_(value, 1 - memory)

    @torch.no_grad()
    def average(self) -> Program:
        """The program that the average rounds to."""
        averaged = ShadowWeights(self._shadow.original)
        for name, value in averaged.named_parameters():
            value.copy_(self._averages[name])
        return averaged.program()

    def tensors(self) -> dict[str, Tensor]:
        """All that goes on: weights, averages and momentum by name."""
        state = {name: value.detach() for name, value in self._shadow.named_parameters()}
        state |= {f"average.{name}": value for name, value in self._averages.items()}
        state |= {f"momentum.{number}": value for number, value in enumerate(self._momentum)}
        return {name: value.cpu().contiguous() for name, value in state.items()}

    @torch.no_grad()
    def restore(self, stored: Callable[[str], Tensor]) -> None:
        """Go on from what `tensors` gave; copies keep the layout in memory, on which a sum's last bit may depend."""
        for name, value in self._shadow.named_parameters():
            value.copy_(stored(name))
            self._averages[name].copy_(stored(f"average.{name}"))
        for number, momentum in enumerate(self._momentum):
            momentum.copy_(stored(f"momentum.{number}"))


def orthogonalised(matrices: Tensor) -> Tensor:
    """Nearly the orthogonal factor of each of `n x rows x columns`, by five Newton-Schulz steps.

    Rows are about 1 long. Where there are more rows than columns, they cannot be orthogonal.
    """
    rows, columns = matrices.shape[1:]
    found = matrices.mT if rows > columns else matrices
    found = found / (found.norm(dim=(1, 2), keepdim=True) + 1e-30)
    linear, cubic, quintic = _NEWTON_SCHULZ
    for _ in range(5):
        gram = found @ found.mT
        found = linear * found + (cubic * gram + quintic * gram @ gram) @ found
    result: Tensor = found.mT if rows > columns else found
    return result * math.sqrt(max(1.0, rows / columns))
