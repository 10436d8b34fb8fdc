"""Validates plain values against the published JSON schema of a handler that is not imported here.

It knows the keywords of JSON Schema (draft 2020-12) that `param_types` and pydantic write. Unknown keywords are
ignored, since the worker that runs the job validates again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from milepost.core.errors import InvalidInputError
from milepost.worker.constraints import check_constraints

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
    """Raise InvalidInputError, naming the path, if a plain value does not match a schema."""
    root = schema if root is None else root
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        check_schema(value, root.get("$defs", {}).get(name, {}), path, root)
    if "anyOf" in schema or "oneOf" in schema:
        _check_any(value, schema.get("anyOf") or schema["oneOf"], path, root)
    for part in schema.get("allOf", ()):
        check_schema(value, part, path, root)
    if "const" in schema and value != schema["const"]:
        raise InvalidInputError(path, f"{value!r:.60} is not {schema['const']!r}")
    if "enum" in schema and not any(value == known and type(value) is type(known) for known in schema["enum"]):
        raise InvalidInputError(path, f"{value!r:.60} is not one of {', '.join(map(repr, schema['enum']))}")
    if "type" in schema:
        _check_type(value, schema["type"], path)
    if isinstance(value, str) and schema.get("format") == "date-time":
        _check_moment(value, path)
    check_constraints(value, schema, path)
    if isinstance(value, list) and "prefixItems" in schema:
        for index, (part, inner) in enumerate(zip(value, schema["prefixItems"], strict=False)):
            check_schema(part, inner, f"{path}[{index}]", root)
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
        except InvalidInputError as problem:
            problems.append(problem)
    raise max(problems, key=lambda problem: len(problem.field))


def _check_type(value: Any, expected: str | list[str], path: str) -> None:
    names = [expected] if isinstance(expected, str) else expected
    for name in names:
        _, kind = _TYPES.get(name, ("", object))
        if isinstance(value, bool) and name in ("number", "integer"):
            continue
        if isinstance(value, kind) or (name == "integer" and isinstance(value, float) and value.is_integer()):
            return
    shown = "null" if value is None else f"{value!r:.60}"
    raise InvalidInputError(path, f"{shown} is not {' or '.join(_TYPES.get(name, (name, 0))[0] for name in names)}")


def _check_moment(value: str, path: str) -> None:
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        raise InvalidInputError(
            path, f"{value!r:.40} is not a date and time such as 2026-11-25T10:30:00+00:00"
        ) from None
    if when.tzinfo is None:
        raise InvalidInputError(path, f"{value!r:.40} has no timezone; append +00:00 or Z")


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
