"""AArch64 with the dot-product extension: four products of signed bytes are added to an int32 in one instruction."""

from automc.compiler.isa import Machine, Path, Target
from automc.compiler.targets.arm import COUNTED, DOT_CHECK, DOT_LOADS, NEON

_DOT = """
typedef acc_t NAME_sum;
typedef int8x16_t NAME_act;
INLINE NAME_sum NAME_zero(void) { return acc_of(vdupq_n_s32(0), vdupq_n_s32(0)); }
INLINE int8x16_t NAME_signed(uint8x16_t a) { return vreinterpretq_s8_u8(SIGNED(a)); }
INLINE NAME_act NAME_load(const uint8_t *p) { return NAME_signed(four_dup(p)); }
INLINE NAME_sum NAME_dot(NAME_sum s, NAME_act a, const int8_t *w) {
  return acc_of(vdotq_s32(s.val[0], vld1q_s8(w), a), vdotq_s32(s.val[1], vld1q_s8(w + 16), a));
}
INLINE NAME_sum NAME_dot_taps(NAME_sum s, const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3,
                              const int8_t *w) {
  const uint8x16x2_t taps = byte_taps(p0, p1, p2, p3);
  return acc_of(vdotq_s32(s.val[0], vld1q_s8(w), NAME_signed(taps.val[0])),
                vdotq_s32(s.val[1], vld1q_s8(w + 16), NAME_signed(taps.val[1])));
}
INLINE acc_t NAME_widen(acc_t a, NAME_sum s) { return acc_add(a, s); }
"""

NEONDOT = Target(
    name="neondot",
    description="AArch64 with NEON dot products (ARMv8.2)",
    vocabulary=NEON
    + DOT_LOADS
    + _DOT.replace("NAME", "dot").replace("SIGNED(a)", "a")
    + _DOT.replace("NAME", "shifted_dot").replace("SIGNED(a)", "veorq_u8(a, vdupq_n_u8(128))")
    + DOT_CHECK.replace("REGISTER", "S3_0_C0_C6_0").replace("SHIFT", "44"),
    paths=(
        Path(
            "dot", "int8_t", lanes_together=False, values_per_sum=4, largest_sum=2**31 - 1, pixels=8, vectors=1,
            largest_value=127,
        ),
        Path(
            "shifted_dot", "int8_t", lanes_together=False, values_per_sum=4, largest_sum=2**31 - 1, pixels=8, vectors=1,
            offset=128,
        ),
    ),
    cpu_flags=("asimd", "asimddp"),
    flags={
        "zig": ("-mcpu=cortex_a76",),
        "gcc": ("-march=armv8.2-a+dotprod",),
        "clang": ("-march=armv8.2-a+dotprod",),
    },
    triple="aarch64-linux-gnu.2.17",
    bits=COUNTED,
    machines=(Machine("unicorn", "max"), Machine("qemu-aarch64", "cortex-a76")),
)  # fmt: skip
