"""A user's own modules, which register networks, data sets, metrics and searchers as they are imported."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from automc.errors import NameNotFound


def import_plugins(names: Sequence[str]) -> None:
    """Import modules from the current folder or the installed ones. Raises `NameNotFound`."""
    if names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        if not name:
            raise NameNotFound("--plugin must name a module, and its name is empty")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # what the module itself imports
            raise NameNotFound(f"--plugin {name}: no such module here or among the installed ones") from error
