"""Binary32 arithmetic in integers, for cores without a floating-point unit: exact, and without a library's help.

Numbers are zero or normal and never overflow, because multipliers lie in [2^-30, 2^8] and accumulators are int32.
"""

LANES_OF_SOFT_FLOATS = """
typedef struct { uint32_t lane[8]; } value_t; /* the bits of binary32 */

/* The number of this sign (its bit alone) and magnitude mantissa * 2^(exponent - 158), rounded to nearest, ties to
   even; the mantissa's bit 31 is set, and its last bit stands for all that was cut off below it. */
INLINE uint32_t soft_pack(uint32_t sign, int exponent, uint32_t mantissa) {
  const uint32_t lost = mantissa & 0xFF, kept = mantissa >> 8;
  /* The leading one counts as one exponent more, and so does a mantissa that rounds up to 2^24. */
  return sign + ((uint32_t)(exponent - 1) << 23) + kept + (lost > 0x80 || (lost == 0x80 && (kept & 1)));
}
INLINE uint32_t soft_of_int(int32_t x) {
  if (x == 0) return 0;
  const uint32_t sign = (uint32_t)x & 0x80000000u;
  uint32_t mantissa = sign ? 0u - (uint32_t)x : (uint32_t)x;
  int exponent = 158;
  while (!(mantissa >> 31)) { mantissa <<= 1; exponent--; }
  return soft_pack(sign, exponent, mantissa);
}
/* The mantissa of a number that is not zero, its leading one in bit 31. */
INLINE uint32_t soft_mantissa(uint32_t x) { return x << 8 | 0x80000000u; }
INLINE int soft_exponent(uint32_t x) { return (int)(x >> 23 & 0xFF); }
INLINE uint32_t soft_multiply(uint32_t a, uint32_t b) {
  const uint32_t sign = (a ^ b) & 0x80000000u;
  if (a << 1 == 0 || b << 1 == 0) return sign;
  const uint64_t product = (uint64_t)soft_mantissa(a) * soft_mantissa(b);
  const int twice = !(product >> 63);
  const uint64_t shifted = product << twice;
  const uint32_t mantissa = (uint32_t)(shifted >> 32) | ((uint32_t)shifted != 0);
  return soft_pack(sign, soft_exponent(a) + soft_exponent(b) - 126 - twice, mantissa);
}
static NOINLINE uint32_t soft_scale(int32_t x, uint32_t m) { return soft_multiply(soft_of_int(x), m); }
static NOINLINE uint32_t soft_add(uint32_t a, uint32_t b) {
  if (b << 1 == 0) return a << 1 == 0 ? a & b : a;
  if (a << 1 == 0) return b;
  if (a << 1 < b << 1) { const uint32_t c = a; a = b; b = c; }
  /* Both in 64 bits with 31 bits below the greater's last one; what the smaller loses stands in its last bit. */
  const int behind = soft_exponent(a) - soft_exponent(b);
  const uint64_t greater = (uint64_t)soft_mantissa(a) << 31, whole = (uint64_t)soft_mantissa(b) << 31;
  const uint64_t smaller = behind > 62 ? 1 : whole >> behind | ((whole >> behind << behind) != whole);
  uint64_t sum = (a ^ b) >> 31 ? greater - smaller : greater + smaller;
  if (sum == 0) return 0;
  int exponent = soft_exponent(a) + 1;
  while (!(sum >> 63)) { sum <<= 1; exponent--; }
  return soft_pack(a & 0x80000000u, exponent, (uint32_t)(sum >> 32) | ((uint32_t)sum != 0));
}
/* To the nearest integer, ties to even; beyond 2^24, where stored values never are, any number of the sign. */
static NOINLINE int32_t soft_to_int(uint32_t x) {
  const int exponent = soft_exponent(x);
  int32_t magnitude = 0;
  if (exponent >= 127 + 24) magnitude = 1 << 24;
  else if (exponent >= 126) {
    const int below = 31 - (exponent - 127);
    const uint64_t mantissa = (uint64_t)soft_mantissa(x), half = (uint64_t)1 << (below - 1);
    const uint64_t kept = mantissa >> below, lost = mantissa & ((half << 1) - 1);
    magnitude = (int32_t)(kept + (lost > half || (lost == half && (kept & 1))));
  }
  return x >> 31 ? -magnitude : magnitude;
}

INLINE value_t value_load(const float *p) { value_t v; memcpy(&v, p, sizeof v); return v; }
INLINE value_t value_splat(float x) {
  value_t v;
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  EACH_LANE v.lane[i] = bits;
  return v;
}
INLINE value_t value_scale(acc_t a, value_t m) {
  EACH_LANE m.lane[i] = soft_scale(a.lane[i], m.lane[i]);
  return m;
}
INLINE value_t value_add(value_t a, value_t b) { EACH_LANE a.lane[i] = soft_add(a.lane[i], b.lane[i]); return a; }
INLINE void store_bytes(uint8_t *p, int count, value_t v, int low, int high, int zero) {
  for (int i = 0; i < count; i++) {
    const int32_t x = soft_to_int(v.lane[i]) + zero;
    p[i] = (uint8_t)(x < low ? low : x > high ? high : x);
  }
}
INLINE void store_values(float *p, int count, value_t v) { memcpy(p, &v, (size_t)count * sizeof *p); }
"""
