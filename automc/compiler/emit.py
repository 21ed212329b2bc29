"""Lowered programs become one C source: vocabulary, kernels, constants, and the functions of each program."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automc.compiler.huffman import EXPAND
from automc.compiler.isa import ALIGNMENT
from automc.compiler.kernel import Coded, Constant, Own, Place
from automc.compiler.lowering import Lowered
from automc.compiler.pool import POOL_HEADER

STATUS = {
    0: "ready",
    1: "this processor lacks instructions that the library was compiled for",
    2: "floating point does not round to nearest even here, or multiplications are fused with additions",
    3: f"the arena is not aligned to {ALIGNMENT} bytes",
    4: "the stored weights are damaged",
}

THREADS_STATUS = {7: "the threads cannot be started"}  # where there are several

_PRELUDE = """\
#include <float.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __FAST_MATH__
#error "compile without fast-math: the results must be exact"
#endif
#if FLT_EVAL_METHOD != 0
#error "compile so that float operations round to float (on x86: -msse2 -mfpmath=sse)"
#endif
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif
/* Before loops of which compilers should make no copies, or no vectors either: they cost bytes and save no time. */
#if defined __clang__
#define ROLLED _Pragma("clang loop unroll(disable)")
#define PLAIN _Pragma("clang loop unroll(disable) vectorize(disable)")
#elif defined __GNUC__
#define ROLLED _Pragma("GCC unroll 1")
#define PLAIN ROLLED
#else
#define ROLLED
#define PLAIN
#endif
#ifdef __GNUC__
#define INLINE static inline __attribute__((always_inline, unused))
#define NOINLINE __attribute__((noinline))
#define ALIGNED __attribute__((aligned(64)))
#else
#define INLINE static inline
#define NOINLINE
#define ALIGNED
#endif
"""

_COMMON = """
/* Rounds to nearest even, and does not fuse a product with a sum: what the results depend on. The numbers are volatile
   so that it is this processor that computes with them. */
static int all_equal(value_t found, value_t meant) {
  float numbers[2][8];
  int32_t bits[2][8];
  store_values(numbers[0], 8, found);
  store_values(numbers[1], 8, meant);
  memcpy(bits, numbers, sizeof bits);
  for (int i = 0; i < 8; i++) if (bits[0][i] != bits[1][i]) return 0;
  return 1;
}
static int adds_up_to(volatile float a, volatile float b, volatile float meant) {
  return all_equal(value_add(value_splat(a), value_splat(b)), value_splat(meant));
}
static int arithmetic_is_exact(void) {
  volatile float factor = 4097.0f;
  volatile int32_t number = 4097, rounded_square = -16785408;
  int32_t numbers[8], squares[8];
  for (int i = 0; i < 8; i++) { numbers[i] = number; squares[i] = rounded_square; }
  return all_equal(value_add(value_scale(acc_load(numbers), value_splat(factor)),
                             value_scale(acc_load(squares), value_splat(1.0f))), value_splat(0.0f))
      && adds_up_to(1.0f, 0x1p-24f, 1.0f) && adds_up_to(1.0f, 0x1.8p-23f, 0x1.000004p+0f)
      && adds_up_to(-1.0f, -0x1p-24f, -1.0f) && adds_up_to(-1.0f, -0x1.8p-23f, -0x1.000004p+0f);
}

/* Fills the frame around `height` rows of `inner` bytes: `rows` above and below, `sides` bytes left and right. */
static NOINLINE void fill_halo(uint8_t *tensor, int height, int inner, int rows, int sides, int value) {
  const size_t row = (size_t)(inner + 2 * sides);
  memset(tensor, value, row * (size_t)rows);
  tensor += row * (size_t)rows;
  ROLLED for (int y = 0; y < height; y++, tensor += row) {
    memset(tensor, value, (size_t)sides);
    memset(tensor + sides + inner, value, (size_t)sides);
  }
  memset(tensor, value, row * (size_t)rows);
}
"""

# Where several threads compute: the parts of an operation, and the pool, to which a pointer lies in the arena.
_PARTS = """
typedef struct { uint8_t *arena; void (*const *parts)(uint8_t *arena); } job_t;
static automc_pool **pool_at(void *arena, size_t offset) { return (automc_pool **)(void *)((uint8_t *)arena + offset); }
static void compute_part(void *job, int number) { const job_t *j = job; j->parts[number](j->arena); }
static void in_parts(uint8_t *arena, size_t pool, void (*const *parts)(uint8_t *arena), int count) {
  job_t job = {arena, parts};
  automc_pool_run(*pool_at(arena, pool), compute_part, &job, count);
}
"""

_THREADS = Template("""

   Each arena has $threads threads, the caller's among them, from init until ${prefix}_release(arena); pool.h says what
   they are asked for.""")

_RELEASE = Template("""
void ${prefix}_release(void *arena) { automc_pool_stop(*pool_at(arena, $pool)); }
""")

_FUNCTIONS = Template("""
static void (*const ${prefix}_steps[])(uint8_t *arena) = {$steps};

