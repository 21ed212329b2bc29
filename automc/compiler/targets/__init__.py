"""The instruction sets that automc compiles for, one file each."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path as FilePath

from automc.compiler.isa import Target
from automc.compiler.targets.armv7 import ARMV7
from automc.compiler.targets.avx2 import AVX2
from automc.compiler.targets.avx512vnni import AVX512VNNI
from automc.compiler.targets.avx512vpopcnt import AVX512VPOPCNT
from automc.compiler.targets.avxvnni import AVXVNNI
from automc.compiler.targets.cortexm4 import CORTEXM4
from automc.compiler.targets.i8mm import I8MM
from automc.compiler.targets.neon import NEON
from automc.compiler.targets.neondot import NEONDOT
from automc.compiler.targets.opencl import OPENCL
from automc.compiler.targets.portable import PORTABLE
from automc.compiler.targets.rv32 import RV32
from automc.compiler.targets.rv64 import RV64
from automc.compiler.targets.rvv import RVV
from automc.errors import NameNotFound
from automc.files import suggest

TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        PORTABLE, AVX2, AVXVNNI, AVX512VNNI, AVX512VPOPCNT, NEON, NEONDOT, I8MM, ARMV7, CORTEXM4, RV64, RVV, RV32,
        OPENCL,
    )
}  # fmt: skip
_DEFAULTS = (AVX2, NEON)  # of their families of processors


def find_target(name: str) -> Target:
    """The target of this name. Raises `NameNotFound` with the nearest name."""
    if name in TARGETS:
        return TARGETS[name]
    raise NameNotFound(f"there is no target {name!r}{suggest(name, TARGETS)}")


def host_target() -> str:
    """The target that is compiled for by default on this machine: `avx2` or `neon` where it has that, or `portable`.

    The faster ones are only ever chosen by name, so that results compare between machines.
    """
    return next((target.name for target in _DEFAULTS if runs_here(target)), PORTABLE.name)


def runs_here(target: Target) -> bool:
    """Whether this machine's processor says that it has what `target` needs; unknown counts as no.

    The library's own check, when it is loaded, has the last word.
    """
    if not target.loadable:
        return False
    return target.architecture in (None, host_architecture()) and set(target.cpu_flags) <= cpu_flags()


def host_architecture() -> str:
    """This machine's family of processors, as targets spell it."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64", "armv7l": "arm", "armv8l": "arm"}.get(machine, machine)


@cache
def cpu_flags() -> set[str]:
    """What Linux says that the processor has; the letters of a RISC-V processor's extensions are a flag each."""
    try:
        text = FilePath("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        match name.strip():
            case "flags" | "Features":
                return set(value.split())
            case "isa":
                return set(value.strip().partition("_")[0].removeprefix("rv64"))
    return set()
