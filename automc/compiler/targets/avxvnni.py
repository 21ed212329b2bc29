"""x86 with AVX-VNNI: the instruction of AVX-512 VNNI in its short encoding, on processors without AVX-512."""

from automc.compiler.isa import Path, Target
from automc.compiler.targets.x86 import HALVES, X86, vnni

AVXVNNI = Target(
    name="avxvnni",
    description="x86-64 with AVX-VNNI",
    vocabulary=X86
    + vnni("_mm256_dpbusd_avx_epi32")
    + """
static int cpu_is_suitable(void) {
  unsigned a, b, c, d;
  return cpu_has(bit_AVX2, 0, 0x06) && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
""",
    paths=(
        Path(
            "vnni",
            "int8_t",
            lanes_together=False,
            values_per_sum=4,
            largest_sum=2**31 - 1,
            pixels=4,
            vectors=2,
            quads=(4,),
        ),
    ),
    cpu_flags=("avx2", "avx_vnni"),
    flags={
        "zig": ("-mcpu=x86_64+avx2+avxvnni",),
        "gcc": ("-mavx2", "-mavxvnni"),
        "clang": ("-mavx2", "-mavxvnni"),
    },
    triple="x86_64-linux-gnu.2.17",
    bits=HALVES,
)
