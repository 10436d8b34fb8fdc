"""Values of declared types as exact JSON, decoded to the type that a dataclass, TypedDict or model declares."""

from __future__ import annotations

import base64
import collections
import dataclasses
import json
import types
import typing
import uuid
from collections.abc import Callable
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import JSON_DEPTH
from milepost.run.job_result import is_model

REMEDY = (
    "use str, int, float, bool, None, lists and dicts with str keys, or declare the type: "
    "run.state(Totals) with a dataclass, TypedDict or model"
)


def encode(value: Any, field: str, remedy: str = REMEDY) -> str:
    """Encode str, int, float (with NaN and infinities), bool, None, lists and dicts with str keys.

    Raises InvalidInputError, with the path inside `field` and the remedy, for every other type.
    """
    problem = _problem(value, field, 0, remedy)
    if problem is not None:
        raise problem
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Lone surrogates cannot be stored as they are; escaped they come back equal.
    return text if text.isascii() or _is_utf8(text) else json.dumps(value, separators=(",", ":"))


def decode(text: str) -> Any:
    """Decode what `encode` wrote."""
    return json.loads(text)


def equal(one: Any, other: Any) -> bool:
    """Return whether two values are equal and have the same types; NaN equals NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (one != one and other != other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    return bool(one == other)


def size_of(text: str) -> int:
    """Return the size of a text in UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode())


def _problem(value: Any, path: str, depth: int, remedy: str) -> InvalidInputError | None:
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, Enum)):
        return None
    if depth > JSON_DEPTH:
        return InvalidInputError(path, f"nests deeper than {JSON_DEPTH}; flatten it")
    if type(value) is list:
        for position, inner in enumerate(value):
            if (problem := _problem(inner, f"{path}[{position}]", depth + 1, remedy)) is not None:
                return problem
        return None
    if type(value) is dict:
        for key, inner in value.items():
            if type(key) is not str:
                kind = type(key).__name__
                return InvalidInputError(path, f"the key {key!r:.60} is {kind}, and would come back as a str; {remedy}")
            if (problem := _problem(inner, f"{path}.{key}", depth + 1, remedy)) is not None:
                return problem
        return None
    return InvalidInputError(path, f"{type(value).__name__} would not come back equal; {remedy}")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


Function = Callable[[Any], Any]


class Codec(NamedTuple):
    """Encodes and decodes values of one type."""

    dump: Function
    load: Function
    accepts: Callable[[Any], bool]


def codec_of(kind: Any, path: str = "state") -> Codec:
    """Return the codec of a declared type. Raises InvalidInputError, with `path`, for an unsupported type."""
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired):
        return codec_of(inner[0], path)
    if origin is typing.Literal:
        return Codec(_same, _same, lambda value: value in inner)
    if origin in (typing.Union, types.UnionType):
        return _union([codec_of(part, path) for part in inner])
    if origin in (list, set, frozenset, collections.deque):
        return _items(origin, codec_of(inner[0], f"{path}[]"))
    if origin is tuple:
        return _tuple(inner, path)
    if origin is collections.Counter:
        return _pairs(collections.Counter, codec_of(inner[0], f"{path} (key)"), _SIMPLE[int])
    if origin is dict:
        return _pairs(dict, codec_of(inner[0], f"{path} (key)"), codec_of(inner[1], f"{path}.*"))
    if origin is collections.defaultdict:
        return _pairs(_defaultdict(inner[1]), codec_of(inner[0], f"{path} (key)"), codec_of(inner[1], f"{path}.*"))
    if isinstance(kind, type):
        if issubclass(kind, Enum):
            return Codec(lambda value: value.name, lambda name: kind[name], lambda value: isinstance(value, kind))
        if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
            return _record(kind, path)
        if is_model(kind):
            return Codec(
                lambda value: value.model_dump(mode="json"),
                lambda value: kind.model_validate(value),  # type: ignore[attr-defined] # pydantic is optional
                lambda value: type(value) is kind,
            )
    shown = kind.__name__ if isinstance(kind, type) else kind
    raise InvalidInputError(
        path, f"{shown} cannot be kept; use plain types, sets, tuples, Decimal, datetime or dataclasses"
    )


