"""What a run's folder holds and by which libraries, so that two different runs are never mixed in one."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automc.errors import CorruptFile, RunMismatch, StorageError
from automc.files import write_atomic
from automc.search.trials import LOG_NAME

_NAME = "run.json"
_LIBRARIES = ("automc", "cmaes", "numpy", "optuna", "sb3-contrib", "stable-baselines3", "torch")


def identify(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write what the run in `folder` is, or check that it is this one.

    A run that was refused before its first study began may be another one now.

    Raises `RunMismatch` naming what differs, `CorruptFile` or `StorageError` where the run's file cannot be read.
    """
    known = begun_identity(folder)
    if known is None:
        write_atomic(folder / _NAME, json.dumps(identity, indent=2) + "\n")
        return
    differing = [
        f"{key}: was {known.get(key)}, is {identity[key]}" for key in identity if known.get(key) != identity[key]
    ]
    if differing:
        raise RunMismatch(
            f"{folder} holds another run; {'; '.join(differing)}. Give this one a folder of its own (--out), or remove "
            "the old one."
        )


def begun_identity(folder: Path) -> dict[str, Any] | None:
    """As `read_identity`; None where no study of a run in `folder` has begun."""
    return read_identity(folder) if is_run(folder) and next(folder.rglob(LOG_NAME), None) is not None else None


def read_identity(folder: Path) -> dict[str, Any]:
    """What `identify` wrote of the run in `folder`. Raises `CorruptFile` or `StorageError` where it cannot be read."""
    path = folder / _NAME
    try:
        return dict(json.loads(path.read_text()))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:
        raise CorruptFile(f"{path} does not say what this run is: {error}") from error


def is_run(folder: Path) -> bool:
    """Whether `folder` is a run's."""
    return (folder / _NAME).is_file()


def runs_below(folder: Path) -> list[Path]:
    """The folders of the runs that stand in `folder`, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{_NAME}"))


def library_versions() -> dict[str, str]:
    """The versions of automc and of the libraries that decide what a search finds."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"  # automc itself, run from a clone
    return found
