"""Compilers: what is asked of them, and what a person is told when they fail."""

import dataclasses
import sys

import pytest

from automc.compiler import build, toolchain
from automc.compiler.freestanding import linked, linked_for_system
from automc.compiler.targets import TARGETS, runs_here
from automc.compiler.targets.portable import PORTABLE
from automc.compiler.toolchain import ToolChain, tool_chain
from automc.errors import CompileError, NameNotFound, StorageError

SOURCE = "int answer(void) { return 42; }\n"


@pytest.mark.parametrize("target", TARGETS)
def test_zig_is_told_the_machine_and_exact_arithmetic(target):
    flags = tool_chain("zig", TARGETS[target]).flags
    assert flags[0] == "-target"
    assert sum(flag.startswith("-mcpu=") for flag in flags) == 1
    assert "-ffp-contract=off" in flags
    assert not any("fast" in flag for flag in flags)


def test_only_zig_compiles_for_other_processors():
    other = "rv64" if runs_here(TARGETS["neon"]) else "neon"
    with pytest.raises(CompileError, match=f"gcc does not compile for {other} on this machine; zig does"):
        tool_chain("gcc", TARGETS[other])


def test_unknown_compilers_are_refused():
    with pytest.raises(NameNotFound, match="Did you mean 'clang'"):
        tool_chain("clangg", PORTABLE)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_missing_compiler_is_named_with_the_remedy(compiler, monkeypatch):
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: None)
    with pytest.raises(CompileError, match=f"{compiler} is not installed.*pip install ziglang"):
        tool_chain(compiler, PORTABLE)


def test_missing_zig_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CompileError, match=r"zig is not installed.*pip install ziglang"):
        tool_chain("zig", PORTABLE)


def test_a_compiler_that_cannot_be_run_is_named(tmp_path):
    gone = ToolChain("gcc", "", (str(tmp_path / "gone"),), ("ar",), ())
    with pytest.raises(CompileError, match="gcc cannot be run"):
        gone.compile([tmp_path / "model.c"], tmp_path / "model.o")


def test_a_failed_compile_shows_the_message_and_keeps_the_source(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOMC_CACHE", str(tmp_path / "cache"))
    failing = ToolChain(
        "gcc", "", (sys.executable, "-c", "import sys; print('model.c:1: bad flag'); sys.exit(1)"), ("ar",), ()
    )
    folder = tmp_path / "library"
    with pytest.raises(CompileError, match=r"(?s)gcc failed on .*library/model.c:.*bad flag"):
        build.build(SOURCE, failing, folder)
    assert (folder / "model.c").read_text() == SOURCE
    assert not list((tmp_path / "cache").rglob("*.so"))


@pytest.mark.parametrize("failing", ["libmodel.a", "harness.c", "libmodel.so"])
def test_a_failure_on_a_temporary_file_names_what_it_is_of(failing, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOMC_CACHE", str(tmp_path / "cache"))
    script = "import sys; sys.exit(any(each.endswith(sys.argv[1]) for each in sys.argv[2:]))"
    command = (sys.executable, "-c", script, failing)
    with pytest.raises(CompileError, match=f"gcc failed on {failing}:"):
        build.build(SOURCE, ToolChain("gcc", "", command, command, ()), tmp_path / "library")


@pytest.mark.parametrize("link", [linked, linked_for_system])
def test_a_driver_that_cannot_be_compiled_is_named(link, tmp_path):
    failing = ToolChain("gcc", "", (sys.executable, "-c", "import sys; sys.exit(1)"), ("ar",), ())
    with pytest.raises(CompileError, match="gcc failed on the driver:"):
        link(SOURCE, tmp_path / "libmodel.a", failing)


def test_zig_explains_a_flag_that_it_does_not_know(tmp_path):
    tools = tool_chain("zig", PORTABLE)
    odd = dataclasses.replace(tools, flags=(*tools.flags, "--no-such-flag"))
    (tmp_path / "model.c").write_text(SOURCE)
    with pytest.raises(CompileError, match="no-such-flag"):
        odd.compile([tmp_path / "model.c"], tmp_path / "model.o")


def test_a_hanging_compiler_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "LIMITS", dataclasses.replace(toolchain.LIMITS, seconds=0.2))
    sleeping = ToolChain("gcc", "", (sys.executable, "-c", "import time; time.sleep(60)"), ("ar",), ())
    with pytest.raises(CompileError, match=r"ran longer than 0.2 s on .*model.c"):
        sleeping.compile([tmp_path / "model.c"], tmp_path / "model.o")


def counting(folder):
    """A tool chain whose outputs are small files, and the record of what it was asked for."""
    script = folder / "compiler.py"
    script.write_text(
        "import sys, pathlib\n"
        "log = pathlib.Path(__file__).with_suffix('.log')\n"
        "log.write_text((log.read_text() if log.exists() else '') + 'run\\n')\n"
        "where = sys.argv[sys.argv.index('-o') + 1] if '-o' in sys.argv else sys.argv[2]\n"
        "pathlib.Path(where).write_text('compiled')\n"
    )
    command = (sys.executable, str(script))
    return ToolChain("gcc", "1", command, command, ()), script.with_suffix(".log")


def test_the_same_source_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOMC_CACHE", str(tmp_path / "cache"))
    tools, log = counting(tmp_path)
    build.build(SOURCE, tools, tmp_path / "first")
    runs = log.read_text()
    build.build(SOURCE, tools, tmp_path / "second")
    assert log.read_text() == runs
    assert (tmp_path / "second" / build.SHARED).read_text() == "compiled"
    build.build(SOURCE + "\n", tools, tmp_path / "third")
    build.build(SOURCE, dataclasses.replace(tools, flags=("-g",)), tmp_path / "fourth")
    assert log.read_text() == runs * 3


def test_a_damaged_cache_is_compiled_again(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOMC_CACHE", str(tmp_path / "cache"))
    tools, log = counting(tmp_path)
    build.build(SOURCE, tools, tmp_path / "first")
    runs = log.read_text()
    (stored,) = (tmp_path / "cache" / "compile").glob(f"*/{build.SHARED}")
    stored.write_text("damaged")
    build.build(SOURCE, tools, tmp_path / "first")
    assert log.read_text() == runs * 2
    assert (tmp_path / "first" / build.SHARED).read_text() == "compiled"


def test_a_cache_that_another_process_is_writing_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOMC_CACHE", str(tmp_path / "cache"))
    tools, log = counting(tmp_path)
    build.build(SOURCE, tools, tmp_path / "first")
    runs = log.read_text()
    (checksums,) = (tmp_path / "cache" / "compile").glob("*/checksums.json")
    checksums.unlink()
    build.build(SOURCE, tools, tmp_path / "second")
    assert log.read_text() == runs * 2
    assert checksums.exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("AUTOMC_CACHE", str(tmp_path / "cache"))
    with pytest.raises(StorageError, match=r"cannot write .*cache/compile"):
        build.build(SOURCE, counting(tmp_path)[0], tmp_path / "library")
