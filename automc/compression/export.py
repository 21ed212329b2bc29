"""A `Program` as a torch module that returns the interpreter's bits: for users, the executor, and fine-tuning."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from automc.compression.program import Program
from automc.compression.steps import step_of
from automc.errors import DataError


def to_torch(program: Program) -> ProgramModule:
    """A module from uint8 pixels, `n x channels x height x width`, to float32 results, `n x outputs`.

    Its results equal the interpreter's bit for bit on the CPU, in float32. Gradients pass each rounding straight
    through (Bengio et al. 2013), and stop where a value is clamped.
    """
    return ProgramModule(program)


class ProgramModule(nn.Module):
    """The steps of a program; `steps` has one module for each of its operations, in order."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.title = program.name
        self.shape = program.input.shape
        self.operations = tuple((operation.sources, operation.target) for operation in program.operations)
        self.steps = nn.ModuleList(step_of(each, program.tensors) for each in program.operations)
        last = {name: position for position, (sources, _) in enumerate(self.operations) for name in sources}
        self.finished = [[name for name in last if last[name] == each] for each in range(len(self.operations))]

    def forward(self, pixels: Tensor) -> Tensor:
        if pixels.dtype != torch.uint8 or pixels.shape[1:] != self.shape:
            wanted = " x ".join(map(str, self.shape))
            raise DataError(f"{self.title} takes n x {wanted} uint8. Got {pixels.dtype} {tuple(pixels.shape)} instead.")
        tensors: dict[str, Tensor] = {}
        result = pixels
        for (sources, target), step, finished in zip(self.operations, self.steps, self.finished, strict=True):
            result = step(*(tensors[name] for name in sources)) if sources else step(pixels)
            tensors[target] = result
            for name in finished:  # what is read no more would only push the rest out of the caches
                del tensors[name]
        return result.permute(0, 2, 3, 1).flatten(1)
