"""JSON that is decoded to an equal value, for the values with which the next attempt of a job continues.

`core.serialization.to_json` turns a set into a list and a key 3 into "3". That suits results that people read, but not
values with which code continues.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import JSON_DEPTH

REMEDY = (
    "use str, int, float, bool, None, lists and dicts with str keys, or declare the type: "
    "run.state(Totals) with a dataclass, TypedDict or model"
)


def encode(value: Any, field: str, remedy: str = REMEDY) -> str:
    """Encode str, int, float (with NaN and infinities), bool, None, lists and dicts with str keys.

    Raises InvalidInputError, with the path inside `field` and the remedy, for every other type.
    """
    problem = _problem(value, field, 0, remedy)
    if problem is not None:
        raise problem
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Lone surrogates cannot be stored as they are; escaped they come back equal.
    return text if text.isascii() or _is_utf8(text) else json.dumps(value, separators=(",", ":"))


def decode(text: str) -> Any:
    """Decode what `encode` wrote."""
    return json.loads(text)


def equal(one: Any, other: Any) -> bool:
    """Return whether two values are equal and have the same types; NaN equals NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (one != one and other != other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    return bool(one == other)


def size_of(text: str) -> int:
    """Return the size of a text in UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode())


def _problem(value: Any, path: str, depth: int, remedy: str) -> InvalidInputError | None:
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, Enum)):
        return None
    if depth > JSON_DEPTH:
        return InvalidInputError(path, f"nests deeper than {JSON_DEPTH}; flatten it")
    if type(value) is list:
        for position, inner in enumerate(value):
            if (problem := _problem(inner, f"{path}[{position}]", depth + 1, remedy)) is not None:
                return problem
        return None
    if type(value) is dict:
        for key, inner in value.items():
            if type(key) is not str:
                kind = type(key).__name__
                return InvalidInputError(path, f"the key {key!r:.60} is {kind}, and would come back as a str; {remedy}")
            if (problem := _problem(inner, f"{path}.{key}", depth + 1, remedy)) is not None:
                return problem
        return None
    return InvalidInputError(path, f"{type(value).__name__} would not come back equal; {remedy}")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
