"""x86 with AVX-512 VNNI in 256-bit registers: four 8-bit products are added to an int32 in one instruction."""

from automc.compiler.isa import Path, Target
from automc.compiler.targets.x86 import X86

_VOCABULARY = (
    X86
    + """
typedef __m256i vnni_sum;
typedef __m256i vnni_act;
INLINE vnni_sum vnni_zero(void) { return _mm256_setzero_si256(); }
INLINE vnni_act vnni_load(const uint8_t *p) { return _mm256_set1_epi32(four_bytes(p)); }
INLINE vnni_sum vnni_dot(vnni_sum s, vnni_act a, const int8_t *w) {
  return _mm256_dpbusd_epi32(s, a, _mm256_loadu_si256((const __m256i *)w));
}
INLINE vnni_sum vnni_dot_taps(vnni_sum s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3,
                              const int8_t *w) {
  return vnni_dot(s, byte_taps(p0, p1, p2, p3), w);
}
INLINE acc_t vnni_widen(acc_t a, vnni_sum s) { return _mm256_add_epi32(a, s); }

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
)
