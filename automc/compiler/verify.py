"""Whether a library computes what its program means: every logit, bit by bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.compiler.artifact import Artifact
from automc.compression.interpreter import interpret
from automc.compression.program import Program


@dataclass(frozen=True)
class Verification:
    """How many images were compared, and how many logits differed."""

    images: int
    different: int

    @property
    def passed(self) -> bool:
        return self.images > 0 and self.different == 0


def verify(artifact: Artifact, program: Program, pixels: NDArray[np.uint8]) -> Verification:
    """Compare the library's logits for `pixels`, `n x height x width x channels`, with the interpreter's."""
    found, meant = artifact.load().run(pixels), interpret(program, pixels)
    return Verification(len(pixels), int(np.count_nonzero(found.view(np.int32) != meant.view(np.int32))))
