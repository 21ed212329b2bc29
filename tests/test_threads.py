"""Libraries of several threads: the same results as one thread gives, by the pool or by one of the user's own."""

import shutil
import subprocess

import numpy as np
import pytest

from automc.compiler import strips
from automc.compiler.artifact import compile_batch, compile_program, open_artifact
from automc.compiler.emit import emit_header, emit_source
from automc.compiler.emulation import emulate
from automc.compiler.emulators import available
from automc.compiler.kernel import Constant
from automc.compiler.lowering import lower
from automc.compiler.targets import TARGETS, find_target, host_target, runs_here
from automc.compiler.toolchain import tool_chain
from automc.compression.interpreter import interpret
from automc.cost.bench import build_bench
from automc.errors import CompileError, InputError
from tests.machines import NOT_RUN
from tests.programs import Builder, random_pixels, random_program
from tests.test_emulation import some_programs

HOSTS = [name for name in ("portable", "avx2", "avx512vnni") if runs_here(TARGETS[name])]


@pytest.fixture(autouse=True)
def small_layers_are_cut(monkeypatch):
    monkeypatch.setattr(strips, "LEAST_MACS", 0)
    monkeypatch.setattr(strips, "LEAST_VALUES", 0)


def mixed_program():
    """Everything that is cut, with windows that reach over the rows of the other parts, and what is not."""
    builder = Builder(np.random.default_rng(7), (3, 13, 11))
    stem = builder.convolve(builder.input, 12, (5, 3), (1, 2), (2, 1), dilation=(2, 1), weight_bits=4)
    bits = builder.convolve(builder.pool(stem, "max", (2, 2)), 12, bits=1)
    binary = builder.convolve(bits, 12, weight_bits=1)
    depthwise = builder.convolve(binary, 12, (3, 3), (2, 1), groups=12)
    grouped = builder.convolve(depthwise, 24, groups=3, encoding="sparse")
    blocks = builder.convolve(grouped, 24, encoding="blocks", residual=grouped)
    joined = builder.join([builder.pool(blocks, "mean", (3, 3), padding=(1, 1)), builder.sum(blocks, grouped)])
    gains = builder.mean(joined, 48)
    scaled = builder.scale(builder.lookup(joined, bits=6), gains)
    gated = builder.convolve(scaled, 17, encoding="codebook", gate=builder.rank(builder.mean(scaled, 17), 5))
    chosen = builder.select(builder.pool(gated, "max", (3, 3), padding=(1, 1)), [0, 3, -1, 16, 2], 2)
    return builder.finish(chosen)


@pytest.mark.parametrize("threads", [2, 3])
def test_several_threads_compute_what_the_program_means(threads, tmp_path):
    program = mixed_program()
    (library,) = compile_batch([program], host_target(), tmp_path, threads=threads)
    pixels = random_pixels(np.random.default_rng(0), program, 50)
    assert np.array_equal(library.run(pixels), interpret(program, pixels))


@pytest.mark.slow
@pytest.mark.parametrize("target", HOSTS)
def test_every_kind_of_kernel_is_cut_exactly(target, tmp_path):
    programs = [mixed_program(), *some_programs()]
    for number, library in enumerate(compile_batch(programs, target, tmp_path, threads=3)):
        pixels = random_pixels(np.random.default_rng(number), programs[number], 20)
        assert np.array_equal(library.run(pixels), interpret(programs[number], pixels)), f"program {number}"


@pytest.mark.parametrize("target", [name for name in TARGETS if TARGETS[name].language == "C"])
def test_parts_share_their_constants(target):
    """Only those of the first part are stored, so that the others must not choose another form of them."""
    for program in (mixed_program(), *some_programs()):
        for threads in (3, 5):
            lowered = lower(program, find_target(target), threads)
            for whole, parts in zip(lowered.kernels, lowered.parts, strict=True):
                assert all(part.scratch_bytes <= whole.scratch_bytes for part in parts)  # each is given so much
                first, *others = (constants_of(kernel) for kernel in parts)
                assert all(np.array_equal(a, b) for found in others for a, b in zip(first, found, strict=True))


def constants_of(kernel):
    return [argument.stored for argument in kernel.arguments if isinstance(argument, Constant)]


def test_layers_are_cut_into_rows(monkeypatch):
    program = mixed_program()
    counts = [len(parts) for parts in lower(program, find_target("portable"), 3).parts]
    kinds = [type(operation).__name__ for operation in program.operations]
    for kind in ("Convolve", "Pool", "Sum", "Join", "Lookup", "Scale"):
        assert 3 in {count for name, count in zip(kinds, counts, strict=True) if name == kind}
    # One pixel, the maximum that cuts its windows at the border, the image, ranks, and logits.
    assert 1 in {count for name, count in zip(kinds, counts, strict=True) if name == "Pool"}
    assert {count for name, count in zip(kinds, counts, strict=True) if name in ("Quantise", "Rank")} == {1}
    assert counts[-1] == 1
    monkeypatch.setattr(strips, "LEAST_MACS", 1 << 40)
    monkeypatch.setattr(strips, "LEAST_VALUES", 1 << 40)
    assert lower(program, find_target("portable"), 3).threads == 1


def test_one_thread_has_nothing_of_a_pool():
    lowered = lower(mixed_program(), find_target("portable"))
    assert lowered.threads == 1
    text = emit_source({"p": lowered}) + emit_header(lowered, "p")
    assert "pool" not in text
    assert "release" not in text


