"""How often every block of a library's code is executed, operation by operation: exact counts from QEMU.

A block is a run of instructions without a branch into or out of it, as QEMU translates it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from automc.compiler.artifact import static_batch
from automc.compiler.build import STATIC
from automc.compiler.emulation import LIMITS, qemu_plugin
from automc.compiler.freestanding import START, linked
from automc.compiler.isa import ALIGNMENT, Machine
from automc.compiler.lowering import Lowered
from automc.compiler.processes import run_limited
from automc.compression.program import Program
from automc.errors import RunnerError
from automc.files import write_atomic

_MARK = 99  # no file: writing to it does nothing, and tells the plugin that an operation begins or ends

_PLUGIN = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#define EXPORT __attribute__((visibility("default")))
struct block;
struct instruction;
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, void (*)(uint64_t, struct block *));
extern void qemu_plugin_register_atexit_cb(uint64_t, void (*)(uint64_t, void *), void *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int, void *, uint64_t);
extern void qemu_plugin_register_vcpu_syscall_cb(uint64_t, void (*)(uint64_t, unsigned, int64_t, uint64_t, uint64_t,
  uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
extern size_t qemu_plugin_tb_n_insns(const struct block *);
extern struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct instruction *);
extern size_t qemu_plugin_insn_size(const struct instruction *);
EXPORT int qemu_plugin_version = 1;
static struct known { uint64_t address, length, executed; struct known *next; } *all;
static FILE *file;
static void translated(uint64_t id, struct block *block) {
  (void)id;
  struct known *known = calloc(1, sizeof *known);
  known->length = qemu_plugin_tb_n_insns(block);
  known->address = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(block, 0));
  const struct instruction *last = qemu_plugin_tb_get_insn(block, known->length - 1);
  /* One that crosses a page gets a block of its own, and is listed here, too. */
  if (known->length > 1 && (qemu_plugin_insn_vaddr(last) & 4095) + qemu_plugin_insn_size(last) > 4096) known->length--;
  known->next = all;
  all = known;
  qemu_plugin_register_vcpu_tb_exec_inline(block, 0, &known->executed, 1);
}
static void called(uint64_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)id; (void)cpu; (void)number; (void)b; (void)c; (void)d; (void)e; (void)f; (void)g; (void)h;
  if (a != MARK) return;
  for (struct known *known = all; known; known = known->next) {
    if (known->executed) fprintf(file, "%llx %llu %llu ", (unsigned long long)known->address,
                                 (unsigned long long)known->length, (unsigned long long)known->executed);
    known->executed = 0;
  }
  fprintf(file, "\\n");
}
static void ended(uint64_t id, void *data) { (void)id; (void)data; fclose(file); }
EXPORT int qemu_plugin_install(uint64_t id, const void *info, int count, char **arguments) {
  (void)info;
  if (count != 1 || !(file = fopen(arguments[0] + 4, "w"))) return 1; /* out=PATH */
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  qemu_plugin_register_atexit_cb(id, ended, NULL);
  return 0;
}
""".replace("MARK", str(_MARK))

_DRIVER = Template("""
#include <stdint.h>
$declarations
static uint8_t arena[$arena_bytes] __attribute__((aligned($alignment)));
static uint8_t pixels[$input_bytes];
static void mark(void) { (void)write($mark, pixels, 0); }

int main(void) {
  for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 37);
$calls
  return 0;
}
""")


@dataclass(frozen=True)
class Block:
    """The address of its first instruction, and how many there are."""

    address: int
    instructions: int


@dataclass(frozen=True)
class Profile:
    """An executable, and for each operation asked for, how often it executes every block."""

    executable: Path
    counts: tuple[Mapping[Block, int], ...]


def profile(
    programs: Sequence[Program], operations: Sequence[tuple[int, int]], target: str, machine: Machine, folder: Path
) -> Profile:
    """Compile programs for `target` into `folder` and run each of the `operations` (number of the program, position)
    once on `machine`, which is one of QEMU's.

    Raises `CompileError`, and `RunnerError` where the machine cannot run them.
    """
    lowered, tools = static_batch(programs, target, folder)
    executable = folder / "program.elf"
    write_atomic(executable, linked(START + _driver(lowered, operations), folder / STATIC, tools), mode=0o777)
    with tempfile.TemporaryDirectory() as temporary:
        counts = Path(temporary) / "counts"
        command = [machine.emulator, "-cpu", machine.model, "-plugin", f"{qemu_plugin(_PLUGIN)},out={counts}"]
        try:
            ended = run_limited([*command, str(executable)], LIMITS)
        except OSError as error:
            raise RunnerError(f"{machine} cannot be run: {error}") from error
        if ended.status != 0:
            said = ended.errors.decode(errors="replace").strip()[-2000:]
            raise RunnerError(f"{executable} failed on {machine} with status {ended.status}: {said}")
        _, *phases = counts.read_text().splitlines()
    found = tuple(_counts(phase) for phase in phases[::2])  # between two operations, their programs are prepared
    if len(found) != len(operations):
        raise RunnerError(f"{machine} counted {len(found)} operations of {len(operations)}")
    return Profile(executable, found)


def _counts(phase: str) -> dict[Block, int]:
    counts: dict[Block, int] = {}
    words = iter(phase.split())
    for address, instructions, executed in zip(words, words, words, strict=True):
        block = Block(int(address, 16), int(instructions))
        counts[block] = counts.get(block, 0) + int(executed)
    return counts


def _driver(lowered: Mapping[str, Lowered], operations: Sequence[tuple[int, int]]) -> str:
    prefixes = list(lowered)
    declarations = [
        f"int {prefix}_init(void *); void {prefix}_input(void *, const uint8_t *); void {prefix}_invoke(void *); "
        f"void {prefix}_invoke_range(void *, int, int);"
        for prefix in prefixes
    ]
    calls = []
    for number, position in operations:
        prefix = prefixes[number]
        calls.append(f"  if ({prefix}_init(arena)) return 1;")
        calls.append(f"  {prefix}_input(arena, pixels); {prefix}_invoke(arena); mark();")
        one = f"{prefix}_invoke_range(arena, {position}, {position})" if position else f"{prefix}_input(arena, pixels)"
        calls.append(f"  {one}; mark();")
    return _DRIVER.substitute(
        declarations="\n".join(declarations),
        arena_bytes=max(each.arena_bytes for each in lowered.values()),
        alignment=ALIGNMENT,
        input_bytes=max(each.program.input.size for each in lowered.values()),
        mark=_MARK,
        calls="\n".join(calls),
    )
