"""x86 with AVX-512 VNNI and VPOPCNTDQ: binary layers count the bits of eight words in one instruction."""

import dataclasses

from automc.compiler.isa import Path
from automc.compiler.targets.avx512vnni import AVX512VNNI

_VOCABULARY = (
    AVX512VNNI.vocabulary.replace("bit_AVX512VNNI", "bit_AVX512VNNI | bit_AVX512VPOPCNTDQ")
    + """
typedef __m256i vpopcnt_sum;
typedef __m256i vpopcnt_act;
INLINE vpopcnt_sum vpopcnt_zero(void) { return _mm256_setzero_si256(); }
INLINE vpopcnt_act vpopcnt_load(const uint8_t *p) { return _mm256_set1_epi32(four_bytes(p)); }
INLINE vpopcnt_sum vpopcnt_dot(vpopcnt_sum s, vpopcnt_act a, const int8_t *w) {
  return _mm256_add_epi32(s, _mm256_popcnt_epi32(_mm256_xor_si256(a, _mm256_loadu_si256((const __m256i *)w))));
}
INLINE acc_t vpopcnt_widen(acc_t a, vpopcnt_sum s) { return _mm256_sub_epi32(a, s); }

typedef __m512i twin_vpopcnt_sum;
typedef __m512i twin_vpopcnt_act;
INLINE twin_vpopcnt_sum twin_vpopcnt_zero(void) { return _mm512_setzero_si512(); }
INLINE twin_vpopcnt_act twin_vpopcnt_load(const uint8_t *p) { return _mm512_set1_epi32(four_bytes(p)); }
INLINE twin_vpopcnt_sum twin_vpopcnt_dot(twin_vpopcnt_sum s, twin_vpopcnt_act a, const int8_t *w) {
  return _mm512_add_epi32(s, _mm512_popcnt_epi32(_mm512_xor_si512(a, _mm512_loadu_si512(w))));
}
INLINE twin_acc_t twin_vpopcnt_widen(twin_acc_t a, twin_vpopcnt_sum s) { return _mm512_sub_epi32(a, s); }
"""
)

_ZIG, *_TUNING = AVX512VNNI.flags["zig"]

AVX512VPOPCNT = dataclasses.replace(
    AVX512VNNI,
    name="avx512vpopcnt",
    description="x86-64 with AVX-512 VNNI and VPOPCNTDQ",
    vocabulary=_VOCABULARY,
    cpu_flags=(*AVX512VNNI.cpu_flags, "avx512_vpopcntdq"),
    flags={
        "zig": (f"{_ZIG}+avx512vpopcntdq", *_TUNING),
        "gcc": (*AVX512VNNI.flags["gcc"], "-mavx512vpopcntdq"),
        "clang": (*AVX512VNNI.flags["clang"], "-mavx512vpopcntdq"),
    },
    bits=Path(
        "vpopcnt", "int8_t", lanes_together=False, values_per_sum=32, largest_sum=2**31 - 1, pixels=8, vectors=4,
        twins=True,
    ),
)  # fmt: skip
