"""What the Arm targets share: eight int32 or binary32 lanes in two 128-bit registers, and products of 8 and 16 bits."""

from automc.compiler.isa import Path

_COMMON = """
#include <arm_neon.h>
typedef int32x4x2_t acc_t;
typedef float32x4x2_t value_t;

INLINE acc_t acc_of(int32x4_t front, int32x4_t back) { acc_t a = {{front, back}}; return a; }
INLINE value_t value_of(float32x4_t front, float32x4_t back) { value_t v = {{front, back}}; return v; }
INLINE acc_t acc_load(const int32_t *p) { return acc_of(vld1q_s32(p), vld1q_s32(p + 4)); }
INLINE acc_t acc_add(acc_t a, acc_t b) {
  return acc_of(vaddq_s32(a.val[0], b.val[0]), vaddq_s32(a.val[1], b.val[1]));
}
INLINE acc_t acc_bytes(const uint8_t *p, int zero) {
  const int16x8_t words = vsubq_s16(vreinterpretq_s16_u16(vmovl_u8(vld1_u8(p))), vdupq_n_s16((int16_t)zero));
  return acc_of(vmovl_s16(vget_low_s16(words)), vmovl_s16(vget_high_s16(words)));
}
INLINE value_t value_load(const float *p) { return value_of(vld1q_f32(p), vld1q_f32(p + 4)); }
INLINE value_t value_splat(float x) { return value_of(vdupq_n_f32(x), vdupq_n_f32(x)); }
INLINE value_t value_scale(acc_t a, value_t m) {
  return value_of(vmulq_f32(vcvtq_f32_s32(a.val[0]), m.val[0]), vmulq_f32(vcvtq_f32_s32(a.val[1]), m.val[1]));
}
INLINE value_t value_add(value_t a, value_t b) {
  return value_of(vaddq_f32(a.val[0], b.val[0]), vaddq_f32(a.val[1], b.val[1]));
}

/* Between 2^23 and 2^24 binary32 holds only integers, so the addition rounds to the nearest, ties to even; ARMv7 has
   no conversion that does. The low bits of the sum are the integer's, since those of the addend's are zero. */
INLINE int16x4_t rounded(float32x4_t v, int least, int most) {
  v = vminq_f32(vmaxq_f32(v, vdupq_n_f32((float)least)), vdupq_n_f32((float)most));
  return vmovn_s32(vreinterpretq_s32_f32(vaddq_f32(v, vdupq_n_f32(12582912.0f))));
}
INLINE void store_bytes(uint8_t *p, int count, value_t v, int low, int high, int zero) {
  const int16x8_t words = vcombine_s16(rounded(v.val[0], low - zero, high - zero),
                                       rounded(v.val[1], low - zero, high - zero));
  const uint8x8_t bytes = vadd_u8(vmovn_u16(vreinterpretq_u16_s16(words)), vdup_n_u8((uint8_t)zero));
  if (count == 8) vst1_u8(p, bytes);
  else memcpy(p, &bytes, (size_t)count);
}
INLINE void store_values(float *p, int count, value_t v) { memcpy(p, &v, (size_t)count * sizeof *p); }

INLINE uint32_t four_bytes(const uint8_t *p) { uint32_t x; memcpy(&x, p, sizeof x); return x; }

/* Sixteen-bit operands, exact for all weights and activations. */
typedef acc_t wide_sum;
typedef int16x4_t wide_act;
INLINE wide_sum wide_zero(void) { return acc_of(vdupq_n_s32(0), vdupq_n_s32(0)); }
INLINE wide_act wide_load(const uint8_t *p) {
  return vget_low_s16(vreinterpretq_s16_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four_bytes(p))))));
}
#define WIDE_STEP(k) \\
  s.val[0] = vmlal_lane_s16(s.val[0], vld1_s16(w + 8 * k), a, k); \\
  s.val[1] = vmlal_lane_s16(s.val[1], vld1_s16(w + 8 * k + 4), a, k);
INLINE wide_sum wide_dot(wide_sum s, wide_act a, const int16_t *w) {
  WIDE_STEP(0) WIDE_STEP(1) WIDE_STEP(2) WIDE_STEP(3)
  return s;
}
INLINE wide_sum wide_tap(wide_sum s, const uint8_t *p, const int16_t *w) {
  const int16x8_t a = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(p)));
  return acc_of(vmlal_s16(s.val[0], vld1_s16(w), vget_low_s16(a)),
                vmlal_s16(s.val[1], vld1_s16(w + 4), vget_high_s16(a)));
}
INLINE wide_sum wide_dot_taps(wide_sum s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3,
                              const int16_t *w) {
  return wide_tap(wide_tap(wide_tap(wide_tap(s, p0, w), p1, w + 8), p2, w + 16), p3, w + 24);
}
INLINE acc_t wide_widen(acc_t a, wide_sum s) { return acc_add(a, s); }

/* Differing bits are counted in bytes. */
INLINE uint32_t pack_bits(const uint8_t *p) {
  static const int8_t places[16] = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7};
  uint32_t word = 0;
  for (int i = 0; i < 2; i++) {
    const uint8x16_t bits = vshlq_u8(vld1q_u8(p + 16 * i), vld1q_s8(places));
    const uint64x2_t bytes = vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(bits)));
    word |= (uint32_t)(vgetq_lane_u64(bytes, 0) | vgetq_lane_u64(bytes, 1) << 8) << 16 * i;
  }
  return word;
}
typedef uint8x16x2_t counted_sum;
typedef uint8x16_t counted_act;
INLINE counted_sum counted_zero(void) { const counted_sum s = {{vdupq_n_u8(0), vdupq_n_u8(0)}}; return s; }
INLINE counted_act counted_load(const uint8_t *p) { return vreinterpretq_u8_u32(vdupq_n_u32(four_bytes(p))); }
INLINE counted_sum counted_dot(counted_sum s, counted_act a, const int8_t *w) {
  const uint8_t *bytes = (const uint8_t *)w;
  s.val[0] = vaddq_u8(s.val[0], vcntq_u8(veorq_u8(a, vld1q_u8(bytes))));
  s.val[1] = vaddq_u8(s.val[1], vcntq_u8(veorq_u8(a, vld1q_u8(bytes + 16))));
  return s;
}
INLINE acc_t counted_widen(acc_t a, counted_sum s) {
  return acc_of(vsubq_s32(a.val[0], vreinterpretq_s32_u32(vpaddlq_u16(vpaddlq_u8(s.val[0])))),
                vsubq_s32(a.val[1], vreinterpretq_s32_u32(vpaddlq_u16(vpaddlq_u8(s.val[1])))));
}
"""

