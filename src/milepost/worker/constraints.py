"""The bounds in ``Annotated[int, Ge(1)]`` or ``Annotated[str, Field(max_length=20)]``: JSON schema keywords and their check.

The annotations are those of the package annotated-types, which pydantic's ``Field`` uses too. They are recognised by their
attributes, so that neither has to be installed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from milepost.core.errors import InvalidInputError

_KEYWORDS = {
    "gt": ("exclusiveMinimum",),
    "ge": ("minimum",),
    "lt": ("exclusiveMaximum",),
    "le": ("maximum",),
    "multiple_of": ("multipleOf",),
    "min_length": ("minLength", "minItems", "minProperties"),
    "max_length": ("maxLength", "maxItems", "maxProperties"),
    "pattern": ("pattern",),
}
_NUMBER = (int, float, Decimal, timedelta)
_ORDERED = (*_NUMBER, date)
_ITEMS = (list, tuple, set, frozenset)
_CHECKS: dict[str, tuple[tuple[type, ...], Callable[[Any, Any], bool], str]] = {
    "exclusiveMinimum": (_ORDERED, lambda value, bound: value > bound, "must be greater than {}"),
    "minimum": (_ORDERED, lambda value, bound: value >= bound, "must be at least {}"),
    "exclusiveMaximum": (_ORDERED, lambda value, bound: value < bound, "must be less than {}"),
    "maximum": (_ORDERED, lambda value, bound: value <= bound, "must be at most {}"),
    "multipleOf": (_NUMBER, lambda value, bound: not value % bound, "must be a multiple of {}"),
    "minLength": ((str,), lambda value, bound: len(value) >= bound, "must have at least {} characters"),
    "maxLength": ((str,), lambda value, bound: len(value) <= bound, "must have at most {} characters"),
    "minItems": (_ITEMS, lambda value, bound: len(value) >= bound, "must have at least {} items"),
    "maxItems": (_ITEMS, lambda value, bound: len(value) <= bound, "must have at most {} items"),
    "minProperties": ((dict,), lambda value, bound: len(value) >= bound, "must have at least {} entries"),
    "maxProperties": ((dict,), lambda value, bound: len(value) <= bound, "must have at most {} entries"),
    "pattern": ((str,), lambda value, bound: re.search(bound, value) is not None, "must match {}"),
}
"""For each keyword the types to whose values it applies, the check and the problem."""
_EXAMPLES: dict[str, Any] = {
    "string": "",
    "password": "",
    "integer": 0,
    "number": 0.0,
    "decimal": Decimal(0),
    "duration": timedelta(0),
    "date": date.max,
    "date-time": datetime.max.replace(tzinfo=UTC),
    "array": [],
    "object": {},
}
"""A value of each type and format to which bounds may apply."""


def constraints_of(metadata: Iterable[Any], schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the bounds in the metadata of an ``Annotated``, by JSON schema keyword.

    As in JSON Schema, a keyword applies to values of its type: ``Annotated[int | None, Ge(1)]`` allows None. Raises
    InvalidInputError for metadata that is not a bound, or not one for this type: it would be ignored silently.
    """
    examples = _examples(schema)
    bounds: dict[str, Any] = {}
    for part in metadata:
        if isinstance(part, str):  # a comment for readers
            continue
        for name, bound in _bounds(part, path):
            keywords = _applicable(name, bound, examples)
            if not keywords:
                raise InvalidInputError(path, f"{part!r:.80} does not apply to values of this type")
            bounds.update(dict.fromkeys(keywords, bound))
    return bounds


def published_constraints(bounds: Mapping[str, Any]) -> dict[str, Any]:
    """Return bounds as JSON. One that JSON Schema cannot express, such as a datetime, is left to the worker."""
    shown: dict[str, Any] = {}
    for keyword, bound in bounds.items():
        if isinstance(bound, timedelta):
            shown[keyword] = bound.total_seconds()
        elif isinstance(bound, Decimal):
            shown[keyword] = float(bound)
        elif isinstance(bound, re.Pattern):
            if bound.flags == re.compile("").flags:
                shown[keyword] = bound.pattern
        elif isinstance(bound, str | int | float):
            shown[keyword] = bound
    return shown


def _examples(schema: Mapping[str, Any]) -> list[Any]:
    """Return a value of each type that a schema allows. A class of its own, which has a title, has none."""
    if "title" in schema:
        return []
    if "anyOf" in schema:
        return [example for part in schema["anyOf"] for example in _examples(part)]
    if "type" not in schema:
        return [0, "", [], {}]
    return [_EXAMPLES.get(schema.get("format", schema["type"]))]


def _applicable(name: str, bound: Any, examples: Sequence[Any]) -> list[str]:
    """Return the keywords of a bound that apply to one of the examples; none if it cannot be compared with one."""
    found = []
    for keyword in _KEYWORDS[name]:
        types, holds, _ = _CHECKS[keyword]
        for example in examples:
            if isinstance(example, types):
                try:
                    holds(example, bound)
                except (TypeError, re.error):
                    return []
                found.append(keyword)
    return found


def _bounds(part: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each bound that one annotation sets."""
    inner = getattr(part, "metadata", None)
    if isinstance(inner, list):  # pydantic's FieldInfo
        for each in inner:
            yield from _bounds(each, path)
        return
    names: Iterable[str] = getattr(part, "__dataclass_fields__", None) or getattr(part, "__dict__", {})
    given = {name: getattr(part, name) for name in names}
    bounds = {name: bound for name, bound in given.items() if bound is not None and bound is not False}
    if not bounds or not bounds.keys() <= _KEYWORDS.keys():
        raise InvalidInputError(
            path, f"{part!r:.80} is not supported in Annotated; use Ge, Le, MinLen, Field(ge=1) and the like"
        )
    yield from bounds.items()


def check_constraints(value: Any, bounds: Mapping[str, Any], path: str) -> None:
    """Raise InvalidInputError if a value violates a bound that applies to its type. `bounds` may be a JSON schema."""
    for keyword, (types, holds, text) in _CHECKS.items():
        if keyword not in bounds or not isinstance(value, types) or isinstance(value, bool):
            continue
        if not holds(value, bounds[keyword]):
            raise InvalidInputError(path, f"{value!r:.60} {text.format(bounds[keyword])}")
