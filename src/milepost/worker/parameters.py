"""The typed parameters of a handler, taken from its signature."""

from __future__ import annotations

import collections.abc
import copy
import dataclasses
import inspect
import types
import typing
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import PARAMS_BYTES, from_json, to_json
from milepost.run.async_run import AsyncRun
from milepost.run.job_result import is_model
from milepost.run.param_types import object_schema, param_type_of, plain, read_object
from milepost.run.run import Run
from milepost.run.scalar_types import ParamType

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
    # `typing.is_protocol` is public from Python 3.13 on.
    if getattr(kind, "_is_protocol", False) or typing.is_typeddict(kind) or kind.__module__.startswith("numpy"):
        return True
    if issubclass(kind, _CONVERTIBLE) or dataclasses.is_dataclass(kind) or is_model(kind):
        return True
    return any(_may_be_json(one) for one in type.__subclasses__(kind))


class Parameters:
    """The parameters of a handler besides its Run. Made by `parameters_of`."""

    def __init__(
        self,
        param_types: dict[str, ParamType],
        defaults: dict[str, Any],
        positional: tuple[str, ...],
        owner_label: Callable[[], str | None],
    ) -> None:
        self.owner_label = owner_label
        """Returns the label whose value owns the results of a job, or None."""
        self.required = [name for name in param_types if name not in defaults]
        self.secrets = tuple(name for name, param_type in param_types.items() if param_type.secret)
        self._param_types = param_types
        # A default that can change is copied for each run; values that cannot change are hashable.
        self._mutable = {name: value for name, value in defaults.items() if type(value).__hash__ is None}
        self._positional = positional
        shown = {name: dict(param_type.schema) for name, param_type in param_types.items()}
        definitions: dict[str, Any] = {}
        for name, schema in shown.items():
            definitions.update(schema.pop("$defs", {}))
            if name in defaults and name not in self.secrets:
                schema["default"] = from_json(to_json(plain(defaults[name]), name))
        self.schema = object_schema(shown, self.required)
        if definitions:
            self.schema["$defs"] = definitions

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values by name, as a call of the handler would bind them. Raises InvalidInputError."""
        if len(args) > len(self._positional):
            raise InvalidInputError(
                "params", f"{len(args)} positional values; the handler takes {len(self._positional)}"
            )
        given = dict(zip(self._positional, args, strict=False))
        for name in kwargs:
            if name in given:
                raise InvalidInputError(name, "is given twice")
        return {**given, **kwargs}

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values in plain form, as they are stored. Raises InvalidInputError with the parameter's name."""
        if not self._param_types and not given:
            return {}
        values: dict[str, Any] = {
            name: from_json(to_json(plain(value), name, PARAMS_BYTES)) for name, value in given.items()
        }
        read_object(values, self._param_types, self.required, "")
        return values

    def read(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values as the handler takes them. Raises InvalidInputError with the name of the parameter."""
        values = read_object(stored, self._param_types, self.required, "")
        for name, default in self._mutable.items():
            if name not in values:
                values[name] = copy.deepcopy(default)
        return values

    def of(self, record: Mapping[str, str]) -> dict[str, Any]:
        """Return the values of a record as the handler takes them. Raises InvalidInputError with the parameter's name.

        A job that was accepted for an owner is refused where another label, or none, owns the results.
        """
        accepted = record.get("owner_label")
        if accepted is not None and accepted != (own := self.owner_label()):
            raise InvalidInputError(
                f"labels.{accepted}",
                f"this worker's owner label is {own!r:.100}; configure {accepted!r:.100} there, as in the server",
            )
        stored = from_json(record.get("params", "{}"))
        if record.get("origin") == "api":
            refuse_operator_only(stored, self.schema)
        return self.read(stored)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names in order."""
        return tuple(self._param_types)


OWNER_LABEL: Final = "x-owner-label"
"""The name in the schema of a type for the label whose value owns the results of a job."""


def operator_only(schema: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of a type that only its operator sets, each with where that is done."""
    properties = schema.get("properties", {})
    return {name: part.get("description", "") for name, part in properties.items() if part.get("readOnly") is True}


def refuse_operator_only(values: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Raise InvalidInputError for a parameter that an HTTP request may not set."""
    for name, remedy in operator_only(schema).items():
        if values.get(name) is not None:
            raise InvalidInputError(name, f"cannot be set over HTTP; omit it. {remedy}")


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Return the parameters of a handler. Raises InvalidInputError, with the remedy, if one is not supported."""
    name = getattr(function, "__qualname__", repr(function))
    found = list(inspect.signature(function).parameters.values())
    if found and found[0].name in ("self", "cls"):
        raise InvalidInputError(
            "handler", f"{name} is a method; register it on an object, as in jobs.job('name')(object.method)"
        )
    if not found or not _is_run(found[0], run_type_of(function)):
        is_async = inspect.iscoroutinefunction(function)
        written = f"async def {function.__name__}(run: AsyncRun" if is_async else f"def {function.__name__}(run: Run"
        raise InvalidInputError("handler", f"{name}: the first parameter is the Run; write {written}, ...)")
    hints = _hints(function, found[1:])
    param_types: dict[str, ParamType] = {}
    defaults: dict[str, Any] = {}
    for parameter in found[1:]:
        where = f"{name}({parameter.name})"
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise InvalidInputError(where, "is positional-only, but parameters are passed by name; remove the '/'")
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InvalidInputError(where, f"{parameter} has no schema; give each parameter a name and a type")
        if parameter.name not in hints:
            raise InvalidInputError(where, f"has no type; annotate it, as in {parameter.name}: str")
        param_type = param_types[parameter.name] = param_type_of(hints[parameter.name], where)
        if parameter.default is not parameter.empty:
            defaults[parameter.name] = parameter.default
            try:
                param_type.read(from_json(to_json(plain(parameter.default), where)), where)
            except InvalidInputError as problem:
                remedy = " | None" if parameter.default is None else ""
                raise InvalidInputError(
                    where, f"default does not match the type: {problem.problem}{remedy and '; append ' + remedy}"
                ) from None
    positional = tuple(p.name for p in found[1:] if p.kind is p.POSITIONAL_OR_KEYWORD)
    return Parameters(param_types, defaults, positional, getattr(function, "owner_label", lambda: None))


def run_type_of(function: Callable[..., Any]) -> type[Run]:
    """Return the class of the run that a handler gets: AsyncRun if it is async, unless it is annotated as Run."""
    kind = next(iter(inspect.signature(function).parameters.values())).annotation
    is_plain = kind.rpartition(".")[2] == "Run" if isinstance(kind, str) else kind is Run
    return AsyncRun if inspect.iscoroutinefunction(function) and not is_plain else Run


def _is_run(parameter: inspect.Parameter, run_type: type[Run]) -> bool:
    kind = parameter.annotation
    if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
        return False
    if isinstance(kind, str):
        return kind.rpartition(".")[2] == run_type.__name__
    return kind is parameter.empty or (isinstance(kind, type) and issubclass(run_type, kind))


def _hints(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> dict[str, Any]:
    """Return the types of the parameters, without the Run and the result, which only type checkers may know."""

    def bare() -> None: ...

    bare.__annotations__ = {p.name: p.annotation for p in parameters if p.annotation is not p.empty}
    inner = inspect.unwrap(function)
    try:
        return typing.get_type_hints(bare, getattr(inner, "__globals__", {}), include_extras=True)
    except NameError as error:
        raise InvalidInputError(
            getattr(function, "__qualname__", "handler"),
            f"an annotation cannot be resolved: {error}; import the type at module level, not only for type checkers",
        ) from None
