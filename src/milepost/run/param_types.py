"""The types that a handler's parameters may have: for each annotation a decoder of plain JSON and a JSON schema."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from enum import Enum
from typing import Any, Literal, TypeVar, Union

from milepost.core.errors import InvalidInputError
from milepost.run.job_result import is_model
from milepost.run.scalar_types import (
    SCALARS,
    ParamType,
    any_datetime,
    any_dict,
    any_list,
    check_constraints,
    constraints_of,
    published_constraints,
    refuse,
    to_set,
)

P = TypeVar("P")
T = TypeVar("T")

SUPPORTED_TYPES = (
    "str, int, float, bool, None, Any, list, dict, tuple, set, Literal, Enum, dataclass, TypedDict, datetime, date, "
    "timedelta, UUID, Decimal, Path, Secret, unions of these, or a pydantic model"
)


@dataclasses.dataclass(frozen=True, slots=True)
class OperatorOnly:
    """Marks a parameter that an HTTP request may not set: ``Annotated[str | None, OperatorOnly("SOME_VARIABLE")]``.

    `remedy` tells where the operator sets it. A job type with such a parameter works on data of the operator, so API
    keys that are bound to labels may not submit it.
    """

    remedy: str


def param_type_of(annotation: Any, path: str) -> ParamType:
    """Return the parameter type of an annotation. Raises InvalidInputError, with `path` and the remedy."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:  # before the table, because metadata may be unhashable
        return _annotated(param_type_of(inner[0], path), inner[1:], path)
    if annotation in SCALARS:
        return SCALARS[annotation]
    if origin is Literal:
        return _literal(inner, path)
    if origin in (Union, types.UnionType):
        return _union([param_type_of(part, path) for part in inner])
    if origin in (list, set, frozenset):
        return _list(param_type_of(inner[0], f"{path}[]"), origin)
    if origin is tuple:
        return _tuple(inner, path)
    if origin is dict:
        if inner[0] is not str:
            raise InvalidInputError(path, f"{annotation}: JSON objects have text keys; use dict[str, ...]")
        return _dict(param_type_of(inner[1], f"{path}.*"))
    if isinstance(annotation, type):
        if issubclass(annotation, Enum):
            return _enum(annotation)
        if dataclasses.is_dataclass(annotation):
            return _dataclass(annotation, path)
        if typing.is_typeddict(annotation):
            return _typed_dict(annotation, path)
        if is_model(annotation):
            return _pydantic(annotation)
    shown = annotation.__name__ if isinstance(annotation, type) else annotation
    raise InvalidInputError(path, f"{shown} is not supported as a parameter; use {SUPPORTED_TYPES}")


# --- composite values -----------------------------------------------------------------------------------------


def _annotated(inner: ParamType, metadata: tuple[Any, ...], path: str) -> ParamType:
    schema, read = dict(inner.schema), inner.read
    for part in metadata:
        if isinstance(part, OperatorOnly):
            schema |= {"readOnly": True, "description": f"Set by {part.remedy}"}
    bounds = constraints_of([part for part in metadata if not isinstance(part, OperatorOnly)], schema, path)
    if bounds:

        def read(value: Any, path: str) -> Any:
            found = inner.read(value, path)
            check_constraints(found, bounds, path)
            return found

    return ParamType({**schema, **published_constraints(bounds)}, read, inner.secret)


def _list(inner: ParamType, kind: Any = list) -> ParamType:
    def read(value: Any, path: str) -> Any:
        parts = [inner.read(part, f"{path}[{index}]") for index, part in enumerate(any_list(value, path))]
        return parts if kind is list else to_set(parts, path, kind)

    schema = {"type": "array", "items": inner.schema}
    return ParamType(schema if kind is list else {**schema, "uniqueItems": True}, read, inner.secret)


def _tuple(inner: tuple[Any, ...], path: str) -> ParamType:
    if len(inner) == 2 and inner[1] is Ellipsis:
        each = param_type_of(inner[0], f"{path}[]")
        return ParamType(
            {"type": "array", "items": each.schema},
            lambda value, path: tuple(_list(each).read(value, path)),
            each.secret,
        )
    parts = [param_type_of(part, f"{path}[{index}]") for index, part in enumerate(inner)]

    def read(value: Any, path: str) -> tuple[Any, ...]:
        given = any_list(value, path)
        if len(given) != len(parts):
            raise InvalidInputError(path, f"has {len(given)} items; {len(parts)} are expected")
        return tuple(part.read(each, f"{path}[{i}]") for i, (part, each) in enumerate(zip(parts, given, strict=True)))

    schema = {
        "type": "array", "prefixItems": [part.schema for part in parts], "minItems": len(parts), "maxItems": len(parts),
    }  # fmt: skip
    return ParamType(schema, read, any(part.secret for part in parts))