int ${prefix}_init(void *arena) {
  if (!cpu_is_suitable()) return 1;
  if (!arithmetic_is_exact()) return 2;
  if ((uintptr_t)arena % $alignment != 0) return 3;
$expansions$start  return 0;
}

void ${prefix}_input(void *arena, const uint8_t *pixels) { ${prefix}_0(arena, pixels); }

NOINLINE void ${prefix}_invoke_range(void *arena, int first, int last) {
  for (int i = first; i <= last; i++) ${prefix}_steps[i - 1](arena);
}

void ${prefix}_invoke(void *arena) { ${prefix}_invoke_range(arena, 1, $last); }

void ${prefix}_output(const void *arena, float *results) {
  memcpy(results, (const uint8_t *)arena + $results, $outputs * sizeof *results);
}
""")

_HEADER = Template("""\
/* A network of $macs multiply-accumulates for $description, compiled by automc.

   1. ${prefix}_init(arena) answers 0, or why the library cannot run here: $reasons.
   2. ${prefix}_input(arena, pixels) takes one image, $height x $width x $channels uint8.
   3. ${prefix}_invoke(arena) computes.
   4. ${prefix}_output(arena, results) gives $outputs float32 numbers: logits, or a map pixel by pixel like the image.

   The arena is the caller's: $arena_bytes bytes aligned to $alignment. All state lies in it, so that each arena is
   independent of the others; $expanded_bytes bytes of it hold weights that init expands. invoke uses up the input: give
   the image again before the next one.$threads */
#ifndef ${prefix}_h
#define ${prefix}_h
#include <stdint.h>

#define ${prefix}_ARENA_BYTES $arena_bytes
#define ${prefix}_ARENA_ALIGNMENT $alignment
#define ${prefix}_EXPANDED_BYTES $expanded_bytes
#define ${prefix}_INPUT_BYTES ($height * $width * $channels)
#define ${prefix}_OUTPUTS $outputs
#define ${prefix}_LAST_OPERATION $last

#ifdef __cplusplus
extern "C" {
#endif
int ${prefix}_init(void *arena);
void ${prefix}_input(void *arena, const uint8_t *pixels);
void ${prefix}_invoke(void *arena);
void ${prefix}_output(const void *arena, float *results);
$release
/* The operations from first to last, counted from 1: to time them one by one. */
void ${prefix}_invoke_range(void *arena, int first, int last);
#ifdef __cplusplus
}
#endif
#endif
""")


def prefix_of(lowered: Lowered) -> str:
    """The beginning of the names of a program's functions."""
    return f"automc_{lowered.program.fingerprint[:8]}"


def emit_header(lowered: Lowered, prefix: str) -> str:
    """The C header of one program."""
    return _filled(_HEADER, lowered, prefix)


def emit_source(programs: Mapping[str, Lowered]) -> str:
    """The C source of programs by prefix, all for one target; they share the kernels that are equal."""
    (target,) = {lowered.target.name: lowered.target for lowered in programs.values()}.values()
    functions: dict[str, str] = {}  # the code of each kernel to its name
    helpers: dict[str, str] = {}
    bodies = []
    for prefix, lowered in programs.items():
        for kernel in (part for parts in lowered.parts for part in parts):
            helpers |= kernel.helpers
            if kernel.expanded_bytes:
                helpers["expand"] = EXPAND
            functions.setdefault(kernel.code, f"kernel_{len(functions)}")
        bodies.append(_program(lowered, prefix, functions))
    definitions = [code.replace(" NAME(", f" {name}(", 1) for code, name in functions.items()]
    threads = [POOL_HEADER, _PARTS] if any(lowered.threads > 1 for lowered in programs.values()) else []
    return "\n".join([_PRELUDE, target.vocabulary, _COMMON, *threads, *helpers.values(), *definitions, *bodies])


