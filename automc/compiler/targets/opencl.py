"""OpenCL C 1.2: graphics processors and whatever else has a driver for it; a kernel for each operation, one queue."""

from pathlib import Path as FilePath

from automc.compiler.isa import Machine, Path, Target

# Declarations for where OpenCL's own headers are not installed: those are found first.
_INCLUDE = ("-idirafter", str(FilePath(__file__).parents[1] / "opencl" / "include"))

# A work item computes LANES values. Its kernel gets the arena, the constants, how many items have something to do, and
# further integers: offsets in bytes, geometry, and binary32 numbers as their bits.
_VOCABULARY = """\
#pragma OPENCL FP_CONTRACT OFF
#define KERNEL __kernel __attribute__((reqd_work_group_size(64, 1, 1))) void
#define ITEM const int item = get_global_id(0); if (item >= items) return

/* p[lane] - zero */
int8 centred(const __global uchar *p, int zero) { return convert_int8(vload8(0, p)) - zero; }

/* 32 values of 0 or 1 as the bits of a word, the lowest first; a product gathers the lowest bits of four bytes. What
   other bytes behind the values are does no harm to the bits of the values. */
uint4 gathered(uchar16 values) { return (as_uint4(values) & 0x01010101u) * 0x10204080u >> 28; }
uint pack_bits(const __global uchar *p) {
  const uint4 low = gathered(vload16(0, p)), high = gathered(vload16(1, p));
  const uint4 bits = (low | high << 16) << (uint4)(0, 4, 8, 12);
  return bits.s0 | bits.s1 | bits.s2 | bits.s3;
}

/* binary32(sums) * multipliers, each rounded once to nearest, ties to even */
float8 scaled(int8 sums, float8 multipliers) { return convert_float8_rte(sums) * multipliers; }
float8 scaled_by(int8 sums, int multiplier) { return scaled(sums, (float8)(as_float(multiplier))); }

/* rint(clamp(values, low - zero, high - zero)) + zero */
uchar8 rounded(float8 values, int low, int high, int zero) {
  return convert_uchar8(convert_int8_rte(clamp(values, (float)(low - zero), (float)(high - zero))) + zero);
}

/* The first `count` lanes. */
void store_bytes(__global uchar *p, uchar8 values, int count) {
  if (count >= 8) {
    vstore8(values, 0, p);
    return;
  }
  uchar bytes[8];
  vstore8(values, 0, bytes);
  for (int i = 0; i < count; i++) p[i] = bytes[i];
}
void store_values(__global uchar *p, float8 values, int count) {
  float numbers[8];
  vstore8(values, 0, numbers);
  for (int i = 0; i < count; i++) ((__global float *)p)[i] = numbers[i];
}

/* Of a pixel, numbered P, of an item's tile: whether a tap of its window is inside of the source, as all ones or zero,
   and where the tap's channels begin. */
#define TAP(P, I, J, CHANNEL) \\
  const int at_y##P = y##P + (I) * dilation_y, at_x##P = x##P + (J) * dilation_x; \\
  const int inside##P = -(at_y##P >= 0 && at_y##P < height && at_x##P >= 0 && at_x##P < width); \\
  const __global uchar *from##P = \\
    arena + source + (((at_y##P * width + at_x##P) * source_channels & inside##P) + (CHANNEL))

/* What the results depend on, for the host to look at: a product and a sum that are rounded apart, and ties to even. */
KERNEL arithmetic(__global uchar *arena, const __global uchar *constants, int items, int factor, int number,
                  int rounded_square, int one, int half_step) {
  ITEM;
  const float a = as_float(factor);
  __global float *results = (__global float *)arena;
  results[0] = convert_float_rte(number) * a + as_float(rounded_square);
  results[1] = as_float(one) + as_float(half_step);
  results[2] = convert_float_rte((number << 12) + 1);
}
"""

OPENCL = Target(
    name="opencl",
    description="OpenCL C 1.2, for graphics processors",
    vocabulary=_VOCABULARY,
    paths=(Path("mad24", "int8_t", lanes_together=True, values_per_sum=4, largest_sum=2**31 - 1, pixels=4, vectors=1),),
    cpu_flags=(),
    flags={"zig": ("-mcpu=baseline", *_INCLUDE), "gcc": _INCLUDE, "clang": _INCLUDE},
    loadable=False,
    machines=(Machine("pocl", "cpu"),),
    bits=Path(
        "popcount", "int8_t", lanes_together=False, values_per_sum=32, largest_sum=2**31 - 1, pixels=4, vectors=1
    ),
    language="OpenCL C",
)
