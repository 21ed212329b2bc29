"""C that makes a library into a program of its own: no system's libraries, for emulators and for devices alike.

`START` is all that a program needs of a system, on Linux or on an emulator that answers its calls: to begin, to read,
to write, to end. `DRIVER` runs the library's programs on what comes by standard input; it can be compiled without
`START`, too, with a system's own library.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template

from automc.compiler.isa import ALIGNMENT
from automc.compiler.lowering import Lowered
from automc.compiler.pool import SERIAL_POOL
from automc.compiler.toolchain import ToolChain

START = """
#include <stddef.h>
#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, EXIT = 60 };
#elif defined(__arm__)
enum { READ = 3, WRITE = 4, EXIT = 1 };
#else
enum { READ = 63, WRITE = 64, EXIT = 93 };
#endif

static long system_call(long number, long a, long b, long c) {
#if defined(__aarch64__)
  register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
#elif defined(__riscv)
  register long a7 __asm__("a7") = number, a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c;
  __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2) : "memory");
  return a0;
#elif defined(__arm__)
  register long r3 __asm__("r3") = number, r0 __asm__("r0") = a, r1 __asm__("r1") = b, r2 __asm__("r2") = c;
  /* The number belongs into r7, which is Thumb code's frame pointer. */
  __asm__ volatile("push {r7}\\n mov r7, r3\\n svc 0\\n pop {r7}" : "+r"(r0) : "r"(r3), "r"(r1), "r"(r2) : "memory");
  return r0;
#elif defined(__x86_64__)
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
#endif
}
static long read(int file, void *to, size_t count) { return system_call(READ, file, (long)to, (long)count); }
static long write(int file, const void *from, size_t count) {
  return system_call(WRITE, file, (long)from, (long)count);
}

void *memcpy(void *restrict to, const void *restrict from, size_t count) {
  for (size_t i = 0; i < count; i++) ((unsigned char *)to)[i] = ((const unsigned char *)from)[i];
  return to;
}
void *memset(void *to, int value, size_t count) {
  for (size_t i = 0; i < count; i++) ((unsigned char *)to)[i] = (unsigned char)value;
  return to;
}
void *memmove(void *to, const void *from, size_t count) {
  unsigned char *t = to;
  const unsigned char *f = from;
  if (t < f) for (size_t i = 0; i < count; i++) t[i] = f[i];
  else for (size_t i = count; i-- > 0;) t[i] = f[i];
  return to;
}

int main(void);
__attribute__((used)) static void begin(void) { for (;;) system_call(EXIT, main(), 0, 0); }
#if defined(__aarch64__)
__asm__(".globl _start\\n_start: mov x0, sp\\n and sp, x0, #-16\\n bl begin\\n");
#elif defined(__riscv)
__asm__(".globl _start\\n_start: .option push\\n .option norelax\\n lla gp, __global_pointer$\\n .option pop\\n"
        " andi sp, sp, -16\\n call begin\\n");
#elif defined(__arm__)
__asm__(".globl _start\\n.type _start, %function\\n_start: bl begin\\n");
#elif defined(__x86_64__)
__asm__(".globl _start\\n_start: and $-16, %rsp\\n call begin\\n");
#endif
"""

_DRIVER = Template("""
#ifdef __STDC_HOSTED__
#if __STDC_HOSTED__
#include <unistd.h>
#endif
#endif
#include <stdint.h>
#include <string.h>
$declarations

static const struct {
  int (*init)(void *);
  void (*input)(void *, const uint8_t *);
  void (*invoke)(void *);
  void (*output)(const void *, float *);
  uint32_t arena_bytes, input_bytes, outputs;
} programs[] = {
$entries
};

enum { GUARD_BYTES = $alignment, GUARD = 0xA5 };
static uint8_t memory[GUARD_BYTES + $arena_bytes + GUARD_BYTES] __attribute__((aligned($alignment)));
static uint8_t *const arena = memory + GUARD_BYTES;
static uint8_t pixels[$input_bytes];
static uint8_t logits[4 * $outputs + GUARD_BYTES] __attribute__((aligned($alignment)));

