"""Parameter types without parts: for each a decoder of plain JSON and a JSON schema."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import seconds


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
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refuse(path, value, "a number")
    return float(value)


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


def _datetime(value: Any, path: str) -> datetime:
    try:
        when = datetime.fromisoformat(_str(value, path))
    except ValueError:
        raise refuse(path, value, "a date and time such as 2026-11-25T10:30:00+00:00") from None
    if when.tzinfo is None:
        raise InvalidInputError(path, f"{value!r:.40} has no timezone; append +00:00 or Z")
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
    datetime: ParamType({"type": "string", "format": "date-time"}, _datetime),
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
