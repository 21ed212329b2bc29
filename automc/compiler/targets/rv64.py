"""RISC-V without vectors (RV64GC): the portable form."""

import dataclasses

from automc.compiler.isa import Machine
from automc.compiler.targets.portable import PORTABLE

RV64 = dataclasses.replace(
    PORTABLE,
    name="rv64",
    description="64-bit RISC-V (RV64GC)",
    flags={"zig": ("-mcpu=generic_rv64+m+a+f+d+c",), "gcc": ("-march=rv64gc",), "clang": ("-march=rv64gc",)},
    triple="riscv64-linux-gnu.2.27",
    machines=(Machine("unicorn", "sifive-u54"), Machine("qemu-riscv64", "sifive-u54")),
)
