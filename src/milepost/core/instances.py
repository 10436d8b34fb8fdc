"""The living instances of a class, for hooks that visit them all: before and after a fork, and at exit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")


class Instances(Generic[T]):
    """Objects that are kept only as long as something else needs them. Equal objects are different instances.

    One thread may add while another one iterates. A `WeakSet` raises RuntimeError then: its iteration is Python code,
    in which other threads get their turn.
    """

    def __init__(self) -> None:
        self._by_id: WeakValueDictionary[int, T] = WeakValueDictionary()

    def add(self, instance: T) -> None:
        """Add an instance."""
        self._by_id[id(instance)] = instance

    def __iter__(self) -> Iterator[T]:
        """Iterate over those that lived when the iteration began and still live."""
        for reference in self._by_id.valuerefs():
            if (instance := reference()) is not None:
                yield instance
