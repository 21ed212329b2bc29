"""Portable C99: any processor with a C compiler; loops over lanes that compilers turn into vectors where they can."""

from automc.compiler.isa import Path, Target

# Accumulators, and products of bytes.
LANES_OF_INTEGERS = """
typedef struct { int32_t lane[8]; } acc_t;
#define EACH_LANE for (int i = 0; i < 8; i++)

INLINE acc_t acc_load(const int32_t *p) { acc_t a; memcpy(&a, p, sizeof a); return a; }
INLINE acc_t acc_add(acc_t a, acc_t b) { EACH_LANE a.lane[i] += b.lane[i]; return a; }
INLINE acc_t acc_bytes(const uint8_t *p, int zero) { acc_t a; EACH_LANE a.lane[i] = p[i] - zero; return a; }

typedef acc_t plain_sum;
typedef struct { uint8_t value[4]; } plain_act;
INLINE plain_sum plain_zero(void) { plain_sum s; EACH_LANE s.lane[i] = 0; return s; }
INLINE plain_act plain_load(const uint8_t *p) { plain_act a; memcpy(&a, p, sizeof a); return a; }
INLINE plain_sum plain_dot(plain_sum s, plain_act a, const int8_t *w) {
  for (int k = 0; k < 4; k++) EACH_LANE s.lane[i] += a.value[k] * w[8 * k + i];
  return s;
}
INLINE plain_sum plain_dot_taps(plain_sum s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2,
                                const uint8_t *p3, const int8_t *w) {
  EACH_LANE s.lane[i] += p0[i] * w[i] + p1[i] * w[8 + i] + p2[i] * w[16 + i] + p3[i] * w[24 + i];
  return s;
}
INLINE acc_t plain_widen(acc_t a, plain_sum s) { return acc_add(a, s); }

static int cpu_is_suitable(void) { return 1; }
"""

_LANES_OF_FLOATS = """
typedef struct { float lane[8]; } value_t;
INLINE value_t value_load(const float *p) { value_t v; memcpy(&v, p, sizeof v); return v; }
INLINE value_t value_splat(float x) { value_t v; EACH_LANE v.lane[i] = x; return v; }
INLINE value_t value_scale(acc_t a, value_t m) { EACH_LANE m.lane[i] = (float)a.lane[i] * m.lane[i]; return m; }
INLINE value_t value_add(value_t a, value_t b) { EACH_LANE a.lane[i] += b.lane[i]; return a; }

INLINE void store_bytes(uint8_t *p, int count, value_t v, int low, int high, int zero) {
  const float least = (float)(low - zero), most = (float)(high - zero);
  for (int i = 0; i < count; i++) {
    float x = v.lane[i] < least ? least : v.lane[i];
    x = x > most ? most : x;
    /* Between 2^23 and 2^24 binary32 holds only integers, so this addition rounds to the nearest, ties to even. */
    x += 12582912.0f;
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    p[i] = (uint8_t)(bits - 0x4B400000 + zero);
  }
}
INLINE void store_values(float *p, int count, value_t v) { memcpy(p, &v, (size_t)count * sizeof *p); }
"""

PORTABLE = Target(
    name="portable",
    description="C99 for any processor",
    vocabulary=LANES_OF_INTEGERS + _LANES_OF_FLOATS,
    paths=(Path("plain", "int8_t", lanes_together=True, values_per_sum=4, largest_sum=2**31 - 1, pixels=4, vectors=1),),
    cpu_flags=(),
    flags={"zig": (), "gcc": (), "clang": ()},
    skipped_density=0.5,
)
