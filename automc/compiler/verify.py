"""Whether a library computes what its program means: every logit, bit by bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.compiler.artifact import Artifact
from automc.compiler.emulation import Emulated
from automc.compression.interpreter import interpret
from automc.compression.program import Program
from automc.errors import VerificationError


@dataclass(frozen=True)
class Verification:
    """How many images and logits were compared, and how many logits differed in a bit."""

    images: int
    logits: int
    different: int
    machine: str = ""  # that was emulated, or nothing where the library ran on this machine itself

    def require_equal(self) -> None:
        """Raise `VerificationError` unless every logit is the interpreter's."""
        if self.logits == 0:
            raise VerificationError("no image was compared")
        if self.different:
            raise VerificationError(f"{self.different} of {self.logits} output values differ from the interpreter's")


def verify(artifact: Artifact, program: Program, pixels: NDArray[np.uint8]) -> Verification:
    """Compare the library's logits for `pixels`, `n x height x width x channels`, with the interpreter's.

    Raises `RunnerError` where the library runs neither on this machine nor on an emulated one.
    """
    library = artifact.runnable()
    found, meant = library.run(pixels), interpret(program, pixels)
    different = int(np.count_nonzero(found.view(np.int32) != meant.view(np.int32)))
    machine = str(library.machine) if isinstance(library, Emulated) else ""
    return Verification(len(pixels), found.size, different, machine)
