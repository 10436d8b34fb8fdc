"""JSON schemas that a caller writes for an answer: what is wrong in one is said when the question is asked, not when it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from milepost.core.errors import InvalidInputError
from milepost.run.param_types import JSON_TYPES
from milepost.run.scalar_types import check_bounds

_NAMED = ("properties", "$defs")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")


def validate_schema(schema: Any, path: str, names: frozenset[str] = frozenset()) -> None:
    """Raise InvalidInputError, naming the path, if a part is no JSON schema with which an answer can be compared.

    `names` are those of `$defs` around it.
    """
    if not isinstance(schema, Mapping):
        raise InvalidInputError(path, f"{schema!r:.60} is not a JSON schema; use a dict such as {{'type': 'string'}}")
    names = names | frozenset(map(str, _parts(schema, "$defs", dict, path)))
    _check_types(schema, path)
    if "$ref" in schema and str(schema["$ref"]).removeprefix("#/$defs/") not in names:
        raise InvalidInputError(f"{path}.$ref", f"{schema['$ref']!r:.60} is not in $defs; use '#/$defs/NAME'")
    for name in _NAMED:
        for key, part in _parts(schema, name, dict, path).items():
            validate_schema(part, f"{path}.{name}.{key!s:.60}", names)
    for name in _LISTED:
        for number, part in enumerate(_parts(schema, name, list, path)):
            validate_schema(part, f"{path}.{name}[{number}]", names)
    _parts(schema, "enum", list, path)
    if schema.get("required") != []:
        _parts(schema, "required", list, path)
    if "items" in schema:
        validate_schema(schema["items"], f"{path}.items", names)
    if not isinstance(others := schema.get("additionalProperties", True), bool):
        validate_schema(others, f"{path}.additionalProperties", names)
    check_bounds(schema, path)


def _check_types(schema: Mapping[str, Any], path: str) -> None:
    types = schema.get("type", [])
    for name in types if isinstance(types, list) else [types]:
        if not isinstance(name, str) or name not in JSON_TYPES:
            raise InvalidInputError(f"{path}.type", f"{name!r:.60} is not one of {', '.join(JSON_TYPES)}")


def _parts(schema: Mapping[str, Any], name: str, kind: type, path: str) -> Any:
    """Return the parts under a keyword, empty without it."""
    if name not in schema:
        return kind()
    if not isinstance(schema[name], kind) or schema[name] == []:
        expected = "a dict" if kind is dict else "a list with at least one item"
        raise InvalidInputError(f"{path}.{name}", f"{schema[name]!r:.60} must be {expected}")
    return schema[name]
