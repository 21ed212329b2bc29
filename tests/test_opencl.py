"""Libraries in OpenCL C under PoCL: networks of every shape exactly, what the host's C does, and failures told."""

import dataclasses
import sys

import numpy as np
import pytest

from automc.commands.artifacts import compile_command
from automc.compiler import emulation, emulators
from automc.compiler.artifact import compile_batch, compile_program, static_batch
from automc.compiler.emulation import emulate
from automc.compiler.emulators import open_cl
from automc.compiler.freestanding import driver, linked_for_system
from automc.compiler.isa import Machine
from automc.compiler.lowering import lower
from automc.compiler.targets import find_target
from automc.compiler.toolchain import tool_chain
from automc.compression.interpreter import interpret
from automc.compression.prepare import Preparation
from automc.cost.bench import build_bench
from automc.errors import CompileError, RunnerError
from tests.machines import NOT_RUN, assert_exact, emulate_batch
from tests.networks import traced
from tests.programs import Builder, random_pixels, random_program
from tests.shapes import CALIBRATION, SHAPES, random_programs
from tests.test_emulation import QUICKLY, some_programs

POCL = Machine("pocl", "cpu")
runs = pytest.mark.skipif(open_cl() is None, reason=f"{NOT_RUN}opencl; to run it: {emulators.remedy([POCL])}")


@runs
def test_networks_of_every_shape_are_exact(tmp_path):
    programs = [
        random_programs(Preparation(traced(shape()), CALIBRATION[:16]), 1, seed)[0] for seed, shape in enumerate(SHAPES)
    ]
    assert_exact(emulate_batch(programs, "opencl", tmp_path, POCL, *QUICKLY))


@runs
def test_random_programs_are_exact(tmp_path):
    programs = [random_program(np.random.default_rng(seed), steps=4, wide=seed % 4 == 0) for seed in range(15)]
    assert_exact(emulate_batch(programs, "opencl", tmp_path, POCL, *QUICKLY))


def binary_program(seed):
    """Layers of one-bit weights and values: full words and others, padding of 0 and 1, residuals, closed channels."""
    builder = Builder(np.random.default_rng(seed), (3, 5, 6))
    ends = []
    for position, channels in enumerate((1, 31, 32, 33, 65)):
        zero_point = (position + seed) % 2
        inner = builder.convolve(builder.input, channels, (1, 1), padding=(0, 0), bits=1)
        builder.tensors[inner] = dataclasses.replace(builder.tensors[inner], zero_point=zero_point)
        outputs = (7, 8, 17, 9, 16)[(position + seed) % 5]
        other = builder.select(inner, (np.arange(outputs) % channels).tolist()) if position == seed % 5 else None
        gate = builder.rank(builder.mean(inner, outputs), 2) if position == (seed + 1) % 5 else None
        ends.append(builder.convolve(inner, outputs, weight_bits=1, residual=other, gate=gate))
    return builder.finish_map(builder.join(ends))


@runs
def test_layers_of_bits_are_exact(tmp_path):
    programs = [binary_program(seed) for seed in range(4)]
    kernels = [kernel.choice.kernel for each in programs for kernel in lower(each, find_target("opencl")).kernels]
    assert sum(kernel.startswith("bits, popcount") for kernel in kernels) == 20
    assert_exact(emulate_batch(programs, "opencl", tmp_path, POCL, *QUICKLY))


@runs
@pytest.mark.slow
def test_many_random_programs_are_exact(tmp_path):
    for batch in range(10):
        programs = [random_program(np.random.default_rng([batch, seed]), steps=6) for seed in range(20)]
        assert_exact(emulate_batch(programs, "opencl", tmp_path / str(batch), POCL))


# Buffers begin full of 0xA5, and every reading looks whether all behind what kernels may write still is.
GUARDS = """
#undef clCreateBuffer
#undef clEnqueueReadBuffer
#include <CL/cl.h>
#include <stdlib.h>
enum { BEHIND = 128, OVERREAD = 64, COPY_HOST_PTR = 1 << 5 };
static struct { cl_mem memory; size_t bytes; } guarded[256];
static int guards;

cl_mem guarded_clCreateBuffer(cl_context context, cl_mem_flags flags, size_t bytes, void *host, cl_int *error) {
  uint8_t *filled = malloc(bytes + BEHIND);
  (void)host;
  memset(filled, 0xA5, bytes + BEHIND);
  guarded[guards].memory = clCreateBuffer(context, flags | COPY_HOST_PTR, bytes + BEHIND, filled, error);
  free(filled);
  guarded[guards].bytes = bytes;
  return guarded[guards++].memory;
}

cl_int guarded_clEnqueueReadBuffer(cl_command_queue queue, cl_mem memory, cl_bool wait, size_t offset, size_t bytes,
                                   void *to, cl_uint events, const cl_event *after, cl_event *done) {
  uint8_t behind[OVERREAD + BEHIND];
  cl_int error = clEnqueueReadBuffer(queue, memory, wait, offset, bytes, to, events, after, done);
  for (int i = 0; i < guards && error == CL_SUCCESS; i++) if (guarded[i].memory == memory) {
    error = clEnqueueReadBuffer(queue, memory, CL_TRUE, guarded[i].bytes - OVERREAD, sizeof behind, behind, 0, 0, 0);
    for (size_t j = 0; j < sizeof behind; j++) if (behind[j] != 0xA5) error = -1;
  }
  return error;
}
"""


