"""x86 with AVX2: 8-bit products summed in 16 bits where the weights' bound allows it, else exact 16-bit products."""

from automc.compiler.isa import Path, Target
from automc.compiler.targets.x86 import HALVES, X86

_VOCABULARY = (
    X86
    + """
/* vpmaddubsw adds two products with saturation, so it is used only where the bound says that no sum reaches it. */
typedef __m256i narrow_sum;
typedef __m256i narrow_act;
INLINE narrow_sum narrow_zero(void) { return _mm256_setzero_si256(); }
INLINE narrow_act narrow_load(const uint8_t *p) { return _mm256_set1_epi32(four_bytes(p)); }
INLINE narrow_sum narrow_dot(narrow_sum s, narrow_act a, const int8_t *w) {
  return _mm256_add_epi16(s, _mm256_maddubs_epi16(a, _mm256_loadu_si256((const __m256i *)w)));
}
INLINE narrow_sum narrow_dot_taps(narrow_sum s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2,
                                  const uint8_t *p3, const int8_t *w) {
  return narrow_dot(s, byte_taps(p0, p1, p2, p3), w);
}
INLINE void narrow_dot_taps4(narrow_sum *s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3,
                             const int8_t *w) {
  __m256i t[4];
  byte_taps4(t, p0, p1, p2, p3);
  for (int r = 0; r < 4; r++) s[r] = narrow_dot(s[r], t[r], w + 32 * r);
}
INLINE void narrow_set_start(int16_t *p, narrow_sum s) {
  _mm256_storeu_si256((__m256i *)p, _mm256_sub_epi16(_mm256_setzero_si256(), s));
}
INLINE narrow_sum narrow_start(const int16_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE acc_t narrow_widen(acc_t a, narrow_sum s) {
  return _mm256_add_epi32(a, _mm256_madd_epi16(s, _mm256_set1_epi16(1)));
}

/* Sixteen-bit operands, exact for all weights and activations: bytes 0 and 2 of every four, then 1 and 3, as words. */
typedef __m256i wide_sum;
typedef __m256i wide_act;
INLINE wide_sum wide_zero(void) { return _mm256_setzero_si256(); }
INLINE wide_act wide_load(const uint8_t *p) { return _mm256_set1_epi32(four_bytes(p)); }
INLINE wide_sum wide_dot(wide_sum s, wide_act a, const int16_t *w) {
  const __m256i *v = (const __m256i *)w;
  const __m256i even = _mm256_and_si256(a, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(a, 8);
  s = _mm256_add_epi32(s, _mm256_madd_epi16(even, _mm256_loadu_si256(v)));
  return _mm256_add_epi32(s, _mm256_madd_epi16(odd, _mm256_loadu_si256(v + 1)));
}
INLINE wide_sum wide_dot_taps(wide_sum s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3,
                              const int16_t *w) {
  return wide_dot(s, byte_taps(p0, p1, p2, p3), w);
}
INLINE void wide_dot_taps4(wide_sum *s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3,
                           const int16_t *w) {
  __m256i t[4];
  byte_taps4(t, p0, p1, p2, p3);
  for (int r = 0; r < 4; r++) s[r] = wide_dot(s[r], t[r], w + 32 * r);
}
INLINE acc_t wide_widen(acc_t a, wide_sum s) { return _mm256_add_epi32(a, s); }

static int cpu_is_suitable(void) { return cpu_has(bit_AVX2, 0, 0x06); }
"""
)

AVX2 = Target(
    name="avx2",
    description="x86-64 with AVX2",
    vocabulary=_VOCABULARY,
    paths=(
        Path(
            "narrow", "int8_t", lanes_together=False, values_per_sum=2, largest_sum=2**15 - 1, pixels=5, vectors=2,
            starts=True, quads=(4,),
        ),
        Path(
            "wide", "int16_t", lanes_together=False, values_per_sum=2, largest_sum=2**31 - 1, pixels=5, vectors=2,
            quads=(4,), even_first=True,
        ),
    ),
    cpu_flags=("avx2",),
    flags={"zig": ("-mcpu=x86_64+avx2",), "gcc": ("-mavx2",), "clang": ("-mavx2",)},
    triple="x86_64-linux-gnu.2.17",
    bits=HALVES,
)  # fmt: skip