def _typed_dict(cls: Any, path: str) -> ParamType:
    parts: dict[str, ParamType] = {}
    required = []
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        marker = typing.get_origin(hint)
        # The class itself cannot tell when its annotations are text.
        if marker is typing.Required or (marker is not typing.NotRequired and name in cls.__required_keys__):
            required.append(name)
        inner = typing.get_args(hint)[0] if marker in (typing.Required, typing.NotRequired) else hint
        parts[name] = param_type_of(inner, f"{path}.{name}")

    def read(value: Any, path: str) -> dict[str, Any]:
        return read_object(any_dict(value, path), parts, required, path)

    schema = object_schema({name: part.schema for name, part in parts.items()}, required)
    return ParamType({**schema, "title": cls.__name__}, read, any(part.secret for part in parts.values()))


def _dict(inner: ParamType) -> ParamType:
    def read(value: Any, path: str) -> dict[str, Any]:
        return {key: inner.read(part, f"{path}.{key}") for key, part in any_dict(value, path).items()}

    return ParamType({"type": "object", "additionalProperties": inner.schema}, read, inner.secret)


def _literal(values: tuple[Any, ...], path: str) -> ParamType:
    for value in values:
        if isinstance(value, bytes | Enum):
            raise InvalidInputError(path, f"Literal[{value!r}] is not JSON-serialisable; use text, numbers or an Enum")

    def read(value: Any, path: str) -> Any:
        for known in values:
            if value == known and type(value) is type(known):
                return known
        raise refuse(path, value, f"one of {', '.join(map(repr, values))}")

    return ParamType({"enum": list(values)}, read)


def _enum(cls: type[Enum]) -> ParamType:
    values = [member.value for member in cls]

    def read(value: Any, path: str) -> Enum:
        try:
            return cls(value)
        except ValueError:
            raise refuse(path, value, f"one of {', '.join(map(repr, values))}") from None

    return ParamType({"enum": values}, read)


def _union(parts: list[ParamType]) -> ParamType:
    def read(value: Any, path: str) -> Any:
        return _first_fit(parts, lambda part: part.read(value, path))

    return ParamType({"anyOf": [part.schema for part in parts]}, read, any(part.secret for part in parts))


def _first_fit(parts: Iterable[P], read: Callable[[P], T]) -> T:
    """Return what the first part reads that does not refuse the value. Raises the most specific error if all refuse it."""
    problems = []
    for part in parts:
        try:
            return read(part)
        except InvalidInputError as problem:
            problems.append(problem)
    raise max(problems, key=lambda problem: len(problem.field))  # of the part that got deepest into the value


def _dataclass(cls: type, path: str) -> ParamType:
    try:
        hints = typing.get_type_hints(cls)
    except NameError as error:
        raise InvalidInputError(path, f"{cls.__name__} has an annotation that cannot be resolved: {error}") from None
    names = [part for part in dataclasses.fields(cls) if part.init]
    parts = {part.name: param_type_of(hints[part.name], f"{path}.{part.name}") for part in names}
    required = [
        part.name
        for part in names
        if part.default is dataclasses.MISSING and part.default_factory is dataclasses.MISSING
    ]

    def read(value: Any, path: str) -> Any:
        given = read_object(any_dict(value, path), parts, required, path)
        try:
            return cls(**given)
        except (ValueError, TypeError) as error:
            raise InvalidInputError(path, str(error)) from None

    schema = object_schema({name: part.schema for name, part in parts.items()}, required)
    return ParamType({**schema, "title": cls.__name__}, read, any(part.secret for part in parts.values()))


