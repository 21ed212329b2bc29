"""Fast evaluation of a `Program` on this machine, in the interpreter's exact numbers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from automc.compression.export import to_torch
from automc.compression.interpreter import check_pixels
from automc.compression.program import Program

_BATCH = 100  # images at once


class Executor:
    """Runs a program by float32 convolutions over integers, which are exact; see `steps.py` for how that is made sure.

    A search makes one for each policy that it evaluates: construction only copies the weights.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._module = to_torch(program)

    @torch.inference_mode()
    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The results, `n x outputs`, of the images `pixels`, `n x height x width x channels`.

        Raises `DataError` for images of another shape or type than the program's input.
        """
        check_pixels(self.program, pixels)
        results = np.empty((len(pixels), self.program.outputs), np.float32)
        for start in range(0, len(pixels), _BATCH):
            images = torch.tensor(pixels[start : start + _BATCH]).permute(0, 3, 1, 2)
            results[start : start + _BATCH] = self._module(images).numpy()
        return results
