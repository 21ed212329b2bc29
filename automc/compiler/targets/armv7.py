"""ARMv7-A with NEON: the first generation's instructions, as on AArch64, with half as many registers."""

from automc.compiler.isa import Machine, Target
from automc.compiler.targets.arm import COUNTED, NEON, neon_paths

ARMV7 = Target(
    name="armv7",
    description="ARMv7-A with NEON",
    vocabulary=NEON + "\nstatic int cpu_is_suitable(void) { return 1; }\n",
    paths=neon_paths(pixels=2),
    cpu_flags=("neon",),
    flags={
        "zig": ("-mcpu=cortex_a7",),
        "gcc": ("-march=armv7-a+neon-vfpv4", "-mfloat-abi=hard"),
        "clang": ("-march=armv7-a", "-mfpu=neon-vfpv4"),
    },
    triple="arm-linux-gnueabihf.2.17",
    bits=COUNTED,
    machines=(Machine("unicorn", "cortex-a7"), Machine("qemu-arm", "cortex-a7")),
)
