"""What the x86 targets share: eight int32 or binary32 lanes in a 256-bit register, and the processor's own account."""

from automc.compiler.isa import Path

HALVES = Path("halves", "int8_t", lanes_together=False, values_per_sum=8, largest_sum=255, pixels=4, vectors=2)

X86 = """
#include <immintrin.h>
#include <cpuid.h>
typedef __m256i acc_t;
typedef __m256 value_t;

INLINE acc_t acc_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE acc_t acc_add(acc_t a, acc_t b) { return _mm256_add_epi32(a, b); }
INLINE acc_t acc_bytes(const uint8_t *p, int zero) {
  return _mm256_sub_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)), _mm256_set1_epi32(zero));
}
INLINE value_t value_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE value_t value_splat(float x) { return _mm256_set1_ps(x); }
INLINE value_t value_scale(acc_t a, value_t m) { return _mm256_mul_ps(_mm256_cvtepi32_ps(a), m); }
INLINE value_t value_add(value_t a, value_t b) { return _mm256_add_ps(a, b); }

/* What is below zero, however far, becomes zero when it is packed; what is too large would become negative first. */
INLINE void store_bytes(uint8_t *p, int count, value_t v, int low, int high, int zero) {
  if (low > 0) v = _mm256_max_ps(v, _mm256_set1_ps((float)(low - zero)));
  v = _mm256_min_ps(v, _mm256_set1_ps((float)(high - zero)));
  const __m256i rounded = _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(zero));
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
  const long long bytes = _mm_cvtsi128_si64(_mm_packus_epi16(words, words));
  memcpy(p, &bytes, (size_t)count);
}
/* Four registers in the order that transposing bytes gives: of every 16 channels, 4r to 4r + 3 are in register r. */
INLINE void acc_load4(acc_t *c, const int32_t *p) {
  const __m128i *part = (const __m128i *)p;
  for (int r = 0; r < 4; r++) c[r] = _mm256_loadu2_m128i(part + 4 + r, part + r);
}
INLINE void value_load4(value_t *v, const float *p) {
  for (int r = 0; r < 4; r++) v[r] = _mm256_loadu2_m128(p + 16 + 4 * r, p + 4 * r);
}
INLINE void store_bytes4(uint8_t *p, const value_t *v, int low, int high, int zero) {
  __m256i x[4];
  for (int r = 0; r < 4; r++) {
    const value_t raised = low > 0 ? _mm256_max_ps(v[r], _mm256_set1_ps((float)(low - zero))) : v[r];
    x[r] = _mm256_cvtps_epi32(_mm256_min_ps(raised, _mm256_set1_ps((float)(high - zero))));
    x[r] = _mm256_add_epi32(x[r], _mm256_set1_epi32(zero));
  }
  const __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(x[0], x[1]), _mm256_packs_epi32(x[2], x[3]));
  _mm256_storeu_si256((__m256i *)p, bytes);
}
INLINE void store_values(float *p, int count, value_t v) {
  float lanes[8];
  _mm256_storeu_ps(lanes, v);
  memcpy(p, lanes, (size_t)count * sizeof *p);
}

INLINE int32_t four_bytes(const uint8_t *p) { int32_t x; memcpy(&x, p, sizeof x); return x; }
INLINE __m256i byte_taps(const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3) {
  const __m128i t0 = _mm_loadl_epi64((const __m128i *)p0), t1 = _mm_loadl_epi64((const __m128i *)p1);
  const __m128i t2 = _mm_loadl_epi64((const __m128i *)p2), t3 = _mm_loadl_epi64((const __m128i *)p3);
  const __m128i front = _mm_unpacklo_epi8(t0, t1), back = _mm_unpacklo_epi8(t2, t3);
  return _mm256_set_m128i(_mm_unpackhi_epi16(front, back), _mm_unpacklo_epi16(front, back));
}

INLINE void byte_taps4(__m256i *t, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3) {
  const __m256i t0 = _mm256_loadu_si256((const __m256i *)p0), t1 = _mm256_loadu_si256((const __m256i *)p1);
  const __m256i t2 = _mm256_loadu_si256((const __m256i *)p2), t3 = _mm256_loadu_si256((const __m256i *)p3);
  const __m256i low01 = _mm256_unpacklo_epi8(t0, t1), high01 = _mm256_unpackhi_epi8(t0, t1);
  const __m256i low23 = _mm256_unpacklo_epi8(t2, t3), high23 = _mm256_unpackhi_epi8(t2, t3);
  t[0] = _mm256_unpacklo_epi16(low01, low23);
  t[1] = _mm256_unpackhi_epi16(low01, low23);
  t[2] = _mm256_unpacklo_epi16(high01, high23);
  t[3] = _mm256_unpackhi_epi16(high01, high23);
}

/* Values of a table: 16 at a time from each part of the table; where bit 7 of its index is set, vpshufb gives 0. */
#define LOOKS_UP
static void look_up(uint8_t *bytes, int count, const int8_t *table, int bits) {
  const int parts = bits > 4 ? 1 << (bits - 4) : 1;
  int8_t first[16];
  memcpy(first, table, bits < 4 ? (size_t)1 << bits : 16);
  int i = 0;
  for (; parts <= 4 && i + 32 <= count; i += 32) {
    const __m256i index = _mm256_loadu_si256((const __m256i *)(bytes + i));
    __m256i values = _mm256_setzero_si256();
    for (int part = 0; part < parts; part++) {
      const __m128i *entries = (const __m128i *)(part ? table + 16 * part : first);
      const __m256i place = _mm256_sub_epi8(index, _mm256_set1_epi8((char)(16 * part)));
      const __m256i outside = _mm256_cmpgt_epi8(place, _mm256_set1_epi8(15));
      values = _mm256_or_si256(values, _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(entries)),
                                                           _mm256_or_si256(place, outside)));
    }
    _mm256_storeu_si256((__m256i *)(bytes + i), values);
  }
  for (; i < count; i++) bytes[i] = (uint8_t)table[bytes[i]];
}

INLINE uint32_t pack_bits(const uint8_t *p) {
  return (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(_mm256_loadu_si256((const __m256i *)p), 7));
}

/* Differing bits are counted in bytes, each half of a byte by a table. */
typedef __m256i halves_sum;
typedef __m256i halves_act;
INLINE halves_sum halves_zero(void) { return _mm256_setzero_si256(); }
INLINE halves_act halves_load(const uint8_t *p) { return _mm256_set1_epi32(four_bytes(p)); }
INLINE halves_sum halves_dot(halves_sum s, halves_act a, const int8_t *w) {
  const __m256i counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
                                          0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i half = _mm256_set1_epi8(15), x = _mm256_xor_si256(a, _mm256_loadu_si256((const __m256i *)w));
  const __m256i low = _mm256_shuffle_epi8(counts, _mm256_and_si256(x, half));
  const __m256i high = _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi16(x, 4), half));
  return _mm256_add_epi8(s, _mm256_add_epi8(low, high));
}
INLINE acc_t halves_widen(acc_t a, halves_sum s) {
  const __m256i pairs = _mm256_maddubs_epi16(s, _mm256_set1_epi8(1));
  return _mm256_sub_epi32(a, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/* Bits of CPUID leaf 7, and the register states that the system saves (XCR0). */
static int cpu_has(unsigned ebx_bits, unsigned ecx_bits, unsigned states) {
  unsigned a, b, c, d, low, high;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
  __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & states) != states) return 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  return (b & ebx_bits) == ebx_bits && (c & ecx_bits) == ecx_bits;
}
"""

