"""Checking values against a published JSON schema, where the handler itself is not at hand.

Owns the words of JSON Schema (draft 2020-12) that handlers publish: those of `readers`, and what pydantic writes for
models. A word that is not known is passed over: the worker that runs the job checks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from milepost.core.errors import InvalidInput

_TYPES: dict[str, tuple[str, Any]] = {
    "string": ("text", str),
    "boolean": ("true or false", bool),
    "null": ("null", type(None)),
    "array": ("a list", list),
    "object": ("an object", dict),
    "number": ("a number", int | float),
    "integer": ("a whole number", int),
}


def check_schema(value: Any, schema: Mapping[str, Any], path: str = "", root: Mapping[str, Any] | None = None) -> None:
    """Raise InvalidInput, naming the path, when a plain value does not fit a schema."""
    root = schema if root is None else root
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        check_schema(value, root.get("$defs", {}).get(name, {}), path, root)
    if "anyOf" in schema or "oneOf" in schema:
        _check_any(value, schema.get("anyOf") or schema["oneOf"], path, root)
    for part in schema.get("allOf", ()):
        check_schema(value, part, path, root)
    if "const" in schema and value != schema["const"]:
        raise InvalidInput(path, f"{value!r:.60} is not {schema['const']!r}")
    if "enum" in schema and not any(value == known and type(value) is type(known) for known in schema["enum"]):
        raise InvalidInput(path, f"{value!r:.60} is not one of {', '.join(map(repr, schema['enum']))}")
    if "type" in schema:
        _check_type(value, schema["type"], path)
    if isinstance(value, str) and schema.get("format") == "date-time":
        _check_moment(value, path)
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_bounds(value, schema, path)
    if isinstance(value, list) and "items" in schema:
        for index, part in enumerate(value):
            check_schema(part, schema["items"], f"{path}[{index}]", root)
    if isinstance(value, dict):
        _check_object(value, schema, path, root)


def _check_any(value: Any, parts: list[Mapping[str, Any]], path: str, root: Mapping[str, Any]) -> None:
    problems = []
    for part in parts:
        try:
            return check_schema(value, part, path, root)
        except InvalidInput as problem:
            problems.append(problem)
    raise max(problems, key=lambda problem: len(problem.field))


def _check_type(value: Any, wanted: str | list[str], path: str) -> None:
    names = [wanted] if isinstance(wanted, str) else wanted
    for name in names:
        _, kind = _TYPES.get(name, ("", object))
        if isinstance(value, bool) and name in ("number", "integer"):
            continue
        if isinstance(value, kind) or (name == "integer" and isinstance(value, float) and value.is_integer()):
            return
    shown = "null" if value is None else f"{value!r:.60}"
    raise InvalidInput(path, f"{shown} is not {' or '.join(_TYPES.get(name, (name, 0))[0] for name in names)}")


def _check_moment(value: str, path: str) -> None:
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        raise InvalidInput(path, f"{value!r:.40} is not a moment such as 2026-11-25T10:30:00+00:00") from None
    if when.tzinfo is None:
        raise InvalidInput(path, f"{value!r:.40} has no timezone; append +00:00 or Z")


def _check_bounds(value: float, schema: Mapping[str, Any], path: str) -> None:
    if "minimum" in schema and value < schema["minimum"]:
        raise InvalidInput(path, f"{value} is less than {schema['minimum']}")
    if "maximum" in schema and value > schema["maximum"]:
        raise InvalidInput(path, f"{value} is more than {schema['maximum']}")


def _check_object(value: Mapping[str, Any], schema: Mapping[str, Any], path: str, root: Mapping[str, Any]) -> None:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            raise InvalidInput(f"{path}.{name}" if path else name, "is missing")
    others = schema.get("additionalProperties", True)
    for name, part in value.items():
        inner = f"{path}.{name}" if path else name
        if name in known:
            check_schema(part, known[name], inner, root)
        elif others is False:
            raise InvalidInput(inner, f"is not a parameter; there are: {', '.join(known) or 'none'}")
        elif isinstance(others, Mapping):
            check_schema(part, others, inner, root)