@runs
def test_nothing_behind_the_arena_is_written(tmp_path):
    programs = list(some_programs())
    renamed = [f"-D{name}=guarded_{name}" for name in ("clCreateBuffer", "clEnqueueReadBuffer")]
    lowered, tools = static_batch(programs, "opencl", tmp_path, *QUICKLY, *renamed)
    program = tmp_path / "program.so"
    program.write_bytes(linked_for_system(driver(lowered) + GUARDS, tmp_path / "libmodel.a", tools))
    assert_exact(emulation.Emulated(program, POCL, tuple(programs)))


TWICE = """
#include <stdint.h>
#include <unistd.h>
#include "model.h"
static uint8_t memory[ARENA_BYTES] __attribute__((aligned(64)));
int main(void) {
  static uint8_t pixels[INPUT_BYTES];
  float results[OUTPUTS];
  if (init_on(memory, 0) != 5) return 1;
  if (init(memory + 1) != 3) return 2;
  if (read(0, pixels, sizeof pixels) != sizeof pixels) return 3;
  for (int i = 0; i < 2; i++) {
    if (init(memory) != 0) return 4;
    input(memory, pixels);
    invoke(memory);
    output(memory, results);
    release(memory);
    if (write(1, results, sizeof results) != sizeof results) return 5;
  }
  return 0;
}
"""


@runs
def test_what_init_takes_is_given_back(small, tmp_path):
    """A second time in the same memory, with a program of the user's own."""
    built = compile_program(small, "opencl", tmp_path)
    tools = tool_chain("zig", find_target("opencl")).with_flags("-I", str(tmp_path))
    prefix = built.manifest["prefix"]
    names = ("ARENA_BYTES", "INPUT_BYTES", "OUTPUTS", "init_on", "init", "input", "invoke", "output", "release")
    source = "".join(f"#define {name} {prefix}_{name}\n" for name in names) + TWICE
    (tmp_path / "twice.so").write_bytes(linked_for_system(source, tmp_path / "libmodel.a", tools))
    image = random_pixels(np.random.default_rng(0), small, 3)[1:2]
    command = emulators.command(POCL, tmp_path / "twice.so")
    ended = emulation.run_limited(command, emulation.LIMITS, image.tobytes())
    assert (ended.status, ended.errors) == (0, b"")
    found = np.frombuffer(ended.output, np.float32).reshape(2, -1)
    assert np.array_equal(found, np.repeat(interpret(small, image), 2, axis=0))


@runs
def test_damaged_weights_are_told(tmp_path):
    from tests.test_encodings import forms_program

    program = forms_program(0, kernel=(3, 3))
    emulate_batch([program], "opencl", tmp_path, POCL)
    source = (tmp_path / "model.c").read_text()
    start = source.index("return 0;\n", source.index("automc_0_fill"))
    assert "expand(" in source[:start]
    lowered = {"automc_0": lower(program, find_target("opencl"))}
    tools = tool_chain("zig", find_target("opencl"))
    (tmp_path / "damaged.c").write_text(source.replace("if (!expand(expanded, ", "if (!expand(expanded, 1 + "))
    tools.compile([tmp_path / "damaged.c"], tmp_path / "damaged.o")
    tools.archive([tmp_path / "damaged.o"], tmp_path / "damaged.a")
    emulated = emulate(tmp_path / "damaged.a", lowered, tools, POCL)
    with pytest.raises(RunnerError, match="the stored weights are damaged"):
        emulated.run(random_pixels(np.random.default_rng(0), program, 1))


@runs
def test_a_machine_without_a_device_is_told(small, tmp_path, monkeypatch):
    found = open_cl()
    script = (
        "import ctypes, os, sys; os.environ |= {'PYOPENCL_HOME': '/', 'OCL_ICD_VENDORS': '/nowhere'}; "
        "ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL); sys.exit(ctypes.CDLL(sys.argv[2]).main())"
    )
    monkeypatch.setattr(
        emulation, "command", lambda machine, program: [sys.executable, "-c", script, str(found.loader), str(program)]
    )
    emulated = emulate_batch([small], "opencl", tmp_path, POCL)
    with pytest.raises(RunnerError, match="there is no OpenCL device"):
        emulated.run(random_pixels(np.random.default_rng(0), small, 1))


@runs
def test_the_command_verifies_what_it_compiled(small, tmp_path, capsys):
    small.save(tmp_path / "program.safetensors")
    compile_command(tmp_path, "opencl", "zig", None, True, False)
    printed = capsys.readouterr().out
    assert "dot products, mad24" in printed
    assert "no table of opencl, and so no estimates" in printed
    assert "verified under emulation on 3 inputs (pocl cpu)" in printed
    header = (tmp_path / "library-opencl" / "model.h").read_text()
    assert "not-a-number where OpenCL has failed" in header
    assert "find_package(OpenCL REQUIRED)" in (tmp_path / "library-opencl" / "CMakeLists.txt").read_text()


def test_without_pocl_a_person_is_told_what_to_install(small, tmp_path, monkeypatch):
    monkeypatch.setattr(emulators, "open_cl", lambda: None)
    built = compile_program(small, "opencl", tmp_path)
    with pytest.raises(RunnerError, match=r"no emulator is here: pip install 'automc\[emulators\]'"):
        built.runnable()


def test_there_is_nothing_to_load_to_time_or_to_count(small, tmp_path):
    built = compile_program(small, "opencl", tmp_path)
    assert "libmodel.so" not in built.manifest["files"]
    with pytest.raises(RunnerError, match="libraries for opencl cannot be loaded"):
        compile_batch([small], "opencl", tmp_path)
    with pytest.raises(CompileError, match="no bench program for opencl"):
        build_bench(built, "phone", "any", tmp_path / "bench")
    with pytest.raises(RunnerError, match="PoCL does not count instructions"):
        emulators.command(POCL, tmp_path / "program.so", tmp_path / "count")
