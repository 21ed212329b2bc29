"""Code for processors that are not here, run by emulators: equal to the interpreter, and failures told."""

import dataclasses
import shutil
import subprocess

import numpy as np
import pytest

from automc.compiler import artifact as artifact_module
from automc.compiler import emulation, emulators
from automc.compiler.artifact import compile_program
from automc.compiler.emit import emit_source
from automc.compiler.emulation import emulate
from automc.compiler.freestanding import driver
from automc.compiler.isa import Machine
from automc.compiler.lowering import lower
from automc.compiler.targets import TARGETS, find_target, runs_here
from automc.compiler.toolchain import tool_chain
from automc.compiler.verify import verify
from automc.errors import CompileError, RunnerError
from tests.machines import FIRST_PROCESSORS, NOT_RUN, PROCESSORS, assert_exact, emulate_batch, processor
from tests.programs import Builder, random_pixels, random_program
from tests.test_compiler import channels_program, depthwise_program, extreme_program, programs, residual_program
from tests.test_encodings import FORMS, encoded_programs, forms_program, groups_program, layer

QUICKLY = ("-Xclang", "-O1")  # zig makes -O2 of -O1; a fifth to a third less time than as users compile
A53 = Machine("unicorn", "cortex-a53")


def some_programs():
    """Every kind of kernel, with numbers of channels that straddle the vectors and sums that meet the bounds."""
    yield channels_program(0, (3, 3), (1, 1))
    yield depthwise_program(0, (3, 3), (1, 1))
    yield residual_program(2)
    for weight_bits, bits in ((8, 8), (8, 7), (4, 8)):
        yield extreme_program(weight_bits, bits, "in turn")
    yield random_program(np.random.default_rng(3), steps=4, wide=True)
    yield gates_and_gains_program()
    yield forms_program(0, kernel=(3, 3))
    yield groups_program(3)
    yield gated_forms_program()


def gates_and_gains_program():
    """One-bit weights, a rank whose gate closes a whole panel, gains, a table, and channels that become pixels."""
    builder = Builder(np.random.default_rng(4), (3, 5, 6))
    inner = builder.convolve(builder.input, 9, weight_bits=1)
    vector = builder.mean(inner, 33)
    gated = builder.convolve(inner, 33, gate=builder.rank(vector, 3))
    scaled = builder.lookup(builder.scale(gated, vector), bits=6)
    return builder.finish_map(builder.shuffle(builder.convolve(scaled, 8), 2))


def gated_forms_program():
    """Gates before every kind of kernel that has weights; they close whole panels."""
    builder = Builder(np.random.default_rng(5), (3, 4, 5))
    ends = []
    for form in FORMS[:4]:
        inner = builder.convolve(builder.input, 5, (1, 1), padding=(0, 0), bits=form[2])
        gate = builder.rank(builder.mean(inner, 33), 3)
        ends.append(layer(builder, inner, 33, form, gate=gate))
    return builder.finish(builder.join(ends))


@pytest.mark.parametrize(("target", "machine"), PROCESSORS)
def test_emulated_libraries_compute_what_their_programs_mean(target, machine, tmp_path):
    assert_exact(emulate_batch(list(some_programs()), target, tmp_path, machine, *QUICKLY))


@pytest.mark.slow
@pytest.mark.parametrize(("target", "machine"), PROCESSORS)
def test_all_programs_as_users_compile_them(target, machine, tmp_path):
    assert_exact(emulate_batch([*programs(), *encoded_programs()], target, tmp_path, machine))


@pytest.mark.slow
@pytest.mark.parametrize(("target", "machine"), FIRST_PROCESSORS)
def test_nothing_undefined_is_done(target, machine, tmp_path):
    """Every operation that C leaves undefined becomes an instruction that ends the program."""
    trap = ("-fsanitize=undefined", "-fsanitize-trap=undefined")
    # With checks, zig asks for further ones that need a system's library.
    alone = ("-U_FORTIFY_SOURCE", "-fno-stack-protector")
    assert_exact(emulate_batch(list(some_programs()), target, tmp_path, machine, *QUICKLY, *trap, *alone))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.parametrize("target", [name for name in ("portable", "avx2") if runs_here(TARGETS[name])])
