"""A repr of at most a given length, that does not first write the whole of a large value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MAX_LEVELS = 64


def bounded_repr(value: Any, limit: int) -> str:
    """Return the first `limit` characters of `repr(value)`. Never raises."""
    writer = _Writer(limit)
    writer.write(value, 0)
    return "".join(writer.parts)[:limit]


class _Writer:
    """Writes the repr of containers part by part, until the limit is reached."""

    def __init__(self, limit: int) -> None:
        self.parts: list[str] = []
        self._left = limit

    def write(self, value: Any, level: int) -> None:
        """Write a value."""
        kind = type(value)
        if level > MAX_LEVELS:
            self._add("...")
        elif kind is dict:
            self._all("{", value.items(), "}", level, pairs=True)
        elif kind is list:
            self._all("[", value, "]", level)
        elif kind is tuple:
            self._all("(", value, ",)" if len(value) == 1 else ")", level)
        elif kind in (set, frozenset) and value:
            head, tail = ("{", "}") if kind is set else ("frozenset({", "})")
            self._all(head, value, tail, level)
        else:
            self._add(_repr(value[: self._left + 1] if kind in (str, bytes) else value))

    def _all(self, head: str, values: Iterable[Any], tail: str, level: int, *, pairs: bool = False) -> None:
        self._add(head)
        for position, value in enumerate(values):
            if self._left <= 0:
                return
            if position:
                self._add(", ")
            if pairs:
                self.write(value[0], level + 1)
                self._add(": ")
                value = value[1]
            self.write(value, level + 1)
        self._add(tail)

    def _add(self, text: str) -> None:
        self.parts.append(text[: self._left + 1])
        self._left -= len(text)


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - any user object may stand here
        return f"<{type(value).__name__} whose repr() raised {type(error).__name__}>"
