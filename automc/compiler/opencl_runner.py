"""Runs a program that calls OpenCL, in a process of its own: `python -m automc.compiler.opencl_runner PROGRAM.so`.

The program is a shared library with a `main`, which finds OpenCL's functions among those that are loaded before it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from typing import Any

from automc.compiler.emulators import OpenCL, open_cl
from automc.compiler.targets import cpu_flags
from automc.files import cache_directory

_JUMP = (b"\x48\xb8", b"\xff\xe0")  # x86-64: what lies between goes to rax, then the processor jumps there


def main(program: str) -> int:
    """The status that the program ends with."""
    found = open_cl()
    if found is None:
        print("PoCL is not installed: pip install 'automc[emulators]'", file=sys.stderr)
        return 1
    cache = cache_directory() / "pocl"
    cache.mkdir(parents=True, exist_ok=True)
    # The loader looks for drivers below PYOPENCL_HOME, and is told to take PoCL alone.
    os.environ |= {
        "PYOPENCL_HOME": str(found.loader.parents[1]),
        "OCL_ICD_VENDORS": str(found.driver),
        "POCL_CACHE_DIR": str(cache),
    }
    kept = _name_the_processor(found)
    ctypes.CDLL(str(found.loader), ctypes.RTLD_GLOBAL)
    status = int(ctypes.CDLL(program).main())
    del kept
    return status


def _name_the_processor(found: OpenCL) -> object:
    """Let PoCL compile for processors that are younger than itself; what comes back must live as long as PoCL is used.

    It calls them "generic", a name that its own compiler refuses. The function that gives the name is the only place
    to help: it is replaced where it lies in memory.
    """
    driver, system = ctypes.CDLL(str(found.driver)), ctypes.CDLL(None)
    named = driver.pocl_get_llvm_cpu_name
    named.restype = ctypes.c_char_p
    if named() != b"generic":
        return driver
    # The level whose vectors PoCL's own library of functions is compiled for.
    level = b"x86-64-v4" if "avx512f" in cpu_flags() else b"x86-64-v3"
    system.strdup.restype = ctypes.c_void_p
    replacement = ctypes.CFUNCTYPE(ctypes.c_void_p)(lambda: system.strdup(level))
    code = _JUMP[0] + _address(replacement).to_bytes(8, "little") + _JUMP[1]
    start = _address(named) // mmap.PAGESIZE * mmap.PAGESIZE
    length = _address(named) + len(code) - start
    if (
        system.mprotect(
            ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        )
        != 0
    ):
        return driver  # PoCL will say what it lacks
    ctypes.memmove(_address(named), code, len(code))
    return replacement


def _address(function: Any) -> int:
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