def object_schema(properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    """Return the schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": required,
        "additionalProperties": False,
    }


def read_object(
    value: Mapping[str, Any], parts: Mapping[str, ParamType], required: list[str], path: str
) -> dict[str, Any]:
    """Decode each member of an object. Raises InvalidInputError for an unknown, missing or invalid one."""
    for name in value:
        if name not in parts:
            known = ", ".join(parts) or "none"
            raise InvalidInputError(f"{path}.{name}" if path else str(name), f"is not a parameter; parameters: {known}")
    for name in required:
        if name not in value:
            raise InvalidInputError(f"{path}.{name}" if path else name, "is missing")
    return {name: parts[name].read(part, f"{path}.{name}" if path else name) for name, part in value.items()}


# --- pydantic, if installed -------------------------------------------------------------------------------------


def _pydantic(model: Any) -> ParamType:
    def read(value: Any, path: str) -> Any:
        try:
            return model.model_validate(value)
        except ValueError as error:
            raise _of_pydantic(error, path) from None

    return ParamType(model.model_json_schema(), read)


def _of_pydantic(error: Any, path: str) -> InvalidInputError:
    """Return the first error of pydantic as an InvalidInputError."""
    first = error.errors(include_url=False, include_input=False)[0] if hasattr(error, "errors") else {"msg": str(error)}
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first.get("loc", ()))
    return InvalidInputError(path + where, first["msg"])


def plain(value: Any) -> Any:
    """Return a value with pydantic models as dicts and durations in seconds, since `to_json` does not convert these."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_model(type(value)):
        return value.model_dump(mode="json")
    return value


JSON_TYPES: dict[str, tuple[str, Any]] = {
    "string": ("text", str),
    "boolean": ("true or false", bool),
    "null": ("null", type(None)),
    "array": ("a list", list),
    "object": ("an object", dict),
    "number": ("a number", int | float),
    "integer": ("a whole number", int),
}


def check_schema(value: Any, schema: Mapping[str, Any], path: str = "", root: Mapping[str, Any] | None = None) -> None:
    """Raise InvalidInputError, naming the path, if a plain value does not match a schema."""
    root = schema if root is None else root
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        check_schema(value, root.get("$defs", {}).get(name, {}), path, root)
    if "anyOf" in schema or "oneOf" in schema:
        _first_fit(schema.get("anyOf") or schema["oneOf"], lambda part: check_schema(value, part, path, root))
    for part in schema.get("allOf", ()):
        check_schema(value, part, path, root)
    if "const" in schema and value != schema["const"]:
        raise InvalidInputError(path, f"{value!r:.60} is not {schema['const']!r}")
    if "enum" in schema and not any(value == known and type(value) is type(known) for known in schema["enum"]):
        raise InvalidInputError(path, f"{value!r:.60} is not one of {', '.join(map(repr, schema['enum']))}")
    if "type" in schema:
        _check_type(value, schema["type"], path)
    if isinstance(value, str) and schema.get("format") == "date-time":
        any_datetime(value, path)
    check_constraints(value, schema, path)
    if isinstance(value, list) and "prefixItems" in schema:
        for index, (part, inner) in enumerate(zip(value, schema["prefixItems"], strict=False)):
            check_schema(part, inner, f"{path}[{index}]", root)
    if isinstance(value, list) and "items" in schema:
        for index, part in enumerate(value):
            check_schema(part, schema["items"], f"{path}[{index}]", root)
    if isinstance(value, dict):
        _check_object(value, schema, path, root)


def _check_type(value: Any, expected: str | list[str], path: str) -> None:
    names = [expected] if isinstance(expected, str) else expected
    for name in names:
        _, kind = JSON_TYPES.get(name, ("", object))
        if isinstance(value, bool) and name in ("number", "integer"):
            continue
        if isinstance(value, kind) or (name == "integer" and isinstance(value, float) and value.is_integer()):
            return
    shown = "null" if value is None else f"{value!r:.60}"
    raise InvalidInputError(path, f"{shown} is not {' or '.join(JSON_TYPES.get(name, (name, 0))[0] for name in names)}")


def _check_object(value: Mapping[str, Any], schema: Mapping[str, Any], path: str, root: Mapping[str, Any]) -> None:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            raise InvalidInputError(f"{path}.{name}" if path else name, "is missing")
    others = schema.get("additionalProperties", True)
    for name, part in value.items():
        inner = f"{path}.{name}" if path else name
        if name in known:
            check_schema(part, known[name], inner, root)
        elif others is False:
            raise InvalidInputError(inner, f"is not a parameter; parameters: {', '.join(known) or 'none'}")
        elif isinstance(others, Mapping):
            check_schema(part, others, inner, root)
