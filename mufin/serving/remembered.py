"""Values that were computed before, the least recently used of which go when there are too many."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

V = TypeVar("V")


class Remembered(Generic[V]):
    """At most `most` bytes of values by key; `size(value)` says the bytes of each."""

    def __init__(self, most: int, size: Callable[[V], int]):
        self.most, self.size, self.bytes = most, size, 0
        self.values: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        """The value of `key`, or None."""
        value = self.values.get(key)
        if value is None:
            return None
        self.values.move_to_end(key)
        return value

    def put(self, key: Hashable, value: V) -> None:
        """Keeps `value`; a value that alone is too large is not kept."""
        self.forget(key)
        size = self.size(value)
        if size > self.most:
            return
        self.values[key], self.bytes = value, self.bytes + size
        while self.bytes > self.most:
            _, gone = self.values.popitem(last=False)
            self.bytes -= self.size(gone)

    def forget(self, key: Hashable) -> None:
        """Drops the value of `key`, if there is one."""
        if (value := self.values.pop(key, None)) is not None:
            self.bytes -= self.size(value)

    def all(self, keys: Sequence[Hashable], make: Callable[[list[int]], Sequence[V]]) -> list[V]:
        """The value of each key; `make(positions)` computes those that are not kept.

        A key that occurs several times is computed once.
        """
        found = {key: value for key in keys if (value := self.get(key)) is not None}
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in found}
        if first:
            positions = sorted(first.values())
            for position, value in zip(positions, make(positions)):
                found[keys[position]] = value
                self.put(keys[position], value)
        return [found[key] for key in keys]