def test_no_byte_outside_is_read_or_written(target, tmp_path, monkeypatch):
    """As a program of the system, with gcc's checks of addresses and of undefined operations."""
    tried = [random_program(np.random.default_rng(11), steps=2), forms_program(0, kernel=(3, 3)), groups_program(3)]
    lowered = {f"automc_{n}": lower(each, TARGETS[target]) for n, each in enumerate(tried)}
    (tmp_path / "program.c").write_text(emit_source(lowered))
    (tmp_path / "driver.c").write_text(driver(lowered))
    checks = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    flags = [*tool_chain("gcc", TARGETS[target]).flags, *checks]
    command = ["gcc", *flags, str(tmp_path / "program.c"), str(tmp_path / "driver.c"), "-o", str(tmp_path / "checked")]
    subprocess.run(command, check=True, timeout=300)
    # The shell stands in for an emulator whose processor is this machine's.
    (tmp_path / "native").write_text('#!/bin/sh\nexec "$3"\n')
    (tmp_path / "native").chmod(0o755)
    # The checks reserve more addresses than programs may otherwise have.
    monkeypatch.setattr(emulation, "LIMITS", dataclasses.replace(emulation.LIMITS, memory_bytes=1 << 60))
    all_programs = tuple(each.program for each in lowered.values())
    assert_exact(emulation.Emulated(tmp_path / "checked", Machine(str(tmp_path / "native"), "any"), all_programs))


@pytest.mark.parametrize(("target", "machine"), [processor("neondot", A53)])
def test_a_processor_without_the_instructions_is_told(target, machine, small, tmp_path):
    emulated = emulate_batch([small], target, tmp_path, machine, *QUICKLY)
    with pytest.raises(RunnerError, match="this processor lacks instructions"):
        emulated.run(random_pixels(np.random.default_rng(0), small, 1))


@pytest.mark.parametrize(("target", "machine"), [processor("rvv", Machine("qemu-riscv64", "sifive-u54"))])
def test_code_that_a_processor_cannot_execute_fails(target, machine, small, tmp_path):
    """The emulators are what shows that a target's code has no instruction that its processors lack."""
    emulated = emulate_batch([small], target, tmp_path, machine, *QUICKLY)
    with pytest.raises(RunnerError, match=r"program.elf failed on qemu-riscv64 sifive-u54 with status -?\d+"):
        emulated.run(random_pixels(np.random.default_rng(0), small, 1))


@pytest.mark.parametrize(("target", "machine"), [processor("neondot", A53)])
def test_dot_products_are_no_code_for_the_first_generation(target, machine, small, tmp_path, monkeypatch):
    trusting = TARGETS[target].vocabulary.replace("return (features", "return 1 + (features")
    changed = dataclasses.replace(TARGETS[target], name="trusting", vocabulary=trusting)
    monkeypatch.setattr(artifact_module, "find_target", lambda name: changed)
    emulated = emulate_batch([small], "trusting", tmp_path, machine, *QUICKLY)
    with pytest.raises(RunnerError, match="status 132"):
        emulated.run(random_pixels(np.random.default_rng(0), small, 1))


@pytest.mark.parametrize(("target", "machine"), [processor("neon", A53)])
def test_instructions_are_counted_alike_by_both_emulators(target, machine, small, tmp_path):
    other = Machine("qemu-aarch64", "cortex-a53")
    if not emulators.available(other):
        pytest.skip(f"{NOT_RUN}needs qemu-user")
    image = random_pixels(np.random.default_rng(0), small, 3)[1]
    counts = [
        emulate_batch([small], target, tmp_path, each, *QUICKLY).instructions(0, image) for each in (machine, other)
    ]
    assert counts[0] == counts[1] > small.macs / 16