# How one-bit layers are computed: up to 8 differing bits a byte and step.
COUNTED = Path("counted", "int8_t", lanes_together=False, values_per_sum=8, largest_sum=255, pixels=4, vectors=1)

# The multiplication takes signed bytes: stored values below 128 as they are, others less an offset of 128.
_NARROW = """
typedef int16x8_t NAME_sum;
typedef int8x8x4_t NAME_act;
INLINE NAME_sum NAME_zero(void) { return vdupq_n_s16(0); }
INLINE int8x8_t NAME_signed(uint8x8_t a) { return vreinterpret_s8_u8(SIGNED(a)); }
INLINE NAME_act NAME_load(const uint8_t *p) {
  const uint8x8x4_t bytes = vld4_dup_u8(p);
  const NAME_act a = {{NAME_signed(bytes.val[0]), NAME_signed(bytes.val[1]),
                       NAME_signed(bytes.val[2]), NAME_signed(bytes.val[3])}};
  return a;
}
INLINE NAME_sum NAME_dot(NAME_sum s, NAME_act a, const int8_t *w) {
  for (int k = 0; k < 4; k++) s = vmlal_s8(s, a.val[k], vld1_s8(w + 8 * k));
  return s;
}
INLINE NAME_sum NAME_dot_taps(NAME_sum s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3,
                              const int8_t *w) {
  s = vmlal_s8(s, NAME_signed(vld1_u8(p0)), vld1_s8(w));
  s = vmlal_s8(s, NAME_signed(vld1_u8(p1)), vld1_s8(w + 8));
  s = vmlal_s8(s, NAME_signed(vld1_u8(p2)), vld1_s8(w + 16));
  return vmlal_s8(s, NAME_signed(vld1_u8(p3)), vld1_s8(w + 24));
}
INLINE acc_t NAME_widen(acc_t a, NAME_sum s) {
  return acc_of(vaddw_s16(a.val[0], vget_low_s16(s)), vaddw_s16(a.val[1], vget_high_s16(s)));
}
"""

NEON = (
    _COMMON
    + _NARROW.replace("NAME", "narrow").replace("SIGNED(a)", "a")
    + _NARROW.replace("NAME", "shifted").replace("SIGNED(a)", "veor_u8(a, vdup_n_u8(128))")
)


def neon_paths(pixels: int) -> tuple[Path, ...]:
    """The ways of multiplying with the first generation's instructions, for tiles of so many pixels."""
    narrow = Path(
        "narrow", "int8_t", lanes_together=True, values_per_sum=4, largest_sum=2**15 - 1, pixels=pixels, vectors=2,
        largest_value=127,
    )  # fmt: skip
    shifted = Path(
        "shifted", "int8_t", lanes_together=True, values_per_sum=4, largest_sum=2**15 - 1, pixels=pixels, vectors=2,
        offset=128,
    )  # fmt: skip
    wide = Path(
        "wide", "int16_t", lanes_together=True, values_per_sum=4, largest_sum=2**31 - 1, pixels=pixels, vectors=2
    )
    return narrow, shifted, wide


# Dot products of four bytes, on AArch64; the activations are those of one step, or of four taps for every lane.
DOT_LOADS = """
INLINE uint8x16_t four_dup(const uint8_t *p) { return vreinterpretq_u8_u32(vdupq_n_u32(four_bytes(p))); }
INLINE uint8x16x2_t byte_taps(const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3) {
  const uint8x8x2_t front = vzip_u8(vld1_u8(p0), vld1_u8(p1)), back = vzip_u8(vld1_u8(p2), vld1_u8(p3));
  const uint16x8_t first = vreinterpretq_u16_u8(vcombine_u8(front.val[0], front.val[1]));
  const uint16x8_t second = vreinterpretq_u16_u8(vcombine_u8(back.val[0], back.val[1]));
  const uint8x16x2_t taps = {{vreinterpretq_u8_u16(vzip1q_u16(first, second)),
                              vreinterpretq_u8_u16(vzip2q_u16(first, second))}};
  return taps;
}
"""

# Bits of an AArch64 feature register, which Linux lets programs read; systems that do not are taken at their word.
DOT_CHECK = """
static int cpu_is_suitable(void) {
#ifdef __APPLE__
  return 1;
#else
  uint64_t features;
  __asm__("mrs %0, REGISTER" : "=r"(features));
  return (features >> SHIFT & 15) != 0;
#endif
}
"""