def fields_of(kind: Any, path: str = "state") -> dict[str, Codec]:
    """Return the codecs of the fields of a dataclass or a TypedDict."""
    try:
        hints = typing.get_type_hints(kind)
    except NameError as error:
        raise InvalidInputError(path, f"{kind.__name__} has an annotation that cannot be read: {error}") from None
    names = [part.name for part in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else hints
    return {name: codec_of(hints[name], f"{path}.{name}") for name in names}


def _same(value: Any) -> Any:
    return value


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds


_SIMPLE: dict[Any, Codec] = {
    **{kind: Codec(_same, _same, _is(kind)) for kind in (str, int, bool, list, dict)},
    float: Codec(_same, lambda value: float(value) if type(value) is int else value, _is(float, int)),
    None: Codec(_same, _same, lambda value: value is None),
    type(None): Codec(_same, _same, lambda value: value is None),
    Any: Codec(_same, _same, lambda value: True),
    object: Codec(_same, _same, lambda value: True),
    bytes: Codec(lambda value: base64.b64encode(value).decode(), base64.b64decode, _is(bytes)),
    Decimal: Codec(str, Decimal, _is(Decimal)),
    datetime: Codec(lambda value: value.isoformat(), datetime.fromisoformat, _is(datetime)),
    date: Codec(lambda value: value.isoformat(), date.fromisoformat, _is(date)),
    clock_time: Codec(lambda value: value.isoformat(), clock_time.fromisoformat, _is(clock_time)),
    timedelta: Codec(
        lambda value: [value.days, value.seconds, value.microseconds], lambda value: timedelta(*value), _is(timedelta)
    ),
    uuid.UUID: Codec(str, uuid.UUID, _is(uuid.UUID)),
    Path: Codec(str, Path, lambda value: isinstance(value, Path)),
}
for _bare in (set, frozenset, tuple, collections.deque):
    _SIMPLE[_bare] = Codec(list, _bare, _is(_bare))


def _items(kind: Any, item: Codec) -> Codec:
    return Codec(
        lambda value: [item.dump(part) for part in value],
        lambda value: kind(map(item.load, value)),
        lambda value: type(value) is kind and all(map(item.accepts, value)),
    )


def _tuple(inner: tuple[Any, ...], path: str) -> Codec:
    if len(inner) == 2 and inner[1] is Ellipsis:
        return _items(tuple, codec_of(inner[0], f"{path}[]"))
    parts = [codec_of(part, f"{path}[{position}]") for position, part in enumerate(inner)]
    return Codec(
        lambda value: [part.dump(one) for part, one in zip(parts, value, strict=True)],
        lambda value: tuple(part.load(one) for part, one in zip(parts, value, strict=True)),
        lambda value: (
            type(value) is tuple
            and len(value) == len(parts)
            and all(part.accepts(one) for part, one in zip(parts, value, strict=True))
        ),
    )


def _defaultdict(value: Any) -> Function:
    factory = typing.get_origin(value) or value
    return lambda pairs: collections.defaultdict(factory, pairs)


def _pairs(make: Function, key: Codec, item: Codec) -> Codec:
    """Encode a dict as a list of pairs in order, so that its keys may have any supported type."""
    kind: Any = make if isinstance(make, type) else collections.defaultdict
    return Codec(
        lambda value: [[key.dump(one), item.dump(other)] for one, other in value.items()],
        lambda value: make({key.load(one): item.load(other) for one, other in value}),
        lambda value: (
            type(value) is kind and all(key.accepts(one) and item.accepts(other) for one, other in value.items())
        ),
    )


def _union(parts: list[Codec]) -> Codec:
    def dump(value: Any) -> list[Any]:
        for number, part in enumerate(parts):
            if part.accepts(value):
                return [number, part.dump(value)]
        raise InvalidInputError("state", f"{type(value).__name__} is none of its declared types")

    return Codec(
        dump,
        lambda value: parts[value[0]].load(value[1]),
        lambda value: any(part.accepts(value) for part in parts),
    )


def _record(kind: Any, path: str) -> Codec:
    parts = fields_of(kind, path)
    if typing.is_typeddict(kind):
        return Codec(
            lambda value: {name: parts[name].dump(one) for name, one in value.items()},
            lambda value: {name: parts[name].load(one) for name, one in value.items() if name in parts},
            lambda value: isinstance(value, dict) and value.keys() <= parts.keys(),
        )

    def load(value: dict[str, Any]) -> Any:
        made = kind.__new__(kind)
        for name, part in parts.items():
            object.__setattr__(made, name, part.load(value[name]))
        return made

    return Codec(
        lambda value: {name: part.dump(getattr(value, name)) for name, part in parts.items()},
        load,
        lambda value: type(value) is kind,
    )
