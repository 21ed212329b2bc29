"""The instruction sets that automc compiles for, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath

from automc.compiler.isa import Target
from automc.compiler.targets.avx2 import AVX2
from automc.compiler.targets.avx512vnni import AVX512VNNI
from automc.compiler.targets.portable import PORTABLE
from automc.errors import NameNotFound
from automc.files import closest

TARGETS: Mapping[str, Target] = {target.name: target for target in (PORTABLE, AVX2, AVX512VNNI)}


def find_target(name: str) -> Target:
    """The target of this name. Raises `NameNotFound` with the nearest name."""
    if name in TARGETS:
        return TARGETS[name]
    raise NameNotFound(f"there is no target {name!r}{closest(name, TARGETS)} (known: {', '.join(TARGETS)})")


def host_target() -> str:
    """The target that is compiled for by default on this machine: `avx2` where the processor has it, or `portable`.

    `avx512vnni` is only ever chosen by name, so that results compare between machines.
    """
    return AVX2.name if runs_here(AVX2) else PORTABLE.name


def runs_here(target: Target) -> bool:
    """Whether this machine's processor says that it has what `target` needs; unknown counts as no.

    The library's own check, when it is loaded, has the last word.
    """
    return set(target.cpu_flags) <= _cpu_flags()


def _cpu_flags() -> set[str]:
    try:
        text = FilePath("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    for line in text.splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()
