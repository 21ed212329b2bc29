"""C sources become libraries, once: what was compiled before comes from the cache by the hash of all that went in."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from automc.compiler.harness import HARNESS
from automc.compiler.toolchain import ToolChain
from automc.errors import StorageError
from automc.files import cache_directory, canonical_json, sha256_of, write_atomic

SHARED, STATIC = "libmodel.so", "libmodel.a"


def build(source: str, tools: ToolChain, folder: Path) -> None:
    """Compile `source` into `folder`: the shared library, with the harness, and the static one, without.

    Raises `CompileError`; `model.c` then lies in the folder.
    """
    write_atomic(folder / "model.c", source)
    key = sha256_of("\n".join((source, HARNESS, tools.version, *tools.command, *tools.flags)).encode())
    cached = cache_directory() / "compile" / key[:32]
    if not _is_whole(cached):
        _compile(folder / "model.c", tools, cached)
    for name in (SHARED, STATIC):
        write_atomic(folder / name, (cached / name).read_bytes())


def _compile(source: Path, tools: ToolChain, cached: Path) -> None:
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent, prefix=".") as temporary:
            work = Path(temporary)
            (work / "harness.c").write_text(HARNESS)
            tools.compile([source], work / "model.o")
            tools.compile([work / "model.o", work / "harness.c"], work / SHARED)
            tools.archive([work / "model.o"], work / STATIC)
            # The checksums come last: a folder without them was never finished.
            checksums = {name: sha256_of(work / name) for name in (SHARED, STATIC)}
            shutil.rmtree(cached, ignore_errors=True)
            cached.mkdir(exist_ok=True)
            for name in checksums:
                (work / name).replace(cached / name)
            write_atomic(cached / "checksums.json", canonical_json(checksums))
    except OSError as error:
        raise StorageError(f"cannot write {cached}: {error.strerror or error}") from error


def _is_whole(cached: Path) -> bool:
    try:
        checksums = json.loads((cached / "checksums.json").read_text())
        return all(sha256_of(cached / name) == checksums[name] for name in (SHARED, STATIC))
    except (OSError, ValueError, KeyError):
        return False
