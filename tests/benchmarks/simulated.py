"""What can be said of processors that are not here: instructions per multiply-accumulate, and modelled cycles.

Instructions are counted by emulators, exactly; the x86 row is counted in the same way, to be compared with. Cycles are
llvm-mca 19's for the innermost loop, as [bound by throughput, with dependences] per 64 multiply-accumulates: a model
of a core that was never measured here. Run: python -m tests.benchmarks.simulated
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from automc.compiler.emit import emit_source
from automc.compiler.emulators import available
from automc.compiler.isa import Machine
from automc.compiler.lowering import lower
from automc.compiler.targets import TARGETS, find_target
from automc.compiler.toolchain import tool_chain
from automc.compression.program import Program
from tests.machines import emulate_batch
from tests.programs import Builder

X86 = Machine("qemu-x86_64", "max")
MCA = "llvm-mca-19"
LAYERS = {
    "3x3 64-64, W8": {"kernel": (3, 3), "padding": (1, 1)},
    "3x3 64-64, W4": {"kernel": (3, 3), "padding": (1, 1), "weight_bits": 4},
    "1x1 64-64, W8": {"kernel": (1, 1), "padding": (0, 0)},
    "depthwise 3x3, W8": {"kernel": (3, 3), "padding": (1, 1), "groups": 64},
}
CORES = {  # by target: what llvm-mca calls the processors whose models are the target's own or its nearest
    "avx2": ("x86-64", ("skylake", "znver3")),
    "neon": ("aarch64", ("cortex-a55", "neoverse-n1")),
    "neondot": ("aarch64", ("cortex-a55", "neoverse-n1")),
    "i8mm": ("aarch64", ("neoverse-n2",)),
    "rv64": ("riscv64", ("sifive-u74",)),
    "rvv": ("riscv64", ("sifive-x280",)),
}
MACS = {  # of one instruction, by the beginning of its name and its operands
    r"vpmaddubsw": 32, r"vpmaddwd": 16, r"[su]sdot|sdot|usdot": 16, r"smlal2?\s+v\d+\.8h": 8, r"smull2?\s+v\d+\.8h": 8,
    r"smlal2?\s+v\d+\.4s": 4, r"smull2?\s+v\d+\.4s": 4, r"vwmacc": 8, r"mulw?\s": 1,
}  # fmt: skip


def programs() -> list[Program]:
    """A program with nothing but its last layer, and one for each layer that has this one besides."""
    found = []
    for layer in (None, *LAYERS.values()):
        builder = Builder(np.random.default_rng(0), (64, 8, 8))
        source = builder.input if layer is None else builder.convolve(builder.input, 64, **layer)
        found.append(builder.finish(source, outputs=1))
    return found


def instructions(target: str, machine: Machine) -> list[float]:
    """Instructions per multiply-accumulate of each layer: what a program executes more for it."""
    with tempfile.TemporaryDirectory() as folder:
        emulated = emulate_batch(programs(), target, Path(folder), machine)
        image = np.random.default_rng(1).integers(0, 256, (8, 8, 64), np.uint8)
        counts = [emulated.instructions(number, image) for number in range(len(emulated.programs))]
    macs = [program.macs for program in emulated.programs]
    return [(counts[n] - counts[0]) / (macs[n] - macs[0]) for n in range(1, len(counts))]


def inner_loop(target: str, program: Program) -> tuple[str, int]:
    """The innermost loop of `program` that multiplies most, as assembly, and its multiply-accumulates."""
    tools = tool_chain("zig", find_target(target))
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "model.c", Path(folder) / "model.s"
        source.write_text(emit_source({"layer": lower(program, find_target(target))}))
        command = [*tools.command, *tools.flags, "-S", str(source), "-o", str(output)]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        lines = output.read_text().splitlines()
    labels = {line.split(":")[0]: number for number, line in enumerate(lines) if re.match(r"\.L\w+:", line)}
    loops = []
    for number, line in enumerate(lines):
        jump = re.match(r"\s+(?:b\.?\w*|cb\w+|tb\w+|j\w+)\s.*?(\.L\w+)\s*$", line.split("#")[0].split("//")[0])
        if jump and labels.get(jump.group(1), number) < number:
            loops.append((labels[jump.group(1)], number))
    inner = [
        one for one in loops if not any(other != one and one[0] <= other[0] <= other[1] <= one[1] for other in loops)
    ]
    bodies = []
    for first, last in inner:
        body = [line.strip() for line in lines[first : last + 1] if re.match(r"\s+[a-z]", line)]
        macs = sum(count for line in body for name, count in MACS.items() if re.match(name, line))
        # Vectors' lengths are set before a loop; the model has to be told.
        setting = [line.strip() for line in lines[:first] if re.match(r"\s+vset", line)][-1:] if target == "rvv" else []
        bodies.append((macs, "\n".join([*setting, *body]) + "\n"))
    macs, body = max(bodies, key=lambda pair: pair[0])
    return body, macs


def cycles(architecture: str, core: str, body: str) -> tuple[float, float]:
    """Per iteration: bound by the units' throughput, and as simulated with dependences."""
    answer = subprocess.run(
        [MCA, f"-march={architecture}", f"-mcpu={core}", "-iterations=200"],
        input=body, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if answer.returncode:
        raise SystemExit(f"{MCA} for {core}: {answer.stderr.strip()[:2000]}")
    bound = re.search(r"Block RThroughput:\s+([\d.]+)", answer.stdout)
    total = re.search(r"Total Cycles:\s+(\d+)", answer.stdout)
    assert bound is not None
    assert total is not None
    return float(bound.group(1)), int(total.group(1)) / 200


def main() -> None:
    print("instructions per multiply-accumulate (simulated)")
    print(f"{'target':12s} {'machine':44s} " + " ".join(f"{name:>18s}" for name in LAYERS))
    compiled = [(name, target) for name, target in TARGETS.items() if target.language == "C"]
    rows = [("avx2", X86), *((name, machine) for name, target in compiled for machine in target.machines[:3])]
    for target, machine in rows:
        if machine.emulator == "unicorn" and len(TARGETS[target].machines) > 1:
            continue  # QEMU counts the same, faster
        if not available(machine):
            print(f"{target:12s} {str(machine)[:44]:44s} not run: the emulator is missing")
            continue
        print(
            f"{target:12s} {str(machine)[:44]:44s} "
            + " ".join(f"{count:18.3f}" for count in instructions(target, machine)),
            flush=True,
        )
    if shutil.which(MCA) is None:
        print(f"{MCA} is missing: no cycles (apt-get install llvm-19)")
        return
    print("\ncycles of the innermost loop per 64 multiply-accumulates (modelled)")
    for target, (architecture, cores) in CORES.items():
        for name, program in zip(LAYERS, programs()[1:], strict=True):
            if name.startswith("depthwise"):
                continue  # its loop is unrolled: the instructions above tell
            body, macs = inner_loop(target, program)
            for core in cores:
                bound, simulated = (64 * each / macs for each in cycles(architecture, core, body))
                print(f"{target:10s} {core:14s} {name:16s} [{bound:6.2f}, {simulated:6.2f}]", flush=True)


if __name__ == "__main__":
    main()
