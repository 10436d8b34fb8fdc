"""Parameter types without parts, and their constraints: for each a decoder of plain JSON and a JSON schema."""

from __future__ import annotations

import math
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import seconds

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


def check_bounds(schema: Mapping[str, Any], path: str) -> None:
    """Raise InvalidInputError for a bound of a JSON schema with which no value can be compared."""
    examples: list[Any] = [0, "", [], {}]
    for keyword, (types, holds, _) in _CHECKS.items():
        for example in examples if keyword in schema else ():
            try:
                if isinstance(example, types):
                    holds(example, schema[keyword])
            except (TypeError, re.error):
                raise InvalidInputError(
                    f"{path}.{keyword}", f"{schema[keyword]!r:.60} is no bound of a value"
                ) from None


class Secret(str):
    """A str parameter that the handler gets as it is, and that is shown as ``***`` everywhere else."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"


class ParamType(NamedTuple):
    """The JSON schema of a parameter, its decoder (value, path) -> value, and whether it contains a Secret."""

    schema: dict[str, Any]
    read: Callable[[Any, str], Any]
    secret: bool = False


def refuse(path: str, value: Any, expected: str) -> InvalidInputError:
    return InvalidInputError(path, f"{_kind(value)} is not {expected}")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return f"{value!r:.60}"


def _str(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise refuse(path, value, "text")
    return value


def _int(value: Any, path: str) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse(path, value, "a whole number")
    return value


def _float(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse(path, value, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise refuse(path, value, f"a number of at most {sys.float_info.max:.0e}")
    return number


def _bool(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise refuse(path, value, "true or false")
    return value


def _none(value: Any, path: str) -> None:
    if value is not None:
        raise refuse(path, value, "null")


def _anything(value: Any, path: str) -> Any:
    return value


def any_list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise refuse(path, value, "a list")
    return value


def any_dict(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refuse(path, value, "an object")
    return value


def any_datetime(value: Any, path: str) -> datetime:
    try:
        when = datetime.fromisoformat(_str(value, path))
    except ValueError:
        raise refuse(path, value, "a date and time such as 2026-11-25T10:30:00+00:00") from None
    if when.tzinfo is None:
        raise InvalidInputError(path, f"{value!r:.40} has no timezone; append +00:00 or Z (a datetime: tzinfo=UTC)")
    return when


def _timedelta(value: Any, path: str) -> timedelta:
    if isinstance(value, str | int | float):
        return timedelta(seconds=seconds(value, path))
    raise refuse(path, value, "a duration: seconds, or text such as '1h30m'")


def _of_text(kind: Callable[[str], Any], expected: str) -> Callable[[Any, str], Any]:
    """Return a decoder that gives text to `kind`."""

    def read(value: Any, path: str) -> Any:
        try:
            return kind(_str(value, path))
        except ValueError:
            raise refuse(path, value, expected) from None

    return read


def _decimal(value: Any, path: str) -> Decimal:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    try:
        number = Decimal(_str(value, path))
    except ArithmeticError:
        raise refuse(path, value, "a decimal number such as '19.99'") from None
    if not number.is_finite():
        raise refuse(path, value, "a finite decimal number")
    return number


def to_set(value: Any, path: str, kind: Any) -> Any:
    try:
        return kind(any_list(value, path))
    except TypeError:
        raise InvalidInputError(path, "contains a list or an object; the items of a set must be plain values") from None


SCALARS: dict[Any, ParamType] = {
    Any: ParamType({}, _anything),
    object: ParamType({}, _anything),
    str: ParamType({"type": "string"}, _str),
    int: ParamType({"type": "integer"}, _int),
    float: ParamType({"type": "number"}, _float),
    bool: ParamType({"type": "boolean"}, _bool),
    None: ParamType({"type": "null"}, _none),
    type(None): ParamType({"type": "null"}, _none),
    list: ParamType({"type": "array"}, any_list),
    dict: ParamType({"type": "object"}, any_dict),
    datetime: ParamType({"type": "string", "format": "date-time"}, any_datetime),
    date: ParamType({"type": "string", "format": "date"}, _of_text(date.fromisoformat, "a date such as 2026-11-25")),
    timedelta: ParamType({"type": ["number", "string"], "format": "duration"}, _timedelta),
    uuid.UUID: ParamType({"type": "string", "format": "uuid"}, _of_text(uuid.UUID, "a UUID")),
    Decimal: ParamType({"type": ["string", "number"], "format": "decimal"}, _decimal),
    tuple: ParamType({"type": "array"}, lambda value, path: tuple(any_list(value, path))),
    set: ParamType({"type": "array", "uniqueItems": True}, lambda value, path: to_set(value, path, set)),
    frozenset: ParamType({"type": "array", "uniqueItems": True}, lambda value, path: to_set(value, path, frozenset)),
    Path: ParamType({"type": "string", "format": "path"}, lambda value, path: Path(_str(value, path))),
    Secret: ParamType(
        {"type": "string", "format": "password", "writeOnly": True}, lambda value, path: Secret(_str(value, path)), True
    ),
}
