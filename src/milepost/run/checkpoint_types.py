"""Warns about checkpoints that are decoded to another type: in JSON a set or a tuple is a list."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("milepost.run")

_warned: set[str] = set()
_SAME = (str, int, float, bool, type(None), list, dict)


def warn_of_changed_types(value: Any) -> None:
    """Warn once per process and type about a value whose type the next attempt will not get."""
    kind = type(value)
    if kind not in _SAME:
        is_list = isinstance(value, set | frozenset | tuple)
        _warn(kind.__name__, "a list" if is_list else "plain JSON")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                _warn(f"{type(key).__name__} (as a key)", "a str")
            warn_of_changed_types(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            warn_of_changed_types(inner)


def _warn(kind: str, back: str) -> None:
    if kind not in _warned:
        _warned.add(kind)
        log.warning("checkpoint holds a %s, which comes back as %s; convert it before and after", kind, back)
