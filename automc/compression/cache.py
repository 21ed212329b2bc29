"""A cache that forgets what was not asked for longest once it holds too many bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """Values by key, at most `limit` bytes of them; `size_of` says how many bytes a value takes."""

    def __init__(self, limit: int, size_of: Callable[[Value], int]) -> None:
        self._limit = limit
        self._size_of = size_of
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """The value of `key`, computed where it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = compute()
        self._values[key] = value
        self.size_bytes += self._size_of(value)
        while self.size_bytes > self._limit and len(self._values) > 1:
            _, oldest = self._values.popitem(last=False)
            self.size_bytes -= self._size_of(oldest)
        return value
