"""`automc-bench`: one static program for a device that checks a compiled network there, and times its kernels.

It needs nothing of the device but Linux' system calls. What it prints is a latency table for `latency_tables/`.
"""

from __future__ import annotations

from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray

from automc.compiler.artifact import Artifact
from automc.compiler.build import STATIC
from automc.compiler.emit import STATUS
from automc.compiler.freestanding import START, linked
from automc.compiler.isa import ALIGNMENT
from automc.compiler.targets import find_target
from automc.compiler.toolchain import tool_chain
from automc.compression.executor import Executor
from automc.compression.program import Program
from automc.cost.kernels import Kernel
from automc.cost.recognise import kernel_of
from automc.cost.table import LatencyTable, empty_table, key_cells, table_text
from automc.files import write_atomic

_IMAGES = 3
_SAMPLES = 41
_SAMPLE_NS = 200_000  # a shorter sample would mostly time the clock

_BENCH = Template("""
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
enum { CLOCK = 228 };
#elif defined(__arm__)
enum { CLOCK = 263 };
#elif defined(__riscv) && __riscv_xlen == 32
enum { CLOCK = 403 };
#else
enum { CLOCK = 113 };
#endif

int ${prefix}_init(void *);
void ${prefix}_input(void *, const uint8_t *);
void ${prefix}_invoke(void *);
void ${prefix}_invoke_range(void *, int, int);
void ${prefix}_output(const void *, float *);

enum { OPERATIONS = $operations, KERNELS = $kernels, SAMPLES = $samples, IMAGES = $images, OUTPUTS = $outputs };
static uint8_t arena[$arena_bytes] __attribute__((aligned($alignment)));
static float results[OUTPUTS];
static const uint8_t pixels[IMAGES][$input_bytes] = {$pixels};
static const uint32_t expected[IMAGES][OUTPUTS] = {$expected};
static const char *const keys[KERNELS] = {
$keys
};
static const int first[KERNELS] = {$first};  /* operations that call each kernel */
static const int kernel_of[OPERATIONS] = {$kernel_of};

static void say_to(int file, const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  (void)write(file, text, length);
}
static void say(const char *text) { say_to(1, text); }

/* The thread's own time in nanoseconds, since the start of the second that the last call fell into. */
static uint64_t nanoseconds(void) {
#if defined(__riscv) && __riscv_xlen == 32
  struct { int64_t s, ns; } now;
#else
  struct { long s, ns; } now;
#endif
  system_call(CLOCK, 3, (long)&now, 0);
  return (uint64_t)now.s * 1000000000u + (uint64_t)now.ns;
}

/* Without division, which some processors lack for 64 bits. */
static void digits(uint64_t value, int point) {
  static const uint64_t powers[] = {
    1000000000000000000u, 100000000000000000u, 10000000000000000u, 1000000000000000u, 100000000000000u,
    10000000000000u, 1000000000000u, 100000000000u, 10000000000u, 1000000000u, 100000000u, 10000000u, 1000000u,
    100000u, 10000u, 1000u, 100u, 10u, 1u};
  char text[24];
  int length = 0;
  for (int i = 0; i < 19; i++) {
    char digit = '0';
    while (value >= powers[i]) { value -= powers[i]; digit++; }
    if (i == 19 - point) text[length++] = '.';
    if (length || digit != '0' || i >= 18 - point) text[length++] = digit;
  }
  text[length] = 0;
  say(text);
}

static void run(int operation, uint32_t loops) {
  for (uint32_t i = 0; i < loops; i++) {
    if (operation < 0) { ${prefix}_input(arena, pixels[0]); ${prefix}_invoke(arena); ${prefix}_output(arena, results); }
    else if (operation == 0) ${prefix}_input(arena, pixels[0]);
    else ${prefix}_invoke_range(arena, operation, operation);
  }
}

/* Picoseconds of one run: the median of the samples, and what lies between their quartiles. */
static void measure(int operation, uint64_t *median, uint64_t *spread) {
  uint64_t samples[SAMPLES];
  int shift = 0;
  for (; shift < 24; shift++) {
    const uint64_t start = nanoseconds();
    run(operation, 1u << shift);
    if (nanoseconds() - start >= $sample_ns) break;
  }
  for (int i = 0; i < SAMPLES; i++) {
    const uint64_t start = nanoseconds();
    run(operation, 1u << shift);
    const uint64_t taken = ((nanoseconds() - start) * 1000u) >> shift;
    int place = i;
    for (; place > 0 && samples[place - 1] > taken; place--) samples[place] = samples[place - 1];
    samples[place] = taken;
  }
  *median = samples[SAMPLES / 2];
  *spread = samples[3 * SAMPLES / 4] - samples[SAMPLES / 4];
}

int main(void) {
  static uint64_t medians[KERNELS], spreads[KERNELS];
  const int status = ${prefix}_init(arena);
  if (status) {
    static const char *const reasons[] = {$reasons};
    say_to(2, "the library cannot run here: ");
    say_to(2, reasons[status]);
    say_to(2, "\\n");
    return 1;
  }
  int different = 0;
  for (int i = 0; i < IMAGES; i++) {
    ${prefix}_input(arena, pixels[i]);
    ${prefix}_invoke(arena);
    ${prefix}_output(arena, results);
    for (int j = 0; j < OUTPUTS; j++) {
      uint32_t bits;
      memcpy(&bits, &results[j], sizeof bits);
      different += bits != expected[i][j];
    }
  }
  if (different) {
    say_to(2, "results differ from those that the search saw; nothing was timed\\n");
    return 1;
  }
  ${prefix}_input(arena, pixels[0]);
  for (int k = 0; k < KERNELS; k++) measure(first[k], &medians[k], &spreads[k]);
  uint64_t whole, unused, sum = 0;
  measure(-1, &whole, &unused);
  for (int i = 0; i < OPERATIONS; i++) sum += medians[kernel_of[i]];
  say("$head");
  say("# overhead_ms: ");
  digits(whole > sum ? whole - sum : 0, 9);
  say("\\n$columns\\n");
  for (int k = 0; k < KERNELS; k++) {
    say(keys[k]);
    say(",");
    digits(medians[k], 9);
    say(",");
    digits(spreads[k], 9);
    say(",");
    digits(SAMPLES, 0);
    say(",measured\\n");
  }
  return 0;
}
""")


