"""AArch64 with NEON as of ARMv8.0: 8-bit products summed in 16 bits where the bound allows it, else 16-bit products."""

from automc.compiler.isa import Machine, Target
from automc.compiler.targets.arm import COUNTED, neon_paths
from automc.compiler.targets.arm import NEON as _NEON

NEON = Target(
    name="neon",
    description="AArch64 with NEON (ARMv8.0)",
    vocabulary=_NEON + "\nstatic int cpu_is_suitable(void) { return 1; }\n",
    paths=neon_paths(pixels=4),
    cpu_flags=("asimd",),
    flags={"zig": ("-mcpu=cortex_a53",), "gcc": ("-march=armv8-a",), "clang": ("-march=armv8-a",)},
    triple="aarch64-linux-gnu.2.17",
    bits=COUNTED,
    machines=(Machine("unicorn", "cortex-a53"), Machine("qemu-aarch64", "cortex-a53")),
)
