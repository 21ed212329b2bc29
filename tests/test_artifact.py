"""The delivered folder: complete, sealed by checksums, usable from C, and refused where it cannot run."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from automc.compiler import artifact as artifact_module
from automc.compiler.artifact import Artifact, compile_batch, compile_program, open_artifact
from automc.compiler.targets import TARGETS, runs_here
from automc.compiler.targets.portable import PORTABLE
from automc.compiler.toolchain import tool_chain
from automc.compiler.verify import Verification, verify
from automc.compression.interpreter import interpret
from automc.errors import CompileError, CorruptFile, NameNotFound, RunnerError, VerificationError
from automc.files import cache_directory, sha256_of
from tests.programs import random_pixels, random_program

FILES = ("model.c", "model.h", "main.c", "CMakeLists.txt", "libmodel.a", "libmodel.so", "program.safetensors")


@pytest.fixture(scope="module")
def program():
    return random_program(np.random.default_rng(11), steps=3)


@pytest.fixture(scope="module")
def artifact(program, tmp_path_factory):
    return compile_program(program, "portable", tmp_path_factory.mktemp("portable"))


@pytest.fixture
def copied(artifact, tmp_path):
    shutil.copytree(artifact.folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_the_manifest_says_what_lies_there(artifact, program):
    manifest = json.loads((artifact.folder / "manifest.json").read_text())
    assert manifest["program"] == program.fingerprint
    assert manifest["target"] == artifact.target == "portable"
    assert manifest["compiler"].startswith("zig ")
    assert "-ffp-contract=off" in manifest["flags"]
    assert manifest["files"] == {name: sha256_of(artifact.folder / name) for name in FILES}
    assert artifact.size_bytes == (artifact.folder / "libmodel.a").stat().st_size > manifest["weight_bytes"] > 0
    assert [row["tensor"] for row in manifest["operations"]] == [step.target for step in program.operations]
    assert any(str(manifest["arena_bytes"]) in line for line in artifact.summary())


def test_an_opened_artifact_computes_what_its_program_means(artifact, program):
    opened = open_artifact(artifact.folder)
    assert opened.program().fingerprint == program.fingerprint
    pixels = random_pixels(np.random.default_rng(0), program, 5)
    verification = verify(opened, program, pixels)
    assert verification == Verification(5, 5 * program.outputs, 0)
    verification.require_equal()


def test_verification_counts_differing_bits(artifact, program):
    last = program.operations[-1]
    other = dataclasses.replace(
        program, operations=(*program.operations[:-1], dataclasses.replace(last, bias=last.bias + np.int32(1 << 20)))
    )
    pixels = random_pixels(np.random.default_rng(0), program, 2)
    verification = verify(artifact, other, pixels)
    assert verification.different == verification.logits
    with pytest.raises(VerificationError, match="output values differ"):
        verification.require_equal()
    with pytest.raises(VerificationError, match="no image"):
        verify(artifact, program, pixels[:0]).require_equal()


@pytest.mark.parametrize("name", FILES)
def test_a_changed_or_missing_file_is_refused(name, copied):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(CorruptFile, match=f"{name} was changed"):
        open_artifact(copied)
    (copied / name).unlink()
    with pytest.raises(CorruptFile, match=f"{name} is missing"):
        open_artifact(copied)


@pytest.mark.parametrize("entry", ["prefix", "threads", "arena_bytes", "files"])
def test_a_changed_manifest_is_refused(entry, copied):
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text())
    others = {name: value for name, value in manifest.items() if name != entry}
    for changed in (others, others | {entry: 64}):
        path.write_text(json.dumps(changed))
        with pytest.raises(CorruptFile, match=r"manifest\.json was changed after automc wrote it"):
            open_artifact(copied)
    path.write_text(json.dumps({name: value for name, value in manifest.items() if name != "sha256"}))
    with pytest.raises(CorruptFile, match=r"has no sha256: .*; compile it again"):
        open_artifact(copied)


@pytest.mark.parametrize("text", ["", "{}", '{"files": 3}', "[]", "3", '{"sha256": NaN}'])
def test_an_unreadable_manifest_is_refused(text, copied):
    (copied / "manifest.json").write_text(text)
    with pytest.raises(CorruptFile, match=r"manifest\.json"):
        open_artifact(copied)


def test_compiling_is_deterministic(artifact, program, tmp_path):
    again = compile_program(program, "portable", tmp_path / "again")
    assert again.manifest["files"] == artifact.manifest["files"]


def test_a_library_without_threads_leaves_no_pool_of_one_before(program, copied):
    (copied / "pool.c").write_text("of a library with threads")
    compile_program(program, "portable", copied)
    assert not (copied / "pool.c").exists()


def test_another_program_in_the_same_place_is_loaded_afresh(tmp_path):
    for seed in (1, 2):
        program = random_program(np.random.default_rng(seed), steps=1)
        pixels = random_pixels(np.random.default_rng(0), program, 2)
        assert verify(compile_program(program, "portable", tmp_path), program, pixels).different == 0


def test_unknown_targets_and_compilers_are_refused(program, tmp_path):
    with pytest.raises(NameNotFound, match="Did you mean 'portable'"):
        compile_program(program, "portabel", tmp_path / "new")
    with pytest.raises(NameNotFound, match="Did you mean 'gcc'"):
        compile_program(program, "portable", tmp_path / "new", "gccc")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_system_compilers_give_the_same_bits(compiler, program, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    target = "avx2" if runs_here(TARGETS["avx2"]) else "portable"
    pixels = random_pixels(np.random.default_rng(0), program, 3)
    verify(compile_program(program, target, tmp_path, compiler), program, pixels).require_equal()


def altered(monkeypatch, **changes):
    """The portable target, changed, as a target of its own name."""
    target = dataclasses.replace(PORTABLE, name="altered", **changes)
    monkeypatch.setattr(artifact_module, "find_target", lambda name: target)


def test_a_processor_without_the_instructions_is_told(program, tmp_path, monkeypatch):
    suitable = "static int cpu_is_suitable(void) { return 1; }"
    assert suitable in PORTABLE.vocabulary
    altered(monkeypatch, vocabulary=PORTABLE.vocabulary.replace(suitable, suitable.replace("1", "0")))
    with pytest.raises(RunnerError, match="cannot run here: this processor lacks"):
        compile_program(program, "altered", tmp_path).load()


@pytest.mark.skipif(not runs_here(TARGETS["avx2"]), reason="needs fused multiply-adds")
def test_fused_arithmetic_is_told(program, tmp_path, monkeypatch):
    altered(monkeypatch, flags={"zig": ("-mcpu=x86_64+avx2+fma", "-ffp-contract=fast")})
    with pytest.raises(RunnerError, match="fused"):
        compile_program(program, "altered", tmp_path).load()


def test_fast_math_is_refused_when_compiling(program, tmp_path, monkeypatch):
    altered(monkeypatch, flags={"zig": ("-mcpu=baseline", "-ffast-math")})
    with pytest.raises(CompileError, match="without fast-math"):
        compile_program(program, "altered", tmp_path)
    assert (tmp_path / "model.c").exists()


def test_a_library_that_is_none_is_told(copied):
    (copied / "libmodel.so").write_bytes(b"not a library")
    manifest = json.loads((copied / "manifest.json").read_text())
    with pytest.raises(RunnerError, match=r"libmodel.so cannot be loaded"):
        Artifact(copied, manifest).load()


def test_a_library_without_the_program_is_told(artifact):
    odd = Artifact(artifact.folder, artifact.manifest | {"prefix": "automc_none"})
    with pytest.raises(RunnerError, match="does not hold"):
        odd.load()


def test_programs_of_one_batch_do_not_mix(tmp_path):
    programs = [random_program(np.random.default_rng(seed), steps=1) for seed in (3, 4)]
    for library, program in zip(compile_batch(programs, "portable", tmp_path), programs, strict=True):
        pixels = random_pixels(np.random.default_rng(0), program, 2)
        assert np.array_equal(library.run(pixels), interpret(program, pixels))


MAIN = """
#include <stdio.h>
#include "model.h"
static unsigned char memory[PREFIX_ARENA_BYTES + PREFIX_ARENA_ALIGNMENT];
static unsigned char image[PREFIX_INPUT_BYTES];
int main(void) {
  unsigned char *arena = memory + (PREFIX_ARENA_ALIGNMENT - (uintptr_t)memory % PREFIX_ARENA_ALIGNMENT);
  float logits[PREFIX_OUTPUTS];
  if (PREFIX_init(arena + 1) != 3 || PREFIX_init(arena) != 0) return 1;
  if (fread(image, 1, sizeof image, stdin) != sizeof image) return 2;
  PREFIX_input(arena, image);
  PREFIX_invoke(arena);
  PREFIX_output(arena, logits);
  for (int i = 0; i < PREFIX_OUTPUTS; i++) printf("%a\\n", (double)logits[i]);
  return 0;
}
"""


def test_four_functions_are_enough_in_c(artifact, program, tmp_path):
    (tmp_path / "main.c").write_text(MAIN.replace("PREFIX", artifact.manifest["prefix"]))
    tools = tool_chain("zig", PORTABLE)
    command = [*tools.command, *tools.flags, f"-I{artifact.folder}", "main.c", str(artifact.folder / "libmodel.a")]
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(cache_directory() / "zig")}
    subprocess.run([*command, "-o", "main"], cwd=tmp_path, env=environment, check=True, timeout=300)
    pixels = random_pixels(np.random.default_rng(0), program, 2)[:1]
    answer = subprocess.run([tmp_path / "main"], input=pixels.tobytes(), capture_output=True, timeout=60, check=True)
    logits = [float.fromhex(line) for line in answer.stdout.decode().split()]
    assert logits == interpret(program, pixels)[0].tolist()


def test_the_static_library_needs_nothing_but_memory_functions(artifact):
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    listing = subprocess.run(["nm", "-u", artifact.folder / "libmodel.a"], capture_output=True, text=True, check=True)
    assert set(re.findall(r"U (\w+)", listing.stdout)) <= {"memcpy", "memset", "memmove"}


def test_avx2_code_has_no_instruction_of_avx512(program, tmp_path):
    """Without a stated processor, zig would compile for the very machine that it runs on."""
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed")
    library = compile_program(program, "avx2", tmp_path).folder / "libmodel.a"
    code = subprocess.run(["objdump", "-d", library], capture_output=True, text=True, check=True).stdout
    assert "%ymm" in code
    assert not re.search(r"%zmm|%[xy]mm(1[6-9]|2\d|3[01])|%k[0-7]", code)


def test_the_example_computes_an_image_from_a_file(artifact, program, tmp_path):
    image = random_pixels(np.random.default_rng(3), program, 1)
    (tmp_path / "image").write_bytes(image.tobytes())
    sources = [artifact.folder / "main.c", artifact.folder / "libmodel.a"]
    built = subprocess.run([sys.executable, "-m", "ziglang", "cc", *sources, "-o", tmp_path / "example"], check=False)
    assert built.returncode == 0
    done = subprocess.run([tmp_path / "example", tmp_path / "image"], capture_output=True, text=True, check=True)
    assert np.array_equal(np.array(done.stdout.split(), np.float32), interpret(program, image)[0])
    missing = subprocess.run([tmp_path / "example"], capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert f"{program.input.size} bytes" in missing.stderr
