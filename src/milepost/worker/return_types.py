"""Checks the return annotation of a handler: a result that can never be JSON is refused at registration."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import types
import typing
import uuid
from collections import deque
from collections.abc import Callable
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any

from milepost.core.errors import InvalidInputError
from milepost.core.result_json import is_model

_CONVERTIBLE = (
    str, int, float, list, tuple, set, frozenset, deque, range, collections.abc.Mapping, type(None), date, time,
    timedelta, Decimal, Enum, PurePath, uuid.UUID,
)  # fmt: skip
_REMEDIES: tuple[tuple[tuple[type, ...], str], ...] = (
    ((collections.abc.AsyncIterator, collections.abc.AsyncIterable), "collect the values and return a list"),
    ((collections.abc.Iterator,), "return a list of the values"),
    ((collections.abc.Awaitable,), "make the handler async and await it"),
    ((bytes, bytearray, memoryview), "decode it, or write it to a file and return the path"),
)
"""Types whose instances are never JSON, whatever their class."""


def check_return_type(function: Callable[..., Any]) -> None:
    """Raise InvalidInputError, with the remedy, if the annotated result of a handler can never be JSON.

    Accepted is what may be JSON: no or an unreadable annotation, containers of anything, protocols, abstract classes,
    and classes with a subclass that is convertible.
    """
    if hasattr(function, "__wrapped__"):  # the annotation may be that of the wrapped function
        return
    try:
        annotation = typing.get_type_hints(function)["return"]
    except Exception:  # noqa: BLE001 - missing, or names that cannot be resolved
        return
    remedy = _refusal(annotation)
    if remedy is not None:
        shown = annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
        raise InvalidInputError(
            "handler", f"{function.__qualname__} returns {shown}, which is not JSON-serialisable; {remedy}"
        )


def _refusal(annotation: Any) -> str | None:
    """Return the remedy for a type that is never JSON, None for one that may be."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _refusal(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        found = [_refusal(one) for one in typing.get_args(annotation)]
        return None if None in found else found[0]
    kind = origin if origin is not None else annotation
    if not isinstance(kind, type):
        return None
    for kinds, remedy in _REMEDIES:
        if issubclass(kind, kinds):
            return remedy
    if _may_be_json(kind):
        return None
    name = "to_dict()" if hasattr(kind, "to_dict") else "model, a dataclass or a dict"
    return f"return its {name}" if name == "to_dict()" else f"return a {name}"


def _may_be_json(kind: type) -> bool:
    if kind is object or kind.__module__ in ("typing", "collections.abc") or inspect.isabstract(kind):
        return True
    if getattr(kind, "_is_protocol", False) or typing.is_typeddict(kind) or kind.__module__.startswith("numpy"):
        return True
    if issubclass(kind, _CONVERTIBLE) or dataclasses.is_dataclass(kind) or is_model(kind):
        return True
    return any(_may_be_json(one) for one in type.__subclasses__(kind))
