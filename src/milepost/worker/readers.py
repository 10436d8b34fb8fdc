"""From an annotation to a reader: how a value of plain JSON becomes a parameter of that type, and its JSON schema.

Owns the list of types that a parameter may have; anything else is refused with the remedy. Knows no function and no job.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union

from milepost.core.errors import InvalidInput

KNOWN = (
    "str, int, float, bool, None, list, dict, Literal, Enum, a dataclass, datetime, Path, Secret, "
    "unions of these, or a pydantic model"
)


class Secret(str):
    """A parameter that is stored and given to the handler, and shown as ``***`` everywhere else. A str whose repr is masked."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"


class Reader(NamedTuple):
    """How a plain value is read: its JSON schema, the function (value, path) -> value, and whether a Secret is inside."""

    schema: dict[str, Any]
    read: Callable[[Any, str], Any]
    secret: bool = False


def reader_of(annotation: Any, path: str) -> Reader:
    """The reader of an annotation. Raises InvalidInput, naming `path` and the remedy, for a type that is none of ours."""
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return reader_of(inner[0], path)
    if origin is Literal:
        return _literal(inner, path)
    if origin in (Union, types.UnionType):
        return _union([reader_of(part, path) for part in inner])
    if origin is list:
        return _list(reader_of(inner[0], f"{path}[]"))
    if origin is dict:
        if inner[0] is not str:
            raise InvalidInput(path, f"{annotation}: the keys of a JSON object are text; write dict[str, ...]")
        return _dict(reader_of(inner[1], f"{path}.*"))
    if isinstance(annotation, type):
        if issubclass(annotation, Enum):
            return _enum(annotation)
        if dataclasses.is_dataclass(annotation):
            return _dataclass(annotation, path)
        if _is_pydantic(annotation):
            return _pydantic(annotation)
    shown = annotation.__name__ if isinstance(annotation, type) else annotation
    raise InvalidInput(path, f"{shown} cannot be a parameter; use {KNOWN}")


# --- plain values ------------------------------------------------------------------------------------------------


def _refuse(path: str, value: Any, wanted: str) -> InvalidInput:
    return InvalidInput(path, f"{_kind(value)} is not {wanted}")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return f"{value!r:.60}"


