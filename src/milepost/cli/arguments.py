"""Conversion of command-line arguments to the parameters of a job type, by its JSON schema.

Positional arguments set the parameters in order, and the first list takes the rest; NAME=VALUE sets one by name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from click import BadParameter, Command, Context, IntRange, NoSuchOption, Parameter, UsageError

Schema = Mapping[str, Any]
_NAMED = re.compile(r"([A-Za-z_]\w*)=(.*)\Z", re.DOTALL)
_NO_VALUE = object()


class WholeNumber(IntRange):
    """A whole number within bounds, which the error for any other text names."""

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> Any:
        """Return the number. Raises BadParameter."""
        try:
            return super().convert(value, param, ctx)
        except BadParameter:
            low, high = (
                "" if bound is None else f" {word} {bound}" for word, bound in (("from", self.min), ("to", self.max))
            )
            self.fail(f"{value!r:.40} must be a whole number{low}{high}", param, ctx)


class JobCommand(Command):
    """A command that takes job parameters. An unknown option gets a hint on how to pass a parameter."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Parse the options. Raises UsageError."""
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:
            name = error.option_name.lstrip("-").replace("-", "_")
            hint = f"as {name}=..." if name.isidentifier() else "after --"
            raise UsageError(f"{error.message} Pass job parameters {hint}", ctx) from None


def parse_arguments(job_type: str, schema: Schema, words: Sequence[str], *, verb: str = "run") -> dict[str, Any]:
    """Return the parameters as JSON values. Raises UsageError with the usage of the type."""
    known: dict[str, Schema] = dict(schema.get("properties", {}))
    filled: dict[str, Any] = {}
    bare: list[str] = []
    for word in words:
        named = _NAMED.match(word)
        if named is None or (named[1] not in known and os.path.lexists(word)):
            bare.append(word)
        elif named[1] not in known and known:
            raise UsageError(f"{job_type} has no parameter {named[1]!r}; {usage(job_type, schema, verb)}")
        elif named[1] in filled and isinstance(filled[named[1]], list):
            filled[named[1]].extend(_convert_list(named[1], [named[2]], known[named[1]], schema))
        else:
            filled[named[1]] = convert(named[1], named[2], known.get(named[1], {}), schema)
    order = [name for name in known if name not in filled]
    while bare:
        if not order:
            raise UsageError(f"unexpected argument {bare[0]!r}; {usage(job_type, schema, verb)}")
        name = order.pop(0)
        if _item_schema(known[name], schema) is not None:
            filled[name], bare = _convert_list(name, bare, known[name], schema), []
        else:
            filled[name] = convert(name, bare.pop(0), known[name], schema)
    missing = [name for name in schema.get("required", ()) if name not in filled]
    if missing:
        raise UsageError(f"missing {', '.join(missing)}; {usage(job_type, schema, verb)}")
    return filled


def usage(job_type: str, schema: Schema, verb: str = "run") -> str:
    """Return the usage line of a job type."""
    required = schema.get("required", ())
    shown = [
        f"{name.upper()}{'...' if _item_schema(inner, schema) is not None else ''}"
        if name in required
        else f"[{name}=...]"
        for name, inner in schema.get("properties", {}).items()
    ]
    return f"usage: milepost {verb} {job_type} {' '.join(shown)}".rstrip()


def named_parameters(schema: Schema) -> str:
    """Return the parameters of a job type by name, the optional ones in brackets: ``n=... [pause=...]``."""
    required = schema.get("required", ())
    return " ".join(f"{name}=..." if name in required else f"[{name}=...]" for name in schema.get("properties", {}))


def labels_of(pairs: Sequence[str]) -> dict[str, str]:
    """Return labels from NAME=VALUE arguments. Raises UsageError."""
    labels = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--label must be NAME=VALUE, not {pair!r}")
        labels[name] = value
    return labels


def amounts_of(pairs: Sequence[str], flag: str) -> dict[str, float]:
    """Return numbers by name from NAME=AMOUNT arguments. Raises UsageError."""
    amounts = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            amounts[name] = int(text) if text.removeprefix("-").isdecimal() else float(text)
        except ValueError:
            raise UsageError(f"{flag} must be NAME=AMOUNT, for example usd=5, not {pair!r}") from None
    return amounts


def convert(name: str, text: str, schema: Schema, root: Schema) -> Any:
    """Return the text as a value of the schema. Raises UsageError with the parameter and the expected type."""
    if _item_schema(schema, root) is not None:
        return _convert_list(name, [text], schema, root)
    problems: list[str] = []
    for choice in sorted(_alternatives(schema, root), key=lambda choice: choice.get("type") == "string"):
        value = _convert_choice(text, choice, problems)
        if value is not _NO_VALUE:
            return value
    raise UsageError(f"{name}: {text!r:.60} {problems[0] if problems else 'cannot be passed on the command line'}")


def _convert_list(name: str, words: list[str], schema: Schema, root: Schema) -> list[Any]:
    if len(words) == 1 and words[0].lstrip().startswith("["):
        listed = _parse_json(words[0])
        if isinstance(listed, list):
            return listed
    return [convert(name, word, _item_schema(schema, root) or {}, root) for word in words]


def _convert_choice(text: str, choice: Schema, problems: list[str]) -> Any:
    """Return the text as a value of one alternative, or _NO_VALUE after appending the problem to `problems`."""
    allowed = choice.get("enum", [choice["const"]] if "const" in choice else None)
    if allowed is not None:
        found = [value for value in allowed if (json.dumps(value) if not isinstance(value, str) else value) == text]
        problems.append(f"is not one of {', '.join(map(str, allowed))}")
        return found[0] if found else _NO_VALUE
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
        return words.get(text.lower(), _NO_VALUE)
    if kind in ("integer", "number"):
        problems.append("is not a whole number" if kind == "integer" else "is not a number")
        try:
            return int(text) if kind == "integer" else float(text)
        except ValueError:
            return _NO_VALUE
    if kind == "null":
        return None if text.lower() in ("none", "null") else _NO_VALUE
    if kind == "object":
        problems.append("is not a JSON object")
        value = _parse_json(text)
        return value if isinstance(value, dict) else _NO_VALUE
    if kind == "string":
        return text
    value = _parse_json(text)
    return text if value is _NO_VALUE else value


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return _NO_VALUE


def _alternatives(schema: Schema, root: Schema) -> list[Schema]:
    """Return the alternatives of a schema, with references resolved."""
    if "$ref" in schema:
        named = root.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2], {})
        return _alternatives(named, root)
    parts = schema.get("anyOf") or schema.get("oneOf")
    if parts:
        return [choice for part in parts for choice in _alternatives(part, root)]
    kinds = schema.get("type")
    return [{**schema, "type": kind} for kind in kinds] if isinstance(kinds, list) else [schema]


def _item_schema(schema: Schema, root: Schema) -> Schema | None:
    """Return the schema of the list items, or None if the schema is not a list."""
    for choice in _alternatives(schema, root):
        if choice.get("type") == "array":
            items: Schema = choice.get("items", {})
            return items
    return None
