"""RISC-V microcontrollers without a floating-point unit (RV32IMC): binary32 arithmetic in integers."""

from automc.compiler.isa import Machine, Target
from automc.compiler.targets.portable import LANES_OF_INTEGERS, PORTABLE
from automc.compiler.targets.soft import LANES_OF_SOFT_FLOATS

RV32 = Target(
    name="rv32",
    description="32-bit RISC-V without floating point (RV32IMC)",
    vocabulary=LANES_OF_INTEGERS + LANES_OF_SOFT_FLOATS,
    paths=PORTABLE.paths,
    cpu_flags=(),
    flags={"zig": ("-mcpu=generic_rv32+m+c",)},
    triple="riscv32-linux-musl",
    loadable=False,
    machines=(Machine("unicorn", "sifive-e31"), Machine("qemu-riscv32", "sifive-e31")),
    skipped_density=PORTABLE.skipped_density,
)
