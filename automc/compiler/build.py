"""C sources become libraries, once: what was compiled before comes from the cache by the hash of all that went in."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from automc.compiler.harness import HARNESS
from automc.compiler.pool import POOL_FILES
from automc.compiler.toolchain import ToolChain
from automc.errors import StorageError
from automc.files import cache_directory, canonical_json, sha256_of, write_atomic

SHARED, STATIC = "libmodel.so", "libmodel.a"
_CHECKSUMS = "checksums.json"


def build(source: str, tools: ToolChain, folder: Path, loadable: bool = True, threads: bool = False) -> None:
    """Compile `source` into `folder`: the shared library if `loadable`, with the harness; the static one, without.

    Where it asks for `threads`, the shared library holds the pool, too, and is timed by the clock on the wall. Raises
    `CompileError`; `model.c` then lies in the folder.
    """
    write_atomic(folder / "model.c", source)
    support = {"harness.c": "#define CLOCK CLOCK_MONOTONIC\n" + HARNESS if threads else HARNESS}
    if threads:
        for name, text in POOL_FILES.items():
            write_atomic(folder / name, text)
        support |= POOL_FILES
    key = sha256_of("\n".join((source, *support.values(), tools.compiler, tools.version, *tools.flags)).encode())
    cached = cache_directory() / "compile" / key[:32]
    names = (STATIC, SHARED) if loadable else (STATIC,)
    libraries = _stored(cached, names)
    if not libraries:
        libraries = _compile(folder / "model.c", tools, names, support)
        # Whoever reads while this is written, or written by another process, too, finds checksums that do not fit yet.
        for name, content in libraries.items():
            write_atomic(cached / name, content)
        write_atomic(cached / _CHECKSUMS, canonical_json({name: sha256_of(each) for name, each in libraries.items()}))
    for name, content in libraries.items():
        write_atomic(folder / name, content)


def _compile(source: Path, tools: ToolChain, names: tuple[str, ...], support: Mapping[str, str]) -> dict[str, bytes]:
    """The content of the libraries of these names; in the shared one lies what is compiled of `support`, too."""
    try:
        with tempfile.TemporaryDirectory(prefix="automc-compile-") as temporary:
            work = Path(temporary)
            tools.compile([source], work / "model.o")
            tools.archive([work / "model.o"], work / STATIC)
            if SHARED in names:
                for name, content in support.items():
                    (work / name).write_text(content)
                sources = [work / name for name in support if name.endswith(".c")]
                for each in sources:
                    tools.compile([each], each.with_suffix(".o"), each.name)
                objects = [work / "model.o", *(each.with_suffix(".o") for each in sources)]
                (tools.with_flags("-pthread") if len(sources) > 1 else tools).compile(objects, work / SHARED, SHARED)
            return {name: (work / name).read_bytes() for name in names}
    except OSError as error:
        raise StorageError(f"cannot compile in {tempfile.gettempdir()}: {error.strerror or error}") from error


def _stored(cached: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """The content of the libraries of these names, or nothing where one is missing, damaged or not finished."""
    try:
        checksums = json.loads((cached / _CHECKSUMS).read_text())
        libraries = {name: (cached / name).read_bytes() for name in names}
        return libraries if all(sha256_of(libraries[name]) == checksums[name] for name in libraries) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