_VNNI = """
typedef __m256i vnni_sum;
typedef __m256i vnni_act;
INLINE vnni_sum vnni_zero(void) { return _mm256_setzero_si256(); }
INLINE vnni_act vnni_load(const uint8_t *p) { return _mm256_set1_epi32(four_bytes(p)); }
INLINE vnni_sum vnni_dot(vnni_sum s, vnni_act a, const int8_t *w) {
  return DPBUSD(s, a, _mm256_loadu_si256((const __m256i *)w));
}
INLINE vnni_sum vnni_dot_taps(vnni_sum s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3,
                              const int8_t *w) {
  return vnni_dot(s, byte_taps(p0, p1, p2, p3), w);
}
INLINE void vnni_dot_taps4(vnni_sum *s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3,
                           const int8_t *w) {
  __m256i t[4];
  byte_taps4(t, p0, p1, p2, p3);
  for (int r = 0; r < 4; r++) s[r] = vnni_dot(s[r], t[r], w + 32 * r);
}
INLINE acc_t vnni_widen(acc_t a, vnni_sum s) { return _mm256_add_epi32(a, s); }
"""


def vnni(intrinsic: str) -> str:
    """The path of the instruction that adds four products of bytes to an int32, by one of its two encodings."""
    return _VNNI.replace("DPBUSD", intrinsic)
