"""The files of `envs/` as Gymnasium environments, without importing Gymnasium for a program that has no use for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def register_environments() -> None:
    """Register every file of `envs/` as `automc/<name>-v0`: at once, or as soon as Gymnasium is imported.

    Gymnasium takes 0.3 s to import, which a command line should not pay for its help.
    """
    if "gymnasium" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _AfterGymnasium())


def _register() -> None:
    import gymnasium

    from automc.catalog import entries

    for name in entries("envs"):
        gymnasium.register(
            f"automc/{name}-v0", "automc.environment.environment:make_environment", kwargs={"name": name}
        )


class _AfterGymnasium:
    """A finder of modules: lets Gymnasium be imported as ever, and registers the environments after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == "gymnasium" else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                sys.meta_path.remove(self)  # not before: whoever looks for a module need not import it
                execute(module)
                _register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
