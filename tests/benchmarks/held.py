"""Runtimes held to AVX2, where they offer no switch for it: a measurement aid, for copies of their packages.

In the copies, each instruction that asks the processor what it has becomes a trap, whose handler here answers without
AVX-512, AVX-VNNI and AMX. So each runtime's own dispatch takes the way that it takes on processors without them.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

_HANDLER = r"""
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <ucontext.h>
static void answer(int number, siginfo_t *info, void *context) {
  greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  unsigned leaf = (unsigned)r[REG_RAX], part = (unsigned)r[REG_RCX], a, b, c, d;
  __cpuid_count(leaf, part, a, b, c, d);
  if (leaf == 7 && part == 0) {
    b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31);
    c &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14);
    d &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25);
  }
  if (leaf == 7 && part == 1) { a &= ~(1u << 4 | 1u << 5 | 1u << 21 | 1u << 22 | 1u << 23); d = 0; }
  r[REG_RAX] = a; r[REG_RBX] = b; r[REG_RCX] = c; r[REG_RDX] = d;
}
int hold(void) {
  struct sigaction action = {0};
  action.sa_sigaction = answer;
  action.sa_flags = SA_SIGINFO;
  return sigaction(SIGTRAP, &action, 0);
}
"""
_CPUID, _TRAP = b"\x0f\xa2", b"\xcc\x90"


def hold_to_avx2(packages: tuple[str, ...], folder: Path) -> None:
    """Make later imports of these packages take copies in `folder` that see a processor without AVX-512 and AVX-VNNI.

    Needs gcc and objdump; Linux on x86-64 alone.
    """
    (folder / "handler.c").write_text(_HANDLER)
    command = ["gcc", "-O1", "-shared", "-fPIC", str(folder / "handler.c"), "-o", str(folder / "handler.so")]
    subprocess.run(command, check=True, timeout=60)
    if ctypes.CDLL(str(folder / "handler.so")).hold() != 0:
        raise SystemExit("the handler of traps cannot be installed")
    for package in packages:
        found = importlib.util.find_spec(package)
        assert found is not None
        assert found.origin is not None
        shutil.copytree(Path(found.origin).parent, folder / package)
        for library in (folder / package).rglob("*.so"):
            _replace(library)
    sys.path.insert(0, str(folder))


def _replace(library: Path) -> None:
    code = bytearray(library.read_bytes())
    if _CPUID not in code:
        return
    headers = subprocess.run(["objdump", "-h", str(library)], check=True, capture_output=True, text=True).stdout
    sections = re.findall(r"^\s+\d+ \S+\s+(\w+)\s+(\w+)\s+\w+\s+(\w+)", headers, re.MULTILINE)
    listing = subprocess.Popen(["objdump", "-d", "--no-show-raw-insn", str(library)], stdout=subprocess.PIPE, text=True)
    assert listing.stdout is not None
    for line in listing.stdout:
        if line.rstrip().endswith("\tcpuid"):
            address = int(line.partition(":")[0], 16)
            for size, start, offset in ((int(part, 16) for part in section) for section in sections):
                if start <= address < start + size:
                    place = address - start + offset
                    assert code[place : place + 2] == _CPUID
                    code[place : place + 2] = _TRAP
    if listing.wait() != 0:
        raise SystemExit(f"objdump failed on {library}")
    library.write_bytes(code)
