"""The content of an item of a loop: its digest, a copy of it, and how an error names it."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any

from milepost.core.serialization import safe_str, single_line

SHOWN_BYTES = 80
NOTHING: Any = object()
"""There is no such item."""
COPIED_PARTS = 100
DEPTH_MAX = 8
_ADDRESS = " at 0x"
PLAIN = frozenset((str, int, float, bool, bytes, type(None)))
"""The most common types of items that cannot change."""
_LASTING = (str, int, float, bytes, type(None), PurePath, uuid.UUID, Decimal, date, time, timedelta, Enum)


def digest(item: Any) -> str | None:
    """Return a short digest of the content of an item, or None if another process could not compute it."""
    content = _content(item, 0)
    return None if content is None else hashlib.blake2b(content.encode("utf-8", "replace"), digest_size=8).hexdigest()


def is_lasting(item: Any) -> bool:
    """Return whether the code cannot have changed an item."""
    return isinstance(item, _LASTING) or (isinstance(item, tuple) and all(map(is_lasting, item)))


def shown(item: Any) -> str:
    """Return an item as an error names it."""
    try:
        text = repr(item)
    except Exception:  # noqa: BLE001 - the item is the user's, and this is asked for an error
        text = safe_str(item)
    return single_line(text, SHOWN_BYTES)


def kept_copy(item: Any) -> Any:
    """Return a copy that the code cannot change, or NOTHING if that would take long.

    For text, numbers, dicts, lists, tuples, sets and dataclasses of at most COPIED_PARTS parts together. A copy costs less
    than a digest, which few items need.
    """
    # Most rows are flat, and this takes 0.4 µs instead of 1.5.
    if type(item) is dict and len(item) <= COPIED_PARTS and PLAIN.issuperset(map(type, item.values())):
        return item.copy()
    try:
        return _copied(item, 0, iter(range(COPIED_PARTS)))
    except Exception:  # noqa: BLE001 - a field may be a property, and another thread may change the item
        return NOTHING


def _copied(item: Any, depth: int, left: Iterator[int]) -> Any:
    if depth > DEPTH_MAX or isinstance(item, _LASTING):
        return item
    kind = type(item)
    if kind in (list, tuple, set, frozenset):
        return kind(_copied_part(part, depth, left) for part in item)
    if kind is dict:
        return {key: _copied_part(part, depth, left) for key, part in item.items()}
    copy = object.__new__(kind)
    for field in dataclasses.fields(item):  # raises TypeError for other objects
        object.__setattr__(copy, field.name, _copied_part(getattr(item, field.name, None), depth, left))
    return copy


def _copied_part(part: Any, depth: int, left: Iterator[int]) -> Any:
    next(left)  # raises StopIteration for too many parts
    return _copied(part, depth + 1, left)


def _content(item: Any, depth: int) -> str | None:
    if isinstance(item, _LASTING):
        return f"{type(item).__name__}:{item!r}"
    if depth > DEPTH_MAX:
        return type(item).__name__
    if isinstance(item, list | tuple):
        return _joined("[", [_content(part, depth + 1) for part in item])
    if isinstance(item, Mapping):
        return _joined("{", [_content(part, depth + 1) for pair in item.items() for part in pair])
    if isinstance(item, set | frozenset):
        parts = [_content(part, depth + 1) for part in item]
        return None if None in parts else _joined("(", sorted(part or "" for part in parts))
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        parts = [_content(getattr(item, field.name, None), depth + 1) for field in dataclasses.fields(item)]
        return _joined(type(item).__name__, parts)
    if type(item).__module__.partition(".")[0] in ("numpy", "pandas", "polars", "torch"):
        return _bytes_of(item)
    if _is_run(item):
        return None  # its text has the attempt and the progress
    try:
        text = repr(item)
    except Exception:  # noqa: BLE001 - the item is the user's
        return None
    return None if _ADDRESS in text else text


def _is_run(item: Any) -> bool:
    from milepost.run.run import Run  # it imports this module

    return isinstance(item, Run)


def _joined(kind: str, parts: Any) -> str | None:
    found = list(parts)
    return None if None in found else f"{kind}{len(found)}:" + ",".join(f"{len(part)}:{part}" for part in found)


def _bytes_of(item: Any) -> str | None:
    """Return the content of an array, whose repr leaves out its middle."""
    try:
        return f"{type(item).__name__}:{hashlib.blake2b(item.tobytes(), digest_size=8).hexdigest()}"
    except Exception:  # noqa: BLE001 - not every such type has bytes
        return None
