"""What the tests of emulated code share: which processors are emulated here, how programs run there, and comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from automc.compiler.artifact import static_batch
from automc.compiler.build import STATIC
from automc.compiler.emulation import Emulated, emulate
from automc.compiler.emulators import available, remedy
from automc.compiler.isa import Machine
from automc.compiler.targets import TARGETS
from automc.compression.interpreter import interpret
from automc.compression.program import Program
from tests.programs import random_pixels

NOT_RUN = "not run: "  # how the reasons begin that the summary of a test run counts


def processor(target, machine):
    """The parameters `target` and `machine` of a test, which is skipped where the emulator is missing."""
    reason = f"{NOT_RUN}{target} on {machine}; to run it: {remedy([machine])}"
    return pytest.param(
        target, machine, marks=pytest.mark.skipif(not available(machine), reason=reason), id=f"{target}-{machine}"
    )


PROCESSORS = [processor(name, machine) for name, target in TARGETS.items() for machine in target.machines]
FIRST_PROCESSORS = [processor(name, target.machines[0]) for name, target in TARGETS.items() if target.machines]


def emulate_batch(programs: Sequence[Program], target: str, folder: Path, machine: Machine, *flags: str) -> Emulated:
    """Compile many programs for one target as one library in `folder`, with further `flags`, to run on `machine`."""
    lowered, tools = static_batch(programs, target, folder, *flags)
    return emulate(folder / STATIC, lowered, tools, machine)


def assert_exact(emulated, images=3):
    """Every logit of every program is the interpreter's, bit by bit."""
    pixels = [
        random_pixels(np.random.default_rng(position), program, images)
        for position, program in enumerate(emulated.programs)
    ]
    for position, found in enumerate(emulated.run_all(pixels)):
        meant = interpret(emulated.programs[position], pixels[position])
        different = np.flatnonzero((found.view(np.int32) != meant.view(np.int32)).any(0))
        assert different.size == 0, f"program {position}: logits {different} of {meant.shape[1]} differ"
