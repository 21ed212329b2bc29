"""What a graphics processor's compiler makes of the kernels in OpenCL C: instructions of the inner loops, registers.

    python -m tests.benchmarks.opencl_static

No device is needed: the clang inside ziglang compiles for AMD's RDNA 2 (gfx1030). OpenCL's built-in functions, which a
driver brings along, are defined here as far as the kernels use them. Static counts, no times.
A product of bits is that of 32 weights and values, which one population count adds up.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from automc.compiler.isa import LANES
from automc.compiler.kernel import Kernel
from automc.compiler.lowering import lower
from automc.compiler.targets import find_target
from tests.programs import Builder

PRELUDE = """
typedef unsigned char uchar;
typedef unsigned int uint;
typedef unsigned long size_t;
#define VECTOR(T, N, L) \\
  typedef __attribute__((ext_vector_type(L))) T N; typedef __attribute__((ext_vector_type(L), aligned(1))) T any_##N;
VECTOR(char, char8, 8) VECTOR(uchar, uchar8, 8) VECTOR(int, int8, 8) VECTOR(uint, uint8, 8) VECTOR(float, float8, 8)
VECTOR(uchar, uchar16, 16) VECTOR(uint, uint4, 4)
#define BUILTIN __attribute__((overloadable, always_inline)) static
#define get_global_id(d) ((int)(__builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x()))
#define as_float(x) __builtin_astype((int)(x), float)
#define LOAD(N, T) BUILTIN N vload8(size_t i, const __global T *p) { return *(const __global any_##N *)(p + 8 * i); }
LOAD(uchar8, uchar) LOAD(char8, char) LOAD(int8, int) LOAD(uint8, uint) LOAD(float8, float)
BUILTIN uchar16 vload16(size_t i, const __global uchar *p) { return *(const __global any_uchar16 *)(p + 16 * i); }
#define as_uint4(x) __builtin_astype(x, uint4)
#define as_int8(x) __builtin_astype(x, int8)
BUILTIN uint8 popcount(uint8 v) { return __builtin_elementwise_popcount(v); }
#define STORE(N, S, T) BUILTIN void vstore8(N v, size_t i, S T *p) { *(S any_##N *)(p + 8 * i) = v; }
STORE(uchar8, __global, uchar) STORE(uchar8, , uchar) STORE(float8, , float)
#define CONVERT(TO, NAME, FROM) BUILTIN TO NAME(FROM v) { return __builtin_convertvector(v, TO); }
CONVERT(int8, convert_int8, uchar8) CONVERT(int8, convert_int8, char8) CONVERT(float8, convert_float8, int8)
CONVERT(float8, convert_float8_rte, int8) CONVERT(uchar8, convert_uchar8, int8)
BUILTIN int8 convert_int8_rte(float8 v) { return __builtin_convertvector(__builtin_elementwise_roundeven(v), int8); }
BUILTIN float convert_float_rte(int v) { return (float)v; }
BUILTIN int convert_int_rte(float v) { return (int)__builtin_elementwise_roundeven(v); }
BUILTIN float8 clamp(float8 v, float a, float b) {
  return __builtin_elementwise_min(__builtin_elementwise_max(v, (float8)(a)), (float8)(b));
}
BUILTIN int8 mad24(int8 a, int8 b, int8 c) { return (a << 8 >> 8) * (b << 8 >> 8) + c; }
BUILTIN int max(int a, int b) { return a > b ? a : b; }
BUILTIN int min(int a, int b) { return a < b ? a : b; }
"""


def kernels() -> dict[str, Kernel]:
    """A layer of each kind, by its title."""
    builder = Builder(np.random.default_rng(0), (16, 16, 16))
    inner = builder.convolve(builder.input, 16)
    inner = builder.convolve(builder.convolve(inner, 16, groups=16), 16, encoding="blocks", bits=1)
    lowered = lower(builder.finish(builder.convolve(inner, 16, weight_bits=1)), find_target("opencl"))
    found = {f"{kernel.choice.kernel}, {kernel.choice.tile}": kernel for kernel in lowered.kernels}
    return {title: kernel for title, kernel in found.items() if kernel.choice.tile}


def assembly(kernel: Kernel) -> str:
    """What clang makes of a kernel and the vocabulary."""
    target = find_target("opencl")
    # Functions are called where a driver would have them inline.
    functions = r"^(int8|float8|uchar8|uint4|uint|void) (\w+\()"
    vocabulary = re.sub(functions, r"BUILTIN \1 \2", target.vocabulary, flags=re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "kernel.cl", Path(folder) / "kernel.s"
        source.write_text(PRELUDE + vocabulary + kernel.code.replace(" NAME(", " measured(", 1))
        command = [
            sys.executable, "-m", "ziglang", "clang", "-x", "cl", "-cl-std=CL1.2", "-cl-no-stdinc", "-nogpulib", "-O2",
            "-target", "amdgcn-amd-amdhsa", "-mcpu=gfx1030", "-S", str(source), "-o", str(output),
        ]  # fmt: skip
        subprocess.run(command, check=True, timeout=120)
        return output.read_text()


def innermost_loop(text: str) -> list[str]:
    """The instructions of the shortest loop around the block that multiplies most, which loads what it multiplies.

    That are eight weights, and values of as many pixels as there are products for each weight.
    """
    start = text.index("\nmeasured:")
    blocks = re.split(r"^\.LBB", text[start : text.index("Lfunc_end", start)], flags=re.MULTILINE)
    labels = [block.partition(":")[0] for block in blocks]
    found = [re.findall(r"^\t([a-z]\w+)", block, flags=re.MULTILINE) for block in blocks]
    most = max(range(len(blocks)), key=lambda at: sum(map(is_product, found[at])))
    loops = [
        [instruction for block in found[first : last + 1] for instruction in block]
        for first in range(most + 1)
        for last in range(most, len(blocks))
        if re.search(rf"branch\w* \.LBB{labels[first]}$", blocks[last], flags=re.MULTILINE)
    ]
    whole = [loop for loop in loops if sum(map(is_load, loop)) > sum(map(is_product, loop)) // LANES]
    return min(whole, key=len)


def is_load(instruction: str) -> bool:
    return instruction.startswith("global_load")


def is_product(instruction: str) -> bool:
    return re.match(r"v_((mad|mul)_.*24|bcnt_)", instruction) is not None


def main() -> None:
    print(f"{'kernel':44s} {'products':>8s} {'instructions/product':>21s} {'loads/product':>14s} {'registers':>9s}")
    for title, kernel in kernels().items():
        text = assembly(kernel)
        loop = innermost_loop(text)
        products = sum(map(is_product, loop))
        known = text[text.index(".name:           measured") :]
        names = ("vgpr_count", "vgpr_spill_count")
        registers, spilled = (int(re.search(rf"\.{name}:\s+(\d+)", known)[1]) for name in names)
        print(
            f"{title:44s} {products:8d} {len(loop) / products:21.2f} {sum(map(is_load, loop)) / products:14.2f} "
            f"{registers:9d}" + (f" ({spilled} spilled)" if spilled else "")
        )


if __name__ == "__main__":
    main()
