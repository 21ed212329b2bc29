"""x86 with AVX-512 VNNI: four 8-bit products are added to an int32 in one instruction."""

from automc.compiler.isa import Path, Target
from automc.compiler.targets.x86 import HALVES, X86, vnni

# What there is for eight lanes, for sixteen in a 512-bit register.
TWINS = """
typedef __m512i twin_acc_t;
typedef __m512 twin_value_t;
INLINE twin_acc_t twin_acc_load(const int32_t *p) { return _mm512_loadu_si512(p); }
INLINE twin_acc_t twin_acc_bytes(const uint8_t *p, int zero) {
  return _mm512_sub_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)), _mm512_set1_epi32(zero));
}
INLINE twin_value_t twin_value_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE twin_value_t twin_value_splat(float x) { return _mm512_set1_ps(x); }
INLINE twin_value_t twin_value_scale(twin_acc_t a, twin_value_t m) { return _mm512_mul_ps(_mm512_cvtepi32_ps(a), m); }
INLINE twin_value_t twin_value_add(twin_value_t a, twin_value_t b) { return _mm512_add_ps(a, b); }
INLINE void twin_store_bytes(uint8_t *p, int count, twin_value_t v, int low, int high, int zero) {
  v = _mm512_max_ps(v, _mm512_set1_ps((float)(low - zero)));
  v = _mm512_min_ps(v, _mm512_set1_ps((float)(high - zero)));
  const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(zero)));
  _mm_mask_storeu_epi8(p, (__mmask16)((1u << count) - 1), bytes);
}
INLINE __m512i four_parts(const void *p) { /* Of every 64 bytes, the first 16. */
  const __m128i *part = (const __m128i *)p;
  __m512i all = _mm512_castsi128_si512(_mm_loadu_si128(part));
  all = _mm512_inserti32x4(all, _mm_loadu_si128(part + 4), 1);
  all = _mm512_inserti32x4(all, _mm_loadu_si128(part + 8), 2);
  return _mm512_inserti32x4(all, _mm_loadu_si128(part + 12), 3);
}
INLINE void twin_acc_load4(twin_acc_t *c, const int32_t *p) {
  for (int r = 0; r < 4; r++) c[r] = four_parts(p + 4 * r);
}
INLINE void twin_value_load4(twin_value_t *v, const float *p) {
  for (int r = 0; r < 4; r++) v[r] = _mm512_castsi512_ps(four_parts(p + 4 * r));
}
INLINE void twin_store_bytes4(uint8_t *p, const twin_value_t *v, int low, int high, int zero) {
  __m512i x[4];
  for (int r = 0; r < 4; r++) {
    const twin_value_t clamped = _mm512_max_ps(v[r], _mm512_set1_ps((float)(low - zero)));
    x[r] = _mm512_cvtps_epi32(_mm512_min_ps(clamped, _mm512_set1_ps((float)(high - zero))));
    x[r] = _mm512_add_epi32(x[r], _mm512_set1_epi32(zero));
  }
  _mm512_storeu_si512(p, _mm512_packus_epi16(_mm512_packs_epi32(x[0], x[1]), _mm512_packs_epi32(x[2], x[3])));
}
INLINE void twin_store_values(float *p, int count, twin_value_t v) {
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), v);
}

typedef __m512i twin_vnni_sum;
typedef __m512i twin_vnni_act;
INLINE twin_vnni_sum twin_vnni_zero(void) { return _mm512_setzero_si512(); }
INLINE twin_vnni_act twin_vnni_load(const uint8_t *p) { return _mm512_set1_epi32(four_bytes(p)); }
INLINE twin_vnni_sum twin_vnni_dot(twin_vnni_sum s, twin_vnni_act a, const int8_t *w) {
  return _mm512_dpbusd_epi32(s, a, _mm512_loadu_si512(w));
}
INLINE void twin_vnni_dot_taps4(twin_vnni_sum *s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2,
                                const uint8_t *p3, const int8_t *w) {
  const __m512i t0 = _mm512_loadu_si512(p0), t1 = _mm512_loadu_si512(p1);
  const __m512i t2 = _mm512_loadu_si512(p2), t3 = _mm512_loadu_si512(p3);
  const __m512i low01 = _mm512_unpacklo_epi8(t0, t1), high01 = _mm512_unpackhi_epi8(t0, t1);
  const __m512i low23 = _mm512_unpacklo_epi8(t2, t3), high23 = _mm512_unpackhi_epi8(t2, t3);
  s[0] = _mm512_dpbusd_epi32(s[0], _mm512_unpacklo_epi16(low01, low23), _mm512_loadu_si512(w));
  s[1] = _mm512_dpbusd_epi32(s[1], _mm512_unpackhi_epi16(low01, low23), _mm512_loadu_si512(w + 64));
  s[2] = _mm512_dpbusd_epi32(s[2], _mm512_unpacklo_epi16(high01, high23), _mm512_loadu_si512(w + 128));
  s[3] = _mm512_dpbusd_epi32(s[3], _mm512_unpackhi_epi16(high01, high23), _mm512_loadu_si512(w + 192));
}
INLINE twin_acc_t twin_vnni_widen(twin_acc_t a, twin_vnni_sum s) { return _mm512_add_epi32(a, s); }
"""

_VOCABULARY = (
    X86
    + vnni("_mm256_dpbusd_epi32")
    + TWINS
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
    paths=(
        Path(
            "vnni", "int8_t", lanes_together=False, values_per_sum=4, largest_sum=2**31 - 1, pixels=8, vectors=4,
            quads=(8, 4), twins=True,
        ),
    ),
    cpu_flags=("avx2", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    flags={
        "zig": ("-mcpu=x86_64+" + "+".join(_FEATURES), "-mprefer-vector-width=256"),
        "gcc": _GCC_FLAGS,
        "clang": _GCC_FLAGS,
    },
    triple="x86_64-linux-gnu.2.17",
    bits=HALVES,
)  # fmt: skip
