"""What one core multiplies and adds at most: the instructions of each x86 kernel alone, everything in registers.

    python -m tests.benchmarks.limits

A chain of additions, one a cycle, tells the clock. The best of many rounds counts.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path
from string import Template

from automc.compiler.targets import TARGETS, runs_here
from automc.compiler.toolchain import tool_chain

_REPEATS, _ROUNDS = 20_000, 200
_SUMS = 8  # independent chains

# The target, what is done to a register S of sums by X and W, and how many multiply-accumulates that is. NEW hides from
# the compiler that X is the same again.
_WIDEN = "S = _mm256_add_epi32(S, _mm256_madd_epi16(T, ONE));"
_MIXES = {
    "vpmaddubsw, vpaddw": ("avx2", "__m256i", "S = _mm256_add_epi16(S, _mm256_maddubs_epi16(X, W));", 32),
    "the same, widened every 2": (
        "avx2",
        "__m256i",
        "T = _mm256_add_epi16(ONE, _mm256_maddubs_epi16(X, W)); NEW; "
        f"T = _mm256_add_epi16(T, _mm256_maddubs_epi16(X, W)); {_WIDEN}",
        64,
    ),
    "vpmaddubsw, vpmaddwd, vpaddd": ("avx2", "__m256i", f"T = _mm256_maddubs_epi16(X, W); {_WIDEN}", 32),
    "vpmaddwd, vpaddd": ("avx2", "__m256i", "S = _mm256_add_epi32(S, _mm256_madd_epi16(X, W));", 16),
    "vpdpbusd, 512 bits": ("avx512vnni", "__m512i", "S = _mm512_dpbusd_epi32(S, X, W);", 64),
}

_SOURCE = Template("""
#include <immintrin.h>
#include <string.h>
#include <time.h>
#define NEW __asm__ volatile("" : "+v"(X))
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
double clock_seconds(int n) {
  long x = 1;
  const double begun = now();
  for (int i = 0; i < n; i++) for (int j = 0; j < 16; j++) __asm__ volatile("add $$1, %0" : "+r"(x));
  return (now() - begun) / 16;
}
double mix_seconds(int n) {
  $type X, W, ONE, T, $names;
  memset(&X, 3, sizeof X); memset(&W, 5, sizeof W); memset(&ONE, 1, sizeof ONE);
  const double begun = now();
  for (int i = 0; i < n; i++) {
$body
  }
  const double seconds = now() - begun;
$keep
  (void)ONE, (void)T;
  return seconds;
}
""")


def limit(target: str, kind: str, operation: str, macs: int, folder: Path) -> tuple[float, float]:
    """Multiply-accumulates a second, and cycles a second."""
    chains = [f"s{number}" for number in range(_SUMS)]
    body = [f"    NEW; {operation.replace('S =', f'{s} =').replace('(S,', f'({s},')}" for s in chains]
    keep = [f'  __asm__ volatile("" : : "v"({s}));' for s in chains]
    names = ", ".join(f"{s} = {{0}}" for s in chains)
    source = _SOURCE.substitute(type=kind, names=names, body="\n".join(body), keep="\n".join(keep))
    (folder / "limit.c").write_text(source)
    tool_chain("zig", TARGETS[target]).with_flags("-D_POSIX_C_SOURCE=199309L").compile(
        [folder / "limit.c"], folder / "limit.so"
    )
    code = ctypes.CDLL(str(folder / "limit.so"))
    code.mix_seconds.restype = code.clock_seconds.restype = ctypes.c_double
    fastest = min(code.mix_seconds(_REPEATS) for _ in range(_ROUNDS))
    cycle = min(code.clock_seconds(_REPEATS) for _ in range(_ROUNDS)) / _REPEATS
    return macs * _SUMS * _REPEATS / fastest, 1 / cycle


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for name, (target, kind, operation, macs) in _MIXES.items():
        if not runs_here(TARGETS[target]):
            print(f"{target}: this processor does not run it")
            continue
        with tempfile.TemporaryDirectory() as folder:
            rate, clock = limit(target, kind, operation, macs, Path(folder))
        print(f"{name:32s} {rate / 1e9:6.0f} GMAC/s, {rate / clock:5.1f} a cycle of {clock / 1e9:.2f} GHz")


if __name__ == "__main__":
    main()
