"""The C text of a bench program: it checks each library on embedded images, then times kernels by its own clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Template

import numpy as np
from numpy.typing import NDArray

from automc.compiler.emit import STATUS
from automc.compiler.freestanding import START
from automc.compiler.isa import ALIGNMENT
from automc.compression.executor import Executor
from automc.compression.program import Program
from automc.cost.kernels import Kernel
from automc.cost.recognise import calls_of
from automc.cost.table import LatencyTable, key_cells, table_text

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

$declarations
enum { PROGRAMS = $programs, KERNELS = $kernels, SAMPLES = $samples, IMAGES = $images };
static uint8_t arena[$arena_bytes] __attribute__((aligned($alignment)));
static float results[$outputs];
$images_and_results
static const struct {
  int (*init)(void *);
  void (*input)(void *, const uint8_t *);
  void (*invoke)(void *);
  void (*range)(void *, int, int);
  void (*output)(const void *, float *);
  const uint8_t *pixels;
  const uint32_t *expected;
  uint32_t input_bytes, outputs;
} programs[PROGRAMS] = {
$entries
};
static const char *const keys[KERNELS] = {
$keys
};
/* A program and one of its operations that call each kernel, and how often that one does. */
static const int first[KERNELS][3] = {$first};
/* Of programs that are timed whole: how many operations each has; the kernels of all of them, and how often called. */
static const int operations[PROGRAMS] = {$operations};
static const int kernel_of[][2] = {$kernel_of};

static void say_to(int file, const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  (void)write(file, text, length);
}
static void say(const char *text) { say_to(1, text); }

/* In nanoseconds: the thread's own time, or the time that a clock on the wall shows. */
enum { OF_THREAD = 3, OF_WALL = 1 };
static uint64_t nanoseconds(long clock) {
#if defined(__riscv) && __riscv_xlen == 32
  struct { int64_t s, ns; } now;
#else
  struct { long s, ns; } now;
#endif
  system_call(CLOCK, clock, (long)&now, 0);
  return (uint64_t)now.s * 1000000000u + (uint64_t)now.ns;
}

/* Without division, which some processors lack for 64 bits. */
static void digits_to(int file, uint64_t value, int point) {
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
  say_to(file, text);
}
static void digits(uint64_t value, int point) { digits_to(1, value, point); }

/* Bit by bit, since some processors cannot divide 64 bits. */
static uint64_t divided(uint64_t value, int by) {
  uint64_t quotient = 0, rest = 0;
  for (int bit = 63; bit >= 0; bit--) {
    rest = rest << 1 | (value >> bit & 1);
    quotient <<= 1;
    if (rest >= (uint64_t)by) { rest -= (uint64_t)by; quotient |= 1; }
  }
  return quotient;
}

static void run(int program, int operation, uint32_t loops) {
  for (uint32_t i = 0; i < loops; i++) {
    if (operation <= 0) programs[program].input(arena, programs[program].pixels);
    if (operation > 0) programs[program].range(arena, operation, operation);
    if (operation < 0) { programs[program].invoke(arena); programs[program].output(arena, results); }
  }
}

static void sort_in(uint64_t *ascending, int count, uint64_t value) {
  for (; count > 0 && ascending[count - 1] > value; count--) ascending[count] = ascending[count - 1];
  ascending[count] = value;
}

/* Picoseconds of one run: the median of the samples, and what lies between their quartiles. */
static void measure(int program, int operation, uint64_t *median, uint64_t *spread) {
  uint64_t samples[SAMPLES];
  int shift = 0;
  for (; shift < 24; shift++) {
    const uint64_t start = nanoseconds(OF_THREAD);
    run(program, operation, 1u << shift);
    if (nanoseconds(OF_THREAD) - start >= $sample_ns) break;
  }
  for (int i = 0; i < SAMPLES; i++) {
    const uint64_t start = nanoseconds(OF_THREAD);
    run(program, operation, 1u << shift);
    const uint64_t taken = ((nanoseconds(OF_THREAD) - start) * 1000u) >> shift;
    sort_in(samples, i, taken);
  }
  *median = samples[SAMPLES / 2];
  *spread = samples[3 * SAMPLES / 4] - samples[SAMPLES / 4];
}

/* Puts the program's tensors into the arena. */
static int prepare(int program) {
  const int status = programs[program].init(arena);
  if (!status) run(program, -1, 1);
  return status;
}

int main(void) {
  static uint64_t medians[KERNELS], spreads[KERNELS];
  for (int p = 0; p < PROGRAMS; p++) {
    const int status = prepare(p);
    if (status) {
      static const char *const reasons[] = {$reasons};
      say_to(2, "the library cannot run here: ");
      say_to(2, reasons[status]);
      say_to(2, "\\n");
      return 1;
    }
    uint32_t different = 0;
    for (uint32_t i = 0; i < IMAGES; i++) {
      programs[p].input(arena, programs[p].pixels + i * programs[p].input_bytes);
      programs[p].invoke(arena);
      programs[p].output(arena, results);
      for (uint32_t j = 0; j < programs[p].outputs; j++) {
        uint32_t bits;
        memcpy(&bits, &results[j], sizeof bits);
        different += bits != programs[p].expected[i * programs[p].outputs + j];
      }
    }
    if (different) {
      say_to(2, "results differ from those that the search saw; nothing was timed\\n");
      return 1;
    }
  }
  for (int k = 0; k < KERNELS; k++) {
    if (k == 0 || first[k][0] != first[k - 1][0]) prepare(first[k][0]);
    measure(first[k][0], first[k][1], &medians[k], &spreads[k]);
    medians[k] = divided(medians[k], first[k][2]);
    spreads[k] = divided(spreads[k], first[k][2]);
  }
  uint64_t excess[PROGRAMS] = {0}, unused;
  for (int p = 0, operation = 0; p < PROGRAMS; p++) {
    uint64_t whole = 0, sum = 0;
    if (operations[p]) { prepare(p); measure(p, -1, &whole, &unused); }
    for (const int end = operation + operations[p]; operation < end; operation++) {
      sum += medians[kernel_of[operation][0]] * (uint64_t)kernel_of[operation][1];
    }
    sort_in(excess, p, whole > sum ? whole - sum : 0);
  }
  if ($load_ns > 0) {
    uint64_t runs = 0, taken = 0;
    uint32_t loops = 1;
    prepare(0);
    const uint64_t start = nanoseconds(OF_WALL);
    do {
      const uint64_t before = taken;
      run(0, -1, loops);
      runs += loops;
      taken = nanoseconds(OF_WALL) - start;
      if (taken - before < 1000000) loops *= 2; /* so that nearly nothing but the network takes power */
    } while (taken < $load_ns);
    say_to(2, "load: ");
    digits_to(2, runs, 0);
    say_to(2, " inferences in ");
    digits_to(2, taken, 9);
    say_to(2, " seconds\\n");
  }
  say("$head");
  say("# overhead_ms: ");
  digits(excess[PROGRAMS / 2], 9);
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


@dataclass(frozen=True)
class Timed:
    """A compiled program, and which of its operations (by position) is which kernel."""

    program: Program
    arena_bytes: int
    kernels: Mapping[int, Kernel]


def bench_source(timed: Mapping[str, Timed], table: LatencyTable, whole: bool, load_seconds: float = 0.0) -> str:
    """The program that times the kernels of `timed`, by the prefixes of their libraries, and prints `table`.

    `whole`: it times each program as a whole, too, for the overhead. It ends with `load_seconds` of inferences.
    """
    random = np.random.default_rng(0)
    declarations, entries, data = [], [], []
    for prefix, each in timed.items():
        pixels = random.integers(0, 256, (_IMAGES, *each.program.image_shape), np.uint8)
        expected = Executor(each.program).run(pixels).view(np.uint32)
        declarations.append(
            f"int {prefix}_init(void *);\nvoid {prefix}_input(void *, const uint8_t *);\n"
            f"void {prefix}_invoke(void *);\nvoid {prefix}_invoke_range(void *, int, int);\n"
            f"void {prefix}_output(const void *, float *);"
        )
        data.append(f"static const uint8_t {prefix}_pixels[] = {{{_listed(pixels)}}};")
        data.append(f"static const uint32_t {prefix}_expected[] = {{{_listed(expected, 'u')}}};")
        functions = ", ".join(f"{prefix}_{name}" for name in ("init", "input", "invoke", "invoke_range", "output"))
        sizes = f"{each.program.input.size}, {each.program.outputs}"
        entries.append(f"  {{{functions}, {prefix}_pixels, {prefix}_expected, {sizes}}},")
    callers: dict[Kernel, tuple[int, int, int]] = {}
    for number, each in enumerate(timed.values()):
        for position, kernel in each.kernels.items():
            callers.setdefault(kernel, (number, position, calls_of(each.program.operations[position])))
    known = list(callers)
    called = [
        (known.index(kernel), calls_of(each.program.operations[position]))
        for each in timed.values()
        for position, kernel in each.kernels.items()
    ]
    *head, columns = table_text(table, sealed=False).splitlines()
    return START + _BENCH.substitute(
        declarations="\n".join(declarations),
        programs=len(timed),
        operations=", ".join(str(len(each.kernels) if whole else 0) for each in timed.values()),
        kernels=len(known),
        samples=_SAMPLES,
        images=_IMAGES,
        outputs=max(each.program.outputs for each in timed.values()),
        arena_bytes=max(each.arena_bytes for each in timed.values()),
        alignment=ALIGNMENT,
        images_and_results="\n".join(data),
        entries="\n".join(entries),
        keys=",\n".join(_quoted(",".join(map(str, key_cells(kernel)))) for kernel in known),
        first=", ".join(f"{{{number}, {position}, {calls}}}" for number, position, calls in callers.values()),
        kernel_of=", ".join(f"{{{kernel}, {calls}}}" for kernel, calls in called),
        sample_ns=_SAMPLE_NS,
        load_ns=f"UINT64_C({round(load_seconds * 1e9)})",
        reasons=", ".join(_quoted(reason) for reason in STATUS.values()),
        head="".join(_quoted(line)[1:-1] + "\\n" for line in head if not line.startswith("# overhead_ms")),
        columns=columns,
    )


def _listed(values: NDArray[np.uint8] | NDArray[np.uint32], suffix: str = "") -> str:
    return ",".join(f"{value}{suffix}" for value in values.reshape(-1).tolist())


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
