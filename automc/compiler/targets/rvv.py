"""RISC-V with vectors (RVV 1.0) of any length: operations name how many lanes they take."""

from automc.compiler.isa import Machine, Path, Target

_VOCABULARY = """
#include <riscv_vector.h>
typedef vint32m2_t acc_t;
typedef vfloat32m2_t value_t;

INLINE acc_t acc_load(const int32_t *p) { return __riscv_vle32_v_i32m2(p, 8); }
INLINE acc_t acc_add(acc_t a, acc_t b) { return __riscv_vadd_vv_i32m2(a, b, 8); }
INLINE acc_t acc_bytes(const uint8_t *p, int zero) {
  const vuint32m2_t values = __riscv_vzext_vf4_u32m2(__riscv_vle8_v_u8mf2(p, 8), 8);
  return __riscv_vsub_vx_i32m2(__riscv_vreinterpret_v_u32m2_i32m2(values), zero, 8);
}
INLINE value_t value_load(const float *p) { return __riscv_vle32_v_f32m2(p, 8); }
INLINE value_t value_splat(float x) { return __riscv_vfmv_v_f_f32m2(x, 8); }
INLINE value_t value_scale(acc_t a, value_t m) {
  return __riscv_vfmul_vv_f32m2(__riscv_vfcvt_f_x_v_f32m2(a, 8), m, 8);
}
INLINE value_t value_add(value_t a, value_t b) { return __riscv_vfadd_vv_f32m2(a, b, 8); }

INLINE void store_bytes(uint8_t *p, int count, value_t v, int low, int high, int zero) {
  v = __riscv_vfmax_vf_f32m2(v, (float)(low - zero), 8);
  v = __riscv_vfmin_vf_f32m2(v, (float)(high - zero), 8);
  const vint32m2_t rounded = __riscv_vadd_vx_i32m2(__riscv_vfcvt_x_f_v_i32m2(v, 8), zero, 8);
  const vuint16m1_t words = __riscv_vncvt_x_x_w_u16m1(__riscv_vreinterpret_v_i32m2_u32m2(rounded), 8);
  __riscv_vse8_v_u8mf2(p, __riscv_vncvt_x_x_w_u8mf2(words, 8), (size_t)count);
}
INLINE void store_values(float *p, int count, value_t v) { __riscv_vse32_v_f32m2(p, v, (size_t)count); }

/* Products of unsigned by signed bytes, summed in 16 bits where the bound allows it. */
typedef vint16m1_t narrow_sum;
typedef struct { uint8_t value[4]; } narrow_act;
INLINE narrow_sum narrow_zero(void) { return __riscv_vmv_v_x_i16m1(0, 8); }
INLINE narrow_act narrow_load(const uint8_t *p) { narrow_act a; memcpy(&a, p, sizeof a); return a; }
INLINE narrow_sum narrow_dot(narrow_sum s, narrow_act a, const int8_t *w) {
  for (int k = 0; k < 4; k++) s = __riscv_vwmaccus_vx_i16m1(s, a.value[k], __riscv_vle8_v_i8mf2(w + 8 * k, 8), 8);
  return s;
}
INLINE narrow_sum narrow_tap(narrow_sum s, const uint8_t *p, const int8_t *w) {
  return __riscv_vwmaccsu_vv_i16m1(s, __riscv_vle8_v_i8mf2(w, 8), __riscv_vle8_v_u8mf2(p, 8), 8);
}
INLINE narrow_sum narrow_dot_taps(narrow_sum s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2,
                                  const uint8_t *p3, const int8_t *w) {
  return narrow_tap(narrow_tap(narrow_tap(narrow_tap(s, p0, w), p1, w + 8), p2, w + 16), p3, w + 24);
}
INLINE acc_t narrow_widen(acc_t a, narrow_sum s) { return __riscv_vwadd_wv_i32m2(a, s, 8); }

/* Sixteen-bit operands, exact for all weights and activations. */
typedef vint32m2_t wide_sum;
typedef narrow_act wide_act;
INLINE wide_sum wide_zero(void) { return __riscv_vmv_v_x_i32m2(0, 8); }
INLINE wide_act wide_load(const uint8_t *p) { return narrow_load(p); }
INLINE wide_sum wide_dot(wide_sum s, wide_act a, const int16_t *w) {
  for (int k = 0; k < 4; k++) s = __riscv_vwmacc_vx_i32m2(s, a.value[k], __riscv_vle16_v_i16m1(w + 8 * k, 8), 8);
  return s;
}
INLINE wide_sum wide_tap(wide_sum s, const uint8_t *p, const int16_t *w) {
  const vuint16m1_t a = __riscv_vzext_vf2_u16m1(__riscv_vle8_v_u8mf2(p, 8), 8);
  return __riscv_vwmacc_vv_i32m2(s, __riscv_vle16_v_i16m1(w, 8), __riscv_vreinterpret_v_u16m1_i16m1(a), 8);
}
INLINE wide_sum wide_dot_taps(wide_sum s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3,
                              const int16_t *w) {
  return wide_tap(wide_tap(wide_tap(wide_tap(s, p0, w), p1, w + 8), p2, w + 16), p3, w + 24);
}
INLINE acc_t wide_widen(acc_t a, wide_sum s) { return acc_add(a, s); }

/* Programs cannot ask for vectors without a system's help; the code is for processors that are known to have them. */
static int cpu_is_suitable(void) { return 1; }
"""

RVV = Target(
    name="rvv",
    description="RISC-V with vectors (RV64GCV, RVV 1.0)",
    vocabulary=_VOCABULARY,
    paths=(
        Path("narrow", "int8_t", lanes_together=True, values_per_sum=4, largest_sum=2**15 - 1, pixels=4, vectors=2),
        Path("wide", "int16_t", lanes_together=True, values_per_sum=4, largest_sum=2**31 - 1, pixels=3, vectors=2),
    ),
    cpu_flags=("v",),
    flags={
        "zig": ("-mcpu=generic_rv64+m+a+f+d+c+v",),
        "gcc": ("-march=rv64gcv",),
        "clang": ("-march=rv64gcv",),
    },
    triple="riscv64-linux-gnu.2.27",
    machines=tuple(
        Machine("qemu-riscv64", f"rv64,v=true,vext_spec=v1.0,elen=64,vlen={bits}") for bits in (128, 256, 512)
    ),
)
