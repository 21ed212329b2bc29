"""The emulators, as commands: how each is started with a program, and how it counts the instructions."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from automc.compiler.isa import Machine
from automc.errors import RunnerError

UNICORN, POCL = "unicorn", "pocl"

# Counts executed instructions: the few declarations of QEMU's plugin interface (its version 1) that this needs.
QEMU_PLUGIN = """
#include <stdint.h>
#include <stdio.h>
#define EXPORT __attribute__((visibility("default")))
struct block;
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, void (*)(uint64_t, struct block *));
extern void qemu_plugin_register_atexit_cb(uint64_t, void (*)(uint64_t, void *), void *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int, void *, uint64_t);
extern size_t qemu_plugin_tb_n_insns(const struct block *);
EXPORT int qemu_plugin_version = 1;
static uint64_t executed;
static FILE *file;
static void translated(uint64_t id, struct block *block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_inline(block, 0, &executed, qemu_plugin_tb_n_insns(block));
}
static void ended(uint64_t id, void *data) {
  (void)id; (void)data;
  fprintf(file, "%llu", (unsigned long long)executed);
  fclose(file);
}
EXPORT int qemu_plugin_install(uint64_t id, const void *info, int count, char **arguments) {
  (void)info;
  if (count != 1 || !(file = fopen(arguments[0] + 4, "w"))) return 1; /* out=PATH */
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, ended, NULL);
  return 0;
}
"""


def available(machine: Machine) -> bool:
    """Whether the machine's emulator is installed."""
    if machine.emulator == UNICORN:
        return importlib.util.find_spec("unicorn") is not None
    if machine.emulator == POCL:
        return open_cl() is not None
    return shutil.which(machine.emulator) is not None


def first_available(machines: Iterable[Machine]) -> Machine | None:
    """The preferred one of the machines whose emulators are installed."""
    return next(filter(available, machines), None)


def remedy(machines: Iterable[Machine]) -> str:
    """What to install, so that one of the machines runs here."""
    emulators = {machine.emulator for machine in machines}
    ways = ["pip install 'automc[emulators]'"] if emulators & {UNICORN, POCL} else []
    ways += ["apt-get install qemu-user"] if emulators - {UNICORN, POCL} else []
    return " or ".join(ways)


@dataclass(frozen=True)
class OpenCL:
    """The processors of this machine as an OpenCL device: PoCL, as it lies in the package pyopencl."""

    loader: Path  # the library that a program calls
    driver: Path  # that the loader calls


def open_cl() -> OpenCL | None:
    """Where PoCL lies, if it is installed: `pocl-binary-distribution` puts it into the folder of `pyopencl`."""
    found = importlib.util.find_spec("pyopencl")
    for folder in (found.submodule_search_locations or []) if found else []:
        loaders, drivers = (sorted(Path(folder).glob(f".libs/lib{name}-*.so*")) for name in ("OpenCL", "pocl"))
        if loaders and drivers:
            return OpenCL(loaders[0], drivers[0])
    return None


def command(machine: Machine, program: Path, count: Path | None = None, plugin: Path | None = None) -> list[str]:
    """The command that runs `program` on the machine, and writes the number of executed instructions to `count`.

    QEMU needs the compiled `QEMU_PLUGIN` to count. Raises `RunnerError` where PoCL is to count, which cannot.
    """
    if machine.emulator == UNICORN:
        counting = [str(count)] if count else []
        return [sys.executable, "-m", "automc.compiler.unicorn_runner", machine.model, str(program), *counting]
    if machine.emulator == POCL:
        if count:
            raise RunnerError("PoCL does not count instructions")
        return [sys.executable, "-m", "automc.compiler.opencl_runner", str(program)]
    counting = ["-plugin", f"{plugin},out={count}"] if count else []
    return [machine.emulator, "-cpu", machine.model, *counting, str(program)]
