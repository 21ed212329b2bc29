"""Searchers, studies with a log that can be replayed, experiments; called, it is `automc.search(model, data)`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automc.search.result import Result


class _CallableRoom(ModuleType):
    """The package offers `automc.search(...)`, and Python gives that very name to this room."""

    def __call__(self, *arguments: Any, **named: Any) -> Result:
        """As `automc.search.api.search`, which says what may be asked."""
        from automc.search.api import search  # here, so that importing automc stays cheap

        return search(*arguments, **named)


sys.modules[__name__].__class__ = _CallableRoom