static int take(void *to, size_t count) {
  for (uint8_t *p = to; count > 0;) {
    const long got = (long)read(0, p, count);
    if (got <= 0) return 0;
    p += got;
    count -= (size_t)got;
  }
  return 1;
}
static void give(const void *from, size_t count) {
  for (const uint8_t *p = from; count > 0;) {
    const long put = (long)write(1, p, count);
    if (put <= 0) return;
    p += put;
    count -= (size_t)put;
  }
}
static int intact(const uint8_t *guard) {
  for (int i = 0; i < GUARD_BYTES; i++) if (guard[i] != GUARD) return 0;
  return 1;
}

/* For each program: how many images, how often each is computed, the images; back comes what init answered and for
   each image the logits, and whether all writes fell into the arena and the logits. */
int main(void) {
  for (unsigned n = 0; n < sizeof programs / sizeof programs[0]; n++) {
    uint32_t images, repeats;
    if (!take(&images, sizeof images) || !take(&repeats, sizeof repeats)) return 1;
    memset(memory, GUARD, GUARD_BYTES + programs[n].arena_bytes + GUARD_BYTES);
    const uint32_t status = images ? (uint32_t)programs[n].init(arena) : 0;
    give(&status, sizeof status);
    for (uint32_t i = 0; i < images; i++) {
      if (!take(pixels, programs[n].input_bytes)) return 1;
      if (status) continue;
      const size_t size = 4 * (size_t)programs[n].outputs;
      memset(logits, GUARD, size + GUARD_BYTES);
      for (uint32_t repeat = 0; repeat < repeats; repeat++) {
        programs[n].input(arena, pixels);
        programs[n].invoke(arena);
        programs[n].output(arena, (float *)(void *)logits);
      }
      const uint32_t within = intact(memory) && intact(arena + programs[n].arena_bytes)
          && intact(logits + size);
      give(logits, size);
      give(&within, sizeof within);
    }
  }
  return 0;
}
""")


_SUBJECT = "the driver"  # what a failure is of: its files are gone by then


def linked(source: str, library: Path, tools: ToolChain) -> bytes:
    """The executable of `source`, C that begins with `START`, and a static library. Raises `CompileError`."""
    with tempfile.TemporaryDirectory(prefix="automc-compile-") as temporary:
        work = Path(temporary)
        (work / "program.c").write_text(source)
        tools.with_flags("-ffreestanding").compile([work / "program.c"], work / "program.o", _SUBJECT)
        tools.compile([work / "program.o", library], work / "program.elf", _SUBJECT)
        return (work / "program.elf").read_bytes()


def linked_for_system(source: str, library: Path, tools: ToolChain) -> bytes:
    """The shared library of `source`, C that has a `main`, and a static library, for a process that has OpenCL.

    Raises `CompileError`.
    """
    with tempfile.TemporaryDirectory(prefix="automc-compile-") as temporary:
        work = Path(temporary)
        (work / "program.c").write_text(source)
        tools.compile([work / "program.c"], work / "program.o", _SUBJECT)
        tools.with_flags("-Wl,-z,undefs").compile([work / "program.o", library], work / "program.so", _SUBJECT)
        return (work / "program.so").read_bytes()


def driver(programs: Mapping[str, Lowered]) -> str:
    """The C of a program that runs those of a library, by their prefixes."""
    declarations, entries = [], []
    for prefix, lowered in programs.items():
        declarations.append(
            f"int {prefix}_init(void *); void {prefix}_input(void *, const uint8_t *); "
            f"void {prefix}_invoke(void *); void {prefix}_output(const void *, float *);"
        )
        entries.append(
            f"  {{{prefix}_init, {prefix}_input, {prefix}_invoke, {prefix}_output, {lowered.caller_bytes}, "
            f"{lowered.program.input.size}, {lowered.program.outputs}}},"
        )
    if any(lowered.threads > 1 for lowered in programs.values()):
        declarations.append(SERIAL_POOL)
    return _DRIVER.substitute(
        declarations="\n".join(declarations),
        entries="\n".join(entries),
        arena_bytes=max(lowered.caller_bytes for lowered in programs.values()),
        input_bytes=max(lowered.program.input.size for lowered in programs.values()),
        outputs=max(lowered.program.outputs for lowered in programs.values()),
        alignment=ALIGNMENT,
    )
