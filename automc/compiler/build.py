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
_CHECKSUMS = "checksums.json"


def build(source: str, tools: ToolChain, folder: Path) -> None:
    """Compile `source` into `folder`: the shared library, with the harness, and the static one, without.

    Raises `CompileError`; `model.c` then lies in the folder.
    """
    write_atomic(folder / "model.c", source)
    key = sha256_of("\n".join((source, HARNESS, tools.compiler, tools.version, *tools.flags)).encode())
    cached = cache_directory() / "compile" / key[:32]
    if not _is_whole(cached):
        _compile(folder / "model.c", tools, cached)
    for name in (SHARED, STATIC):
        write_atomic(folder / name, (cached / name).read_bytes())


def _compile(source: Path, tools: ToolChain, cached: Path) -> None:
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=cached.parent, prefix="."))
        try:
            (work / "harness.c").write_text(HARNESS)
            tools.compile([source], work / "model.o")
            tools.compile([work / "model.o", work / "harness.c"], work / SHARED)
            tools.archive([work / "model.o"], work / STATIC)
            checksums = {name: sha256_of(work / name) for name in (SHARED, STATIC)}
            write_atomic(work / _CHECKSUMS, canonical_json(checksums))
            if not _is_whole(cached):  # or else another process was faster
                shutil.rmtree(cached, ignore_errors=True)
                work.rename(cached)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"cannot write {cached}: {error.strerror or error}") from error


def _is_whole(cached: Path) -> bool:
    try:
        checksums = json.loads((cached / _CHECKSUMS).read_text())
        return all(sha256_of(cached / name) == checksums[name] for name in (SHARED, STATIC))
    except (OSError, ValueError, KeyError):
        return False
