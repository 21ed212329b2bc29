"""The files of `envs/` as Gymnasium environments, without importing Gymnasium for a program that has no use for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from automc import catalog


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

    for name in catalog.entries("envs"):
        gymnasium.register(
            f"automc/{name}-v0", "automc.environment.environment:make_environment", kwargs={"name": name}
        )


class _AfterGymnasium(MetaPathFinder, Loader):
    """Lets Gymnasium be imported as ever, and registers the environments after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "gymnasium":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        sys.meta_path.remove(self)  # only now: a search for the module need not end in its import
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _register()