def _str(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _refuse(path, value, "text")
    return value


def _int(value: Any, path: str) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _refuse(path, value, "a whole number")
    return value


def _float(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _refuse(path, value, "a number")
    return float(value)


def _bool(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise _refuse(path, value, "true or false")
    return value


def _none(value: Any, path: str) -> None:
    if value is not None:
        raise _refuse(path, value, "null")


def _any_list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise _refuse(path, value, "a list")
    return value


def _any_dict(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refuse(path, value, "an object")
    return value


def _datetime(value: Any, path: str) -> datetime:
    try:
        when = datetime.fromisoformat(_str(value, path))
    except ValueError:
        raise _refuse(path, value, "a moment such as 2026-11-25T10:30:00+00:00") from None
    if when.tzinfo is None:
        raise InvalidInput(path, f"{value!r:.40} has no timezone; append +00:00 or Z")
    return when


_PLAIN: dict[Any, Reader] = {
    str: Reader({"type": "string"}, _str),
    int: Reader({"type": "integer"}, _int),
    float: Reader({"type": "number"}, _float),
    bool: Reader({"type": "boolean"}, _bool),
    None: Reader({"type": "null"}, _none),
    type(None): Reader({"type": "null"}, _none),
    list: Reader({"type": "array"}, _any_list),
    dict: Reader({"type": "object"}, _any_dict),
    datetime: Reader({"type": "string", "format": "date-time"}, _datetime),
    Path: Reader({"type": "string", "format": "path"}, lambda value, path: Path(_str(value, path))),
    Secret: Reader(
        {"type": "string", "format": "password", "writeOnly": True}, lambda value, path: Secret(_str(value, path)), True
    ),
}


# --- values made of others ---------------------------------------------------------------------------------------


def _list(inner: Reader) -> Reader:
    def read(value: Any, path: str) -> list[Any]:
        return [inner.read(part, f"{path}[{index}]") for index, part in enumerate(_any_list(value, path))]

    return Reader({"type": "array", "items": inner.schema}, read, inner.secret)


def _dict(inner: Reader) -> Reader:
    def read(value: Any, path: str) -> dict[str, Any]:
        return {key: inner.read(part, f"{path}.{key}") for key, part in _any_dict(value, path).items()}

    return Reader({"type": "object", "additionalProperties": inner.schema}, read, inner.secret)


def _literal(values: tuple[Any, ...], path: str) -> Reader:
    for value in values:
        if isinstance(value, bytes | Enum):
            raise InvalidInput(path, f"Literal[{value!r}] has no plain form; use text, numbers or an Enum")

    def read(value: Any, path: str) -> Any:
        for known in values:
            if value == known and type(value) is type(known):
                return known
        raise _refuse(path, value, f"one of {', '.join(map(repr, values))}")

    return Reader({"enum": list(values)}, read)


def _enum(cls: type[Enum]) -> Reader:
    values = [member.value for member in cls]

    def read(value: Any, path: str) -> Enum:
        try:
            return cls(value)
        except ValueError:
            raise _refuse(path, value, f"one of {', '.join(map(repr, values))}") from None

    return Reader({"enum": values}, read)


def _union(parts: list[Reader]) -> Reader:
    def read(value: Any, path: str) -> Any:
        problems = []
        for part in parts:
            try:
                return part.read(value, path)
            except InvalidInput as problem:
                problems.append(problem)
        # The part that got deepest into the value knows best what is wrong with it.
        raise max(problems, key=lambda problem: len(problem.field))

    return Reader({"anyOf": [part.schema for part in parts]}, read, any(part.secret for part in parts))


def _dataclass(cls: type, path: str) -> Reader:
    try:
        hints = typing.get_type_hints(cls)
    except NameError as error:
        raise InvalidInput(path, f"{cls.__name__} has an annotation that cannot be read: {error}") from None
    names = [part for part in dataclasses.fields(cls) if part.init]
    parts = {part.name: reader_of(hints[part.name], f"{path}.{part.name}") for part in names}
    required = [
        part.name
        for part in names
        if part.default is dataclasses.MISSING and part.default_factory is dataclasses.MISSING
    ]

    def read(value: Any, path: str) -> Any:
        given = read_object(_any_dict(value, path), parts, required, path)
        try:
            return cls(**given)
        except (ValueError, TypeError) as error:
            raise InvalidInput(path, str(error)) from None

    schema = object_schema({name: part.schema for name, part in parts.items()}, required)
    return Reader({**schema, "title": cls.__name__}, read, any(part.secret for part in parts.values()))


def object_schema(properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    """The schema of an object that has these properties and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": required,
        "additionalProperties": False,
    }


def read_object(
    value: Mapping[str, Any], parts: Mapping[str, Reader], required: list[str], path: str
) -> dict[str, Any]:
    """Read each member of an object. Raises InvalidInput for one that is unknown, missing or malformed."""
    for name in value:
        if name not in parts:
            known = ", ".join(parts) or "none"
            raise InvalidInput(f"{path}.{name}" if path else str(name), f"is not a parameter; there are: {known}")
    for name in required:
        if name not in value:
            raise InvalidInput(f"{path}.{name}" if path else name, "is missing")
    return {name: parts[name].read(part, f"{path}.{name}" if path else name) for name, part in value.items()}


# --- pydantic, where it is installed -----------------------------------------------------------------------------


def _is_pydantic(annotation: type) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(annotation, pydantic.BaseModel)


def _pydantic(model: Any) -> Reader:
    def read(value: Any, path: str) -> Any:
        try:
            return model.model_validate(value)
        except ValueError as error:
            raise _of_pydantic(error, path) from None

    return Reader(model.model_json_schema(), read)


def _of_pydantic(error: Any, path: str) -> InvalidInput:
    """The first problem that pydantic found, in our form."""
    first = error.errors(include_url=False, include_input=False)[0] if hasattr(error, "errors") else {"msg": str(error)}
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first.get("loc", ()))
    return InvalidInput(path + where, first["msg"])


def plain(value: Any) -> Any:
    """A value without pydantic models in it, which `core.encoding.to_json` does not know."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if _is_pydantic(type(value)):
        return value.model_dump(mode="json")
    return value
