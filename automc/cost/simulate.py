"""Tables of processors that are not here: exact counts of instructions under emulation times modelled cycles.

Cycles of a block of code come from llvm-mca 19, as a bracket: what its units' throughput allows, and what its
dependences cost where one execution follows the other. Misses of the first cache widen it: none, or one for every line
that a kernel touches. It is a model of cores that nobody measured here; good for ranking, never a measurement.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from automc.compiler.isa import Machine
from automc.compiler.processes import Limits, run_limited
from automc.compiler.profiling import Block, profile
from automc.cost.kernels import Kernel
from automc.cost.measure import empty_for
from automc.cost.probes import Probe
from automc.cost.table import LatencyTable, Row
from automc.errors import CompileError, RunnerError

SIMULATED = " (simulated)"  # behind the processor's name, until something is measured on one
MCA, OBJDUMP = "llvm-mca-19", "llvm-objdump-19"
_LIMITS = Limits(seconds=600, memory_bytes=8 << 30, file_bytes=1 << 30)
_ITERATIONS = 50
_LINE = re.compile(r"^\s*([0-9a-f]+):\s+(\S.*)$")
_LABEL = re.compile(r"0x[0-9a-f]+ <[^>]*>$")
_REMARK = re.compile(r" <[^>]*>$")  # what register and offset point to
_VECTORS = re.compile(r"^vseti?vli\s+\S+, \S+, e(\d+), (mf?\d)")


@dataclass(frozen=True)
class Core:
    """A processor that is not here. `machine` executes its instructions; `model` tells llvm-mca whose units it has."""

    name: str
    cpu: str
    target: str
    machine: Machine
    model: tuple[str, ...]
    comment: str  # how llvm-objdump begins one in its assembly
    clock_ghz: float
    line_bytes: int
    miss_cycles: float  # for a line that the first cache, or the flash memory's buffer, does not hold
    only_weights_miss: bool = False  # where the rest lies in memory that never makes the processor wait


_AARCH64 = Machine("qemu-aarch64", "cortex-a76")
_RISCV = "-mtriple=riscv64"
CORES: Mapping[str, Core] = {
    core.name: core
    for core in (
        Core("cortex_a55", "Arm Cortex-A55", "neondot", _AARCH64,
             ("-mtriple=aarch64", "-mcpu=cortex-a55"), "//", 1.8, 64, 12),
        Core("cortex_a76", "Arm Cortex-A76", "neondot", _AARCH64,
             ("-mtriple=aarch64", "-mcpu=neoverse-n1"), "//", 2.4, 64, 9),
        Core("sifive_u74", "SiFive U74", "rv64", Machine("qemu-riscv64", "sifive-u54"),
             (_RISCV, "-mcpu=sifive-u74"), "#", 1.2, 64, 15),
        Core("sifive_x280", "SiFive X280 (vectors of 512 bits)", "rvv",
             Machine("qemu-riscv64", "rv64,v=true,vext_spec=v1.0,elen=64,vlen=512"),
             (_RISCV, "-mcpu=sifive-x280"), "#", 1.5, 64, 15),
        Core("cortex_m4", "Arm Cortex-M4F", "cortexm4", Machine("qemu-arm", "cortex-a15"),
             ("-mtriple=thumbv7em", "-mcpu=cortex-m4"), "@", 0.168, 16, 5, only_weights_miss=True),
    )
}  # fmt: skip


def empty_simulation(core: Core) -> LatencyTable:
    """The table of `core` without rows. Raises `CompileError` where the compiler is missing."""
    notes = (
        f"simulated, not measured: instructions counted by {core.machine} times cycles by {MCA} {' '.join(core.model)} "
        f"at {core.clock_ghz:g} GHz; spread_ms is the width of a bracket from throughput alone to all dependences and "
        f"{core.miss_cycles:g} cycles for every {core.line_bytes} bytes that are touched; clock and misses are assumed"
    )
    return empty_for(core.name, core.cpu + SIMULATED, core.target, notes)


def simulate(probes: Sequence[Probe], core: Core, folder: Path) -> list[Row]:
    """The rows of the probes' kernels on `core`, compiled in `folder`.

    Raises `CompileError` where LLVM's tools are missing or fail, `RunnerError` where the emulator is or does.
    """
    for tool in (MCA, OBJDUMP):
        if shutil.which(tool) is None:
            raise CompileError(f"{tool} is not installed: apt-get install llvm-19")
    kernels = {
        (number, position): kernel
        for number, probe in enumerate(probes)
        for position, kernel in probe.by_position.items()
    }
    profiled = profile([probe.program for probe in probes], list(kernels), core.target, core.machine, folder)
    cycles = _cycles({block for counts in profiled.counts for block in counts}, profiled.executable, core)
    rows = {}
    for kernel, counts in zip(kernels.values(), profiled.counts, strict=True):
        low = sum(executed * cycles[block][0] for block, executed in counts.items())
        high = sum(executed * cycles[block][1] for block, executed in counts.items())
        high += core.miss_cycles * _touched_bytes(kernel, core) / core.line_bytes
        milliseconds = 1e-6 / core.clock_ghz
        rows[kernel] = Row(kernel, (low + high) / 2 * milliseconds, (high - low) * milliseconds, 1, "simulated")
    return list(rows.values())


def _touched_bytes(kernel: Kernel, core: Core) -> int:
    """Weights as they are multiplied by, and tensors."""
    if core.only_weights_miss:
        return kernel.weights
    written = kernel.height * kernel.width * kernel.outputs * (1 + kernel.residual)
    return kernel.weights + written + kernel.source_pixels * kernel.inputs


def _cycles(blocks: Iterable[Block], executable: Path, core: Core) -> dict[Block, tuple[float, float]]:
    """Per execution of each block: bound by throughput, and with dependences, at least the former."""
    code = dict(_disassembled(executable, core))
    addresses = sorted(code)
    places = {address: number for number, address in enumerate(addresses)}
    vectors = _vector_settings(code) if core.target == "rvv" else {}
    ordered = sorted(blocks, key=lambda block: (block.address, block.instructions))
    text = []
    for number, block in enumerate(ordered):
        place = places[block.address]
        lines = [code[address] for address in addresses[place : place + block.instructions]]
        text += [f"# LLVM-MCA-BEGIN {number}", *vectors.get(block.address, ())]
        text += [*lines, "# LLVM-MCA-END"]
    command = [MCA, *core.model, "-json", f"-iterations={_ITERATIONS}"]
    answer = json.loads(_output(command, "\n".join(text) + "\n"))
    cycles = {}
    for region in answer["CodeRegions"]:
        summary = region["SummaryView"]
        bound = float(summary["BlockRThroughput"])
        cycles[ordered[int(region["Name"])]] = bound, max(bound, summary["TotalCycles"] / _ITERATIONS)
    if missing := [block for block in ordered if block not in cycles]:
        raise CompileError(f"{MCA} said nothing of {len(missing)} blocks, as of that at {missing[0].address:#x}")
    return cycles


def _disassembled(executable: Path, core: Core) -> Iterator[tuple[int, str]]:
    """The instruction at each address, such that llvm-mca reads it again."""
    attributes = ["--mattr=+v"] if core.target == "rvv" else []
    listing = _output([OBJDUMP, "-d", "--no-show-raw-insn", *attributes, str(executable)])
    for line in listing.splitlines():
        if match := _LINE.match(line):
            instruction = match[2].split(core.comment)[0].replace("\t", " ").strip()
            yield int(match[1], 16), _REMARK.sub("", _LABEL.sub(".Lplace", instruction))


def _vector_settings(code: Mapping[int, str]) -> dict[int, tuple[str, str]]:
    """For each address, how llvm-mca is told the width and grouping of vectors that were set last before it."""
    settings = {}
    known: tuple[str, str] | None = None
    for address, instruction in sorted(code.items()):
        if known:
            settings[address] = known
        if match := _VECTORS.match(instruction):
            known = f"# LLVM-MCA-RISCV-LMUL {match[2].upper()}", f"# LLVM-MCA-RISCV-SEW E{match[1]}"
    return settings


def _output(command: list[str], given: str = "") -> str:
    try:
        ended = run_limited(command, _LIMITS, given.encode())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunnerError(f"{command[0]}: {error}") from error
    if ended.status != 0:
        raise CompileError(f"{command[0]} failed:\n{ended.errors.decode(errors='replace').strip()[-2000:]}")
    return ended.output.decode()
