"""Runs a freestanding program in the Unicorn emulator, as a process of its own: python -m … MODEL PROGRAM [COUNT].

The program reads this process's standard input and writes its standard output; it ends this process with its own
status, or by `_FAULT` where the processor that is emulated cannot go on, an instruction that it lacks for example.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import unicorn
from unicorn import arm64_const, arm_const, riscv_const

_PAGE = 4096
_STACK_TOP, _STACK_BYTES = 0x7FF00000, 1 << 20
_FAULT = 132  # as a shell says that a program executed an illegal instruction
_SUPERVISOR_CALLS = (2, 8)  # the exceptions of Arm's svc and of RISC-V's ecall


@dataclass(frozen=True)
class _Processor:
    """What differs between the processors: modes, registers, numbers of system calls, lengths of instructions."""

    architecture: int
    mode: int
    model: int
    stack: int
    number: int  # the register of a system call's number
    arguments: tuple[int, int, int]
    counter: int
    calls: tuple[int, int, int]  # the numbers of read, write and exit
    registers: tuple[tuple[int, int], ...]  # and the values that let the program use floating point and vectors
    lengths: Callable[[bytes], int]  # how many instructions a piece of code has


def _words(code: bytes) -> int:
    return len(code) // 4


def _halves(is_long: Callable[[int], bool]) -> Callable[[bytes], int]:
    def count(code: bytes) -> int:
        at = instructions = 0
        while at < len(code):
            at += 4 if is_long(int.from_bytes(code[at : at + 2], "little")) else 2
            instructions += 1
        return instructions

    return count


def _arm64(model: int) -> _Processor:
    const = arm64_const
    return _Processor(
        unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM, model, const.UC_ARM64_REG_SP, const.UC_ARM64_REG_X8,
        (const.UC_ARM64_REG_X0, const.UC_ARM64_REG_X1, const.UC_ARM64_REG_X2), const.UC_ARM64_REG_PC, (63, 64, 93),
        ((const.UC_ARM64_REG_CPACR_EL1, 0x300000),), _words,
    )  # fmt: skip


def _arm(model: int, thumb: bool) -> _Processor:
    const = arm_const
    mode = unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS if thumb else unicorn.UC_MODE_ARM
    enabling = () if thumb else ((const.UC_ARM_REG_C1_C0_2, 0xF << 20), (const.UC_ARM_REG_FPEXC, 0x40000000))
    return _Processor(
        unicorn.UC_ARCH_ARM, mode, model, const.UC_ARM_REG_SP, const.UC_ARM_REG_R7,
        (const.UC_ARM_REG_R0, const.UC_ARM_REG_R1, const.UC_ARM_REG_R2), const.UC_ARM_REG_PC, (3, 4, 1), enabling,
        _halves(lambda half: half >= 0xE800) if thumb else _words,
    )  # fmt: skip


def _riscv(model: int, bits: int) -> _Processor:
    const = riscv_const
    return _Processor(
        unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64 if bits == 64 else unicorn.UC_MODE_RISCV32, model,
        const.UC_RISCV_REG_SP, const.UC_RISCV_REG_A7,
        (const.UC_RISCV_REG_A0, const.UC_RISCV_REG_A1, const.UC_RISCV_REG_A2), const.UC_RISCV_REG_PC, (63, 64, 93),
        ((const.UC_RISCV_REG_MSTATUS, 0x2000),), _halves(lambda half: half & 3 == 3),
    )  # fmt: skip


_PROCESSORS: dict[str, Callable[[], _Processor]] = {
    "cortex-a53": lambda: _arm64(arm64_const.UC_CPU_ARM64_A53),
    "max": lambda: _arm64(arm64_const.UC_CPU_ARM64_MAX),
    "cortex-a7": lambda: _arm(arm_const.UC_CPU_ARM_CORTEX_A7, thumb=False),
    "cortex-m4": lambda: _arm(arm_const.UC_CPU_ARM_CORTEX_M4, thumb=True),
    "sifive-u54": lambda: _riscv(riscv_const.UC_CPU_RISCV64_SIFIVE_U54, 64),
    "sifive-e31": lambda: _riscv(riscv_const.UC_CPU_RISCV32_SIFIVE_E31, 32),
}


@dataclass(frozen=True)
class _Image:
    """An ELF program: where it begins, and the pieces of memory with their contents and sizes."""

    entry: int
    segments: tuple[tuple[int, bytes, int], ...]

    @classmethod
    def read(cls, path: Path) -> _Image:
        content = path.read_bytes()
        wide = content[4] == 2
        entry, table = struct.unpack_from("<QQ" if wide else "<II", content, 24)
        size, count = struct.unpack_from("<HH", content, 54 if wide else 42)
        segments = []
        for number in range(count):
            row = table + number * size
            if wide:
                kind, _, offset, address, _, stored, held = struct.unpack_from("<IIQQQQQ", content, row)
            else:
                kind, offset, address, _, stored, held = struct.unpack_from("<IIIIII", content, row)
            if kind == 1:  # loaded
                segments.append((address, content[offset : offset + stored], held))
        return cls(entry, tuple(segments))

    def pages(self) -> list[tuple[int, int]]:
        """The pages of all segments, as starts and lengths that do not overlap."""
        pages = sorted(
            {
                page
                for address, _, size in self.segments
                for page in range(address // _PAGE, -(-(address + size) // _PAGE))
            }
        )
        ranges: list[tuple[int, int]] = []
        for page in pages:
            if ranges and sum(ranges[-1]) == page * _PAGE:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + _PAGE)
            else:
                ranges.append((page * _PAGE, _PAGE))
        return ranges


class _Run:
    """One program on its way: memory, system calls, and the count of instructions."""

    def __init__(self, processor: _Processor, image: _Image) -> None:
        self.processor = processor
        self.entry = image.entry
        self.status: int | None = None
        self.executed = 0
        self._lengths: dict[tuple[int, int], int] = {}
        self.machine = unicorn.Uc(processor.architecture, processor.mode)
        self.machine.ctl_set_cpu_model(processor.model)
        for start, length in [*image.pages(), (_STACK_TOP - _STACK_BYTES, _STACK_BYTES)]:
            self.machine.mem_map(start, length)
        for address, content, _ in image.segments:
            self.machine.mem_write(address, content)
        self.machine.reg_write(processor.stack, _STACK_TOP - 64)
        for register, value in processor.registers:
            self.machine.reg_write(register, value)
        self.machine.hook_add(unicorn.UC_HOOK_INTR, self._interrupt)

    def count(self) -> None:
        self.machine.hook_add(unicorn.UC_HOOK_BLOCK, self._block)

    def go(self) -> int:
        """The program's status."""
        try:
            self.machine.emu_start(self.entry, 0)
        except unicorn.UcError as error:
            at = self.machine.reg_read(self.processor.counter)
            print(f"{error} at address {at:#x}", file=sys.stderr)
        return _FAULT if self.status is None else self.status

    def _block(self, machine: unicorn.Uc, address: int, size: int, _data: object) -> None:
        key = (address, size)
        if key not in self._lengths:
            self._lengths[key] = self.processor.lengths(bytes(machine.mem_read(address, size)))
        self.executed += self._lengths[key]

    def _interrupt(self, machine: unicorn.Uc, kind: int, _data: object) -> None:
        if kind not in _SUPERVISOR_CALLS:
            at = machine.reg_read(self.processor.counter)
            print(f"exception {kind} at address {at:#x}", file=sys.stderr)
            machine.emu_stop()
            return
        file, address, size = (machine.reg_read(register) for register in self.processor.arguments)
        result = 0
        match self.processor.calls.index(machine.reg_read(self.processor.number)):
            case 0:
                content = sys.stdin.buffer.read(size)
                machine.mem_write(address, content)
                result = len(content)
            case 1:
                sys.stdout.buffer.write(machine.mem_read(address, size))
                result = size
            case 2:
                self.status = file & 0xFF
                machine.emu_stop()
        machine.reg_write(self.processor.arguments[0], result)


def main(model: str, program: str, count: str | None = None) -> int:
    """Run `program`; answer with its status."""
    run = _Run(_PROCESSORS[model](), _Image.read(Path(program)))
    if count:
        run.count()
    status = run.go()
    sys.stdout.buffer.flush()
    if count:
        Path(count).write_text(str(run.executed))
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