def _program(lowered: Lowered, prefix: str, functions: Mapping[str, str]) -> str:
    lines, expansions = [], []
    for position, (operation, parts) in enumerate(zip(lowered.program.operations, lowered.parts, strict=True)):
        constants: dict[int, str] = {}  # what the parts share, by the number of the argument
        for number, argument in enumerate(parts[0].arguments):
            if isinstance(argument, Constant):
                name = f"{prefix}_{position}_{number}"
                lines.append(array(name, argument.stored))
                if isinstance(argument, Coded):
                    place = f"arena + {lowered.address(Place(Own.EXPANDED), position)}"
                    sizes = f"{argument.array.size}, {name}, {argument.stored.size}, {argument.alphabets}"
                    expansions.append(f"  if (!expand((uint8_t *){place}, {sizes})) return 4;\n")
                    name = place
                constants[number] = name
        calls = []
        for number, part in enumerate(parts):
            calls.append(f"{functions[part.code]}({', '.join(_arguments(lowered, position, number, constants))});")
        if len(parts) > 1:
            names = [f"{prefix}_{position}_part_{number}" for number in range(len(parts))]
            pairs = zip(names, calls, strict=True)
            lines += [f"static void {name}(uint8_t *arena) {{ {call} }}" for name, call in pairs]
            calls = [
                f"static void (*const parts[])(uint8_t *arena) = {{{', '.join(names)}}};",
                f"in_parts(arena, {lowered.pool_address}, parts, {len(parts)});",
            ]
        pixels = ", const uint8_t *pixels" if position == 0 else ""
        lines.append(f"static void {prefix}_{position}(uint8_t *arena{pixels}) {{")
        layout = lowered.layouts.get(operation.target)
        if layout is not None and any(layout.halo):
            tensor = layout.tensor
            lines.append(
                f"  fill_halo(arena + {lowered.address(Place(operation.target), position)}, {tensor.height}, "
                f"{tensor.width * tensor.channels}, {layout.halo[0]}, {layout.halo[1] * tensor.channels}, "
                f"{tensor.zero_point});"
            )
        lines += [*("  " + call for call in calls), "}"]
    functions_text = _filled(_FUNCTIONS, lowered, prefix, "".join(expansions))
    if lowered.threads > 1:
        functions_text += _RELEASE.substitute(prefix=prefix, pool=lowered.pool_address)
    return "\n".join(lines) + functions_text


def _arguments(lowered: Lowered, position: int, part: int, constants: Mapping[int, str]) -> list[str]:
    """What a part of a kernel is called with."""
    arguments = []
    for number, argument in enumerate(lowered.parts[position][part].arguments):
        if isinstance(argument, Place):
            # Through void *, since a scratch and the logits are not bytes.
            arguments.append(f"(void *)(arena + {lowered.address(argument, position, part)})")
        else:
            arguments.append(argument if isinstance(argument, str) else constants[number])
    return arguments


def array(name: str, values: NDArray[Any]) -> str:
    """The C definition of a constant array."""
    flat = values.reshape(-1)
    if flat.dtype == np.float32:
        texts, kind = [f"{float(value).hex()}f" for value in flat], "float"
    else:
        texts, kind = [str(value) for value in flat.tolist()], f"{flat.dtype.name}_t"
    rows = [",".join(texts[start : start + 64]) for start in range(0, len(texts), 64)]
    return f"static const {kind} {name}[{len(texts)}] ALIGNED = {{\n" + ",\n".join(rows) + "\n};"


def _filled(template: Template, lowered: Lowered, prefix: str, expansions: str = "") -> str:
    program, last, threads = lowered.program, len(lowered.kernels) - 1, lowered.threads
    status = STATUS | THREADS_STATUS if threads > 1 else STATUS
    pool = f"*pool_at(arena, {lowered.pool_address})"
    return template.substitute(
        prefix=prefix,
        start=f"  if (!({pool} = automc_pool_start({threads}))) return 7;\n" if threads > 1 else "",
        threads=_THREADS.substitute(prefix=prefix, threads=threads) if threads > 1 else "",
        release=f"void {prefix}_release(void *arena);\n" if threads > 1 else "",
        steps=", ".join(f"{prefix}_{position}" for position in range(1, last + 1)),
        last=last,
        macs=program.macs,
        description=lowered.target.description,
        reasons="; ".join(f"{code}, {reason}" for code, reason in status.items() if code),
        height=program.input.height,
        width=program.input.width,
        channels=program.input.channels,
        outputs=program.outputs,
        results=lowered.address(Place(program.result.target), last),
        arena_bytes=lowered.arena_bytes,
        expanded_bytes=lowered.expanded_bytes,
        expansions=expansions,
        alignment=ALIGNMENT,
    )
