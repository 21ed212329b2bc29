"""Names to files in the four folders `envs/`, `search_spaces/`, `latency_tables/` and `experiments/`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from automc.errors import ConfigError, NameNotFound
from automc.files import suggest

Kind = Literal["envs", "search_spaces", "latency_tables", "experiments"]

_SUFFIX: dict[Kind, str] = {"envs": ".yaml", "search_spaces": ".yaml", "latency_tables": ".csv", "experiments": ".yaml"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def own_folder() -> Path:
    """Where automc's own four folders stand: inside the installed package, or beside it in a clone."""
    package = Path(__file__).parent
    installed = package / "_data"
    return installed if installed.is_dir() else package.parent


def roots() -> list[Path]:
    """Where the four folders are looked for, nearest first: `$AUTOMC_PATH`, the current folder, automc's own."""
    named = [Path(part) for part in os.environ.get("AUTOMC_PATH", "").split(os.pathsep) if part]
    found: list[Path] = []
    for root in (*named, Path.cwd(), own_folder()):
        if root.resolve() not in [known.resolve() for known in found]:
            found.append(root)
    return found


def entries(kind: Kind) -> dict[str, Path]:
    """Every name of a folder with its file; a nearer file hides a farther one of the same name.

    Files whose names are not made of letters, digits, `_`, `.` and `-` are left out: a folder called `envs` may also be
    somebody else's.
    """
    known: dict[str, Path] = {}
    for root in roots():
        for path in sorted((root / kind).glob(f"*{_SUFFIX[kind]}")):
            if _NAME.fullmatch(path.stem):
                known.setdefault(path.stem, path)
    return dict(sorted(known.items()))


def require_name(name: str, option: str) -> None:
    """Raise `ConfigError` where no file of the four folders could have this name, which an `option` gives."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{option}: {name!r} cannot be the name of a file: it must begin with a letter or a digit, and have no "
            "others but letters, digits, '_', '.' and '-'"
        )


def find(kind: Kind, name: str) -> Path:
    """The file of `name`. A name is never a path. Raises `NameNotFound` with the nearest name."""
    known = entries(kind)
    if name in known:
        return known[name]
    raise NameNotFound(f"no {name!r} in {kind}/{suggest(name, known)}")
