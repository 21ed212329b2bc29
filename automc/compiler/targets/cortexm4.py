"""Cortex-M4 with its floating-point unit, and the larger Cortex-M: the portable form as Thumb code, for no system."""

import dataclasses

from automc.compiler.isa import Machine
from automc.compiler.targets.portable import PORTABLE

CORTEXM4 = dataclasses.replace(
    PORTABLE,
    name="cortexm4",
    description="Cortex-M4F (ARMv7E-M, Thumb)",
    flags={"zig": ("-mcpu=cortex_m4+vfp4d16sp",)},
    triple="thumb-linux-musleabihf",
    loadable=False,
    machines=(Machine("unicorn", "cortex-m4"),),
)
