"""x86 with AVX-512 VNNI in 256-bit registers: four 8-bit products are added to an int32 in one instruction."""

from automc.compiler.isa import Path, Target
from automc.compiler.targets.x86 import HALVES, X86, vnni

_VOCABULARY = (
    X86
    + vnni("_mm256_dpbusd_epi32")
    + """
static int cpu_is_suitable(void) {
  return cpu_has(bit_AVX2 | bit_AVX512F | bit_AVX512BW | bit_AVX512VL, bit_AVX512VNNI, 0xE6);
}
"""
)

_FEATURES = ("avx2", "avx512f", "avx512bw", "avx512vl", "avx512vnni")
_GCC_FLAGS = (*(f"-m{feature}" for feature in _FEATURES), "-mprefer-vector-width=256")

AVX512VNNI = Target(
    name="avx512vnni",
    description="x86-64 with AVX-512 VNNI",
    vocabulary=_VOCABULARY,
    paths=(Path("vnni", "int8_t", lanes_together=False, values_per_sum=4, largest_sum=2**31 - 1, pixels=8, vectors=2),),
    cpu_flags=("avx2", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    flags={
        "zig": ("-mcpu=x86_64+" + "+".join(_FEATURES), "-mprefer-vector-width=256"),
        "gcc": _GCC_FLAGS,
        "clang": _GCC_FLAGS,
    },
    triple="x86_64-linux-gnu.2.17",
    bits=HALVES,
)