@pytest.mark.parametrize(("target", "machine"), [processor("neon", A53)])
def test_writing_outside_the_arena_is_noticed(target, machine, small, tmp_path):
    emulate_batch([small], target, tmp_path, machine, *QUICKLY)
    lowered = lower(small, find_target(target))
    short = dataclasses.replace(lowered, arena_bytes=64)  # the driver guards what lies behind
    emulated = emulate(tmp_path / "libmodel.a", {"automc_0": short}, tool_chain("zig", TARGETS[target]), machine)
    with pytest.raises(RunnerError, match=r"wrote outside|failed on"):
        emulated.run(random_pixels(np.random.default_rng(0), small, 1))


@pytest.fixture(scope="module")
def delivered(small, tmp_path_factory):
    """A library for a processor that is not this machine's."""
    name = "rv64" if runs_here(TARGETS["neon"]) else "neon"
    return compile_program(small, name, tmp_path_factory.mktemp(name))


def test_libraries_for_devices_are_built_here(delivered):
    shared = (delivered.folder / "libmodel.so").read_bytes()
    assert shared[:4] == b"\x7fELF"
    assert int.from_bytes(shared[18:20], "little") in (183, 243)  # AArch64, RISC-V
    with pytest.raises(RunnerError, match=r"libmodel\.so cannot be loaded"):
        delivered.load()


def test_libraries_for_devices_are_verified_here(delivered, small):
    if emulators.first_available(TARGETS[delivered.target].machines) is None:
        pytest.skip(f"{NOT_RUN}needs an emulator")
    verification = verify(delivered, small, random_pixels(np.random.default_rng(0), small, 2))
    assert (verification.images, verification.different) == (2, 0)
    assert verification.machine


def test_a_missing_emulator_is_told_with_the_remedy(delivered, monkeypatch):
    monkeypatch.setattr(emulators, "available", lambda machine: False)
    with pytest.raises(RunnerError, match=r"no emulator is here: pip install 'automc\[emulators\]' or apt-get install"):
        delivered.runnable()


def test_targets_without_a_system_have_no_library_to_load(small, tmp_path):
    built = compile_program(small, "rv32", tmp_path)
    assert "libmodel.so" not in built.manifest["files"]
    assert not (tmp_path / "libmodel.so").exists()
    assert artifact_module.open_artifact(tmp_path).manifest == built.manifest


def stub(tmp_path, script):
    """An emulated program whose emulator is a shell script."""
    emulator = tmp_path / "emulator"
    emulator.write_text(f"#!/bin/sh\n{script}\n")
    emulator.chmod(0o755)
    program = random_program(np.random.default_rng(11), steps=1)
    return emulation.Emulated(tmp_path / "program.elf", Machine(str(emulator), "any"), (program,)), program


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo burning >&2; exit 3", r"program\.elf failed on .* with status 3: burning"),
        ("printf xx", "the program wrote 2 bytes, too few"),
        ("sleep 60", "ran longer than 0.2 s"),
        ("yes", "failed on .* with status"),  # by the limit of what it may write
    ],
)
def test_programs_that_fail_are_told(script, message, tmp_path, monkeypatch):
    limits = dataclasses.replace(emulation.LIMITS, seconds=0.2 if "sleep" in script else 60, file_bytes=1 << 16)
    monkeypatch.setattr(emulation, "LIMITS", limits)
    emulated, program = stub(tmp_path, script)
    with pytest.raises(RunnerError, match=message):
        emulated.run(random_pixels(np.random.default_rng(0), program, 1))


def test_an_emulator_that_is_gone_is_told(tmp_path):
    emulated, program = stub(tmp_path, "exit 0")
    shutil.rmtree(tmp_path)
    with pytest.raises(RunnerError, match="cannot be run"):
        emulated.run(random_pixels(np.random.default_rng(0), program, 1))


def test_a_missing_tool_chain_leaves_the_search_an_error_to_go_on_with(small, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CompileError, match="zig is not installed"):
        compile_program(small, "rvv", tmp_path)