def build_bench(artifact: Artifact, device: str, cpu: str, path: Path) -> None:
    """Write the program for `artifact` to `path`: run it on the device, and keep what it prints as `device`.csv.

    `cpu` names the device's processor in the table. The program answers 1 and says why where the library cannot run, or
    where one of the results of a few embedded images is not that of the Program. Raises `CompileError`.
    """
    program, target = artifact.program(), find_target(artifact.target)
    tools = tool_chain("zig", target)
    kernels = [kernel_of(operation, program) for operation in program.operations]
    known = artifact.manifest
    notes = f"printed by the bench program of {program.name}, after its results were found to be exact"
    table = empty_table(device, cpu, target.name, known["compiler"], known["flags"], notes)
    write_atomic(path, linked(_source(artifact, program, kernels, table), artifact.folder / STATIC, tools))
    path.chmod(0o755)


def _source(artifact: Artifact, program: Program, kernels: list[Kernel], table: LatencyTable) -> str:
    random = np.random.default_rng(0)
    shape = (_IMAGES, program.input.height, program.input.width, program.input.channels)
    pixels = random.integers(0, 256, shape, np.uint8)
    expected = Executor(program).run(pixels).view(np.uint32)
    known = list(dict.fromkeys(kernels))
    *head, columns = table_text(table, sealed=False).splitlines()
    return START + _BENCH.substitute(
        prefix=artifact.manifest["prefix"],
        operations=len(kernels),
        kernels=len(known),
        samples=_SAMPLES,
        images=_IMAGES,
        outputs=program.outputs,
        arena_bytes=artifact.manifest["arena_bytes"],
        alignment=ALIGNMENT,
        input_bytes=program.input.size,
        pixels=_nested(pixels.reshape(_IMAGES, -1)),
        expected=_nested(expected, "u"),
        keys=",\n".join(_quoted(",".join(map(str, key_cells(kernel)))) for kernel in known),
        first=", ".join(str(kernels.index(kernel)) for kernel in known),
        kernel_of=", ".join(str(known.index(kernel)) for kernel in kernels),
        sample_ns=_SAMPLE_NS,
        reasons=", ".join(_quoted(reason) for reason in STATUS.values()),
        head="".join(_quoted(line)[1:-1] + "\\n" for line in head if not line.startswith("# overhead_ms")),
        columns=columns,
    )


def _nested(rows: NDArray[np.uint8] | NDArray[np.uint32], suffix: str = "") -> str:
    return ",\n".join("{" + ",".join(f"{value}{suffix}" for value in row.tolist()) + "}" for row in rows)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
