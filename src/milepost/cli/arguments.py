"""From words on a command line to the parameters of a job type, by their JSON schema. Owns how text becomes a value.

Bare words fill the parameters in order, the first list takes the rest; NAME=VALUE names one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from click import Command, Context, NoSuchOption, UsageError

Schema = Mapping[str, Any]
_NAMED = re.compile(r"([A-Za-z_]\w*)=(.*)\Z", re.DOTALL)
_NONE = object()


class JobCommand(Command):
    """A command that takes the parameters of a job: who writes one as an option is told how it is written."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read the options. Raises UsageError."""
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:
            name = error.option_name.lstrip("-").replace("-", "_")
            hint = f"{name}=..." if name.isidentifier() else "after --"
            raise UsageError(f"{error.message} A parameter of the job is written {hint}", ctx) from None


def fill(job_type: str, schema: Schema, words: Sequence[str], *, verb: str = "run") -> dict[str, Any]:
    """The parameters that words give, in their plain form. Raises UsageError that says what the type takes."""
    known: dict[str, Schema] = dict(schema.get("properties", {}))
    filled: dict[str, Any] = {}
    bare: list[str] = []
    for word in words:
        named = _NAMED.match(word)
        if named is None or (named[1] not in known and os.path.lexists(word)):
            bare.append(word)
        elif named[1] not in known and known:
            raise UsageError(f"{named[1]!r} is not a parameter of {job_type}; {usage(job_type, schema, verb)}")
        elif named[1] in filled and isinstance(filled[named[1]], list):
            filled[named[1]].extend(_many(named[1], [named[2]], known[named[1]], schema))
        else:
            filled[named[1]] = convert(named[1], named[2], known.get(named[1], {}), schema)
    order = [name for name in known if name not in filled]
    while bare:
        if not order:
            raise UsageError(f"{bare[0]!r} is one argument too many; {usage(job_type, schema, verb)}")
        name = order.pop(0)
        if _items(known[name], schema) is not None:
            filled[name], bare = _many(name, bare, known[name], schema), []
        else:
            filled[name] = convert(name, bare.pop(0), known[name], schema)
    missing = [name for name in schema.get("required", ()) if name not in filled]
    if missing:
        raise UsageError(f"{', '.join(missing)} missing; {usage(job_type, schema, verb)}")
    return filled


def usage(job_type: str, schema: Schema, verb: str = "run") -> str:
    """How a job of that type is started."""
    required = schema.get("required", ())
    shown = [
        f"{name.upper()}{'...' if _items(inner, schema) is not None else ''}" if name in required else f"[{name}=...]"
        for name, inner in schema.get("properties", {}).items()
    ]
    return f"usage: milepost {verb} {job_type} {' '.join(shown)}".rstrip()


def convert(name: str, text: str, schema: Schema, root: Schema) -> Any:
    """Text as a value of a schema. Raises UsageError that names the parameter and says what it takes."""
    if _items(schema, root) is not None:
        return _many(name, [text], schema, root)
    problems: list[str] = []
    for choice in sorted(_choices(schema, root), key=lambda choice: choice.get("type") == "string"):
        value = _read(text, choice, problems)
        if value is not _NONE:
            return value
    raise UsageError(f"{name}: {text!r:.60} {problems[0] if problems else 'cannot be given as text'}")


def _many(name: str, words: list[str], schema: Schema, root: Schema) -> list[Any]:
    if len(words) == 1 and words[0].lstrip().startswith("["):
        listed = _json(words[0])
        if isinstance(listed, list):
            return listed
    return [convert(name, word, _items(schema, root) or {}, root) for word in words]


def _read(text: str, choice: Schema, problems: list[str]) -> Any:
    """The text as one of the alternatives of a schema, or _NONE with the problem written down."""
    allowed = choice.get("enum", [choice["const"]] if "const" in choice else None)
    if allowed is not None:
        found = [value for value in allowed if (json.dumps(value) if not isinstance(value, str) else value) == text]
        problems.append(f"is not one of {', '.join(map(str, allowed))}")
        return found[0] if found else _NONE
    kind = choice.get("type")
    if kind == "boolean":
        problems.append("is not true or false")
        words = {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }
        return words.get(text.lower(), _NONE)
    if kind in ("integer", "number"):
        problems.append("is not a whole number" if kind == "integer" else "is not a number")
        try:
            return int(text) if kind == "integer" else float(text)
        except ValueError:
            return _NONE
    if kind == "null":
        return None if text.lower() in ("none", "null") else _NONE
    if kind == "object":
        problems.append("is not a JSON object")
        value = _json(text)
        return value if isinstance(value, dict) else _NONE
    if kind == "string":
        return text
    value = _json(text)
    return text if value is _NONE else value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return _NONE


def _choices(schema: Schema, root: Schema) -> list[Schema]:
    """The alternatives of a schema, references followed."""
    if "$ref" in schema:
        named = root.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2], {})
        return _choices(named, root)
    parts = schema.get("anyOf") or schema.get("oneOf")
    if parts:
        return [choice for part in parts for choice in _choices(part, root)]
    kinds = schema.get("type")
    return [{**schema, "type": kind} for kind in kinds] if isinstance(kinds, list) else [schema]


def _items(schema: Schema, root: Schema) -> Schema | None:
    """The schema of the items where a list is taken, else None."""
    for choice in _choices(schema, root):
        if choice.get("type") == "array":
            items: Schema = choice.get("items", {})
            return items
    return None
