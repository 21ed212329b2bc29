"""AArch64 with the 8-bit matrix extension, whose dot products take unsigned activations and signed weights."""

from automc.compiler.isa import Machine, Path, Target
from automc.compiler.targets.arm import COUNTED, DOT_CHECK, DOT_LOADS, NEON

_VOCABULARY = (
    NEON
    + DOT_LOADS
    + """
typedef acc_t mixed_sum;
typedef uint8x16_t mixed_act;
INLINE mixed_sum mixed_zero(void) { return acc_of(vdupq_n_s32(0), vdupq_n_s32(0)); }
INLINE mixed_act mixed_load(const uint8_t *p) { return four_dup(p); }
INLINE mixed_sum mixed_dot(mixed_sum s, mixed_act a, const int8_t *w) {
  return acc_of(vusdotq_s32(s.val[0], a, vld1q_s8(w)), vusdotq_s32(s.val[1], a, vld1q_s8(w + 16)));
}
INLINE mixed_sum mixed_dot_taps(mixed_sum s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2,
                                const uint8_t *p3, const int8_t *w) {
  const uint8x16x2_t taps = byte_taps(p0, p1, p2, p3);
  return acc_of(vusdotq_s32(s.val[0], taps.val[0], vld1q_s8(w)), vusdotq_s32(s.val[1], taps.val[1], vld1q_s8(w + 16)));
}
INLINE acc_t mixed_widen(acc_t a, mixed_sum s) { return acc_add(a, s); }
"""
    + DOT_CHECK.replace("REGISTER", "S3_0_C0_C6_1").replace("SHIFT", "52")
)

I8MM = Target(
    name="i8mm",
    description="AArch64 with NEON 8-bit matrix products (ARMv8.6)",
    vocabulary=_VOCABULARY,
    paths=(
        Path("mixed", "int8_t", lanes_together=False, values_per_sum=4, largest_sum=2**31 - 1, pixels=8, vectors=1),
    ),
    cpu_flags=("asimd", "asimddp", "i8mm"),
    flags={
        "zig": ("-mcpu=cortex_a76+i8mm",),
        "gcc": ("-march=armv8.2-a+dotprod+i8mm",),
        "clang": ("-march=armv8.2-a+dotprod+i8mm",),
    },
    triple="aarch64-linux-gnu.2.17",
    bits=COUNTED,
    machines=(Machine("qemu-aarch64", "max"),),
)