def test_emulated_processors_compute_the_parts_one_after_the_other(tmp_path):
    machine = TARGETS["neon"].machines[0]
    if not available(machine):
        pytest.skip(f"{NOT_RUN}neon on {machine}")
    program = mixed_program()
    built = compile_program(program, "neon", tmp_path, threads=2)
    tools = tool_chain("zig", find_target("neon"))
    lowered = {built.manifest["prefix"]: lower(program, find_target("neon"), 2)}
    pixels = random_pixels(np.random.default_rng(0), program, 3)
    found = emulate(tmp_path / "libmodel.a", lowered, tools, machine).run(pixels)
    assert np.array_equal(found, interpret(program, pixels))


def test_the_folder_holds_the_pool(tmp_path):
    program = mixed_program()
    built = compile_program(program, host_target(), tmp_path, threads=2)
    assert built.manifest["threads"] == 2
    assert {"pool.c", "pool.h"} <= set(open_artifact(tmp_path).manifest["files"])
    assert "automc_pool_start(2)" in (tmp_path / "model.c").read_text()
    assert "2 threads" in (tmp_path / "model.h").read_text()
    assert "Threads::Threads" in (tmp_path / "CMakeLists.txt").read_text()
    pixels = random_pixels(np.random.default_rng(0), program, 3)
    library = built.runnable()
    assert np.array_equal(library.run(pixels), interpret(program, pixels))
    assert (library.time(pixels, 3) > 0).all()
    with pytest.raises(CompileError, match="one thread"):
        build_bench(built, "phone", "any", tmp_path / "bench")


OWN_POOL = """
#include "pool.h"
#include "model.h"
#include <stdio.h>
static int runs, last_first;
automc_pool *automc_pool_start(int threads) { return threads == 3 ? (automc_pool *)&runs : 0; }
void automc_pool_run(automc_pool *pool, void (*part)(void *job, int number), void *job, int parts) {
  (void)pool;
  for (int i = parts - 1; i >= 0; i--) part(job, i);
  runs++;
}
void automc_pool_stop(automc_pool *pool) { last_first = pool == (automc_pool *)&runs; }
static unsigned char memory[PREFIX(ARENA_BYTES)] __attribute__((aligned(64)));
int main(void) {
  static unsigned char pixels[PREFIX(INPUT_BYTES)];
  static float results[PREFIX(OUTPUTS)];
  if (fread(pixels, 1, sizeof pixels, stdin) != sizeof pixels || PREFIX(init)(memory)) return 1;
  PREFIX(input)(memory, pixels);
  PREFIX(invoke)(memory);
  PREFIX(output)(memory, results);
  PREFIX(release)(memory);
  return fwrite(results, 1, sizeof results, stdout) == sizeof results && runs > 5 && last_first ? 0 : 2;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_a_system_brings_its_own_pool(tmp_path):
    program = random_program(np.random.default_rng(21), steps=5)
    prefix = compile_program(program, "portable", tmp_path, threads=3).manifest["prefix"]
    (tmp_path / "own.c").write_text(f"#define PREFIX(name) {prefix}_##name\n{OWN_POOL}")
    command = ["gcc", "-O1", "-o", tmp_path / "own", tmp_path / "own.c", tmp_path / "libmodel.a"]
    subprocess.run([*map(str, command)], check=True, timeout=60)
    image = random_pixels(np.random.default_rng(0), program, 3)[1:2]
    ended = subprocess.run([str(tmp_path / "own")], input=image.tobytes(), capture_output=True, timeout=60, check=True)
    assert np.array_equal(np.frombuffer(ended.stdout, np.float32)[None], interpret(program, image))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_pool_has_no_race(tmp_path):
    """Under gcc's checks of threads, many images in a row, and the pool ended and begun anew."""
    program = mixed_program()
    lowered = lower(program, find_target("portable"), 3)
    (tmp_path / "model.h").write_text(emit_header(lowered, "p"))
    compile_program(program, "portable", tmp_path / "built", threads=3)
    (tmp_path / "model.c").write_text(emit_source({"p": lowered}))
    (tmp_path / "main.c").write_text("""
#include "model.h"
static unsigned char memory[p_ARENA_BYTES] __attribute__((aligned(64)));
int main(void) {
  static unsigned char pixels[p_INPUT_BYTES];
  float results[p_OUTPUTS];
  for (int i = 0; i < 5; i++) {
    if (p_init(memory)) return 1;
    for (int j = 0; j < 50; j++) { p_input(memory, pixels); p_invoke(memory); p_output(memory, results); }
    p_release(memory);
  }
  return 0;
}
""")
    sources = [tmp_path / "model.c", tmp_path / "main.c", tmp_path / "built" / "pool.c"]
    command = ["gcc", "-O1", "-g", "-fsanitize=thread", "-pthread", *sources, "-o", tmp_path / "checked"]
    subprocess.run([*map(str, command)], check=True, timeout=300)
    ended = subprocess.run([str(tmp_path / "checked")], capture_output=True, timeout=300, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize(("target", "threads"), [("portable", 0), ("portable", 65), ("opencl", 2)])
def test_numbers_of_threads_that_make_no_sense_are_refused(target, threads, tmp_path):
    with pytest.raises(InputError, match="threads must be 1"):
        compile_program(mixed_program(), target, tmp_path, threads=threads)
