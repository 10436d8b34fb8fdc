"""The typed parameters of a handler, read from its signature. Owns binding, checking and the JSON schema of the whole;
knows no job type and no store.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from milepost.core.encoding import from_json, to_json
from milepost.core.errors import InvalidInput
from milepost.worker.readers import Reader, object_schema, plain, read_object, reader_of


class Parameters:
    """What a handler takes beside its Run. Made by `parameters_of`."""

    def __init__(self, readers: dict[str, Reader], defaults: dict[str, Any], positional: tuple[str, ...]) -> None:
        self.required = [name for name in readers if name not in defaults]
        self.secrets = tuple(name for name, reader in readers.items() if reader.secret)
        self._readers = readers
        self._positional = positional
        shown = {name: dict(reader.schema) for name, reader in readers.items()}
        definitions: dict[str, Any] = {}
        for name, schema in shown.items():
            definitions.update(schema.pop("$defs", {}))
            if name in defaults and name not in self.secrets:
                schema["default"] = from_json(to_json(plain(defaults[name]), name))
        self.schema = object_schema(shown, self.required)
        if definitions:
            self.schema["$defs"] = definitions

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The values by name, as a call of the handler would bind them. Raises InvalidInput."""
        if len(args) > len(self._positional):
            raise InvalidInput(
                "params", f"{len(args)} values without a name; the handler takes {len(self._positional)}"
            )
        given = dict(zip(self._positional, args, strict=False))
        for name in kwargs:
            if name in given:
                raise InvalidInput(name, "is given twice")
        return {**given, **kwargs}

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values in their plain form, as they are stored. Raises InvalidInput that names the parameter."""
        if not self._readers and not given:
            return {}
        values: dict[str, Any] = {name: from_json(to_json(plain(value), name)) for name, value in given.items()}
        read_object(values, self._readers, self.required, "")
        return values

    def read(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The values as the handler takes them. Raises InvalidInput that names the parameter."""
        return read_object(stored, self._readers, self.required, "")

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in their order."""
        return tuple(self._readers)


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Read the signature of a handler. Raises InvalidInput, with the remedy, for what cannot be a job's parameter."""
    name = getattr(function, "__qualname__", repr(function))
    found = list(inspect.signature(function).parameters.values())
    if not found or not _is_run(found[0]):
        raise InvalidInput(
            "handler", f"{name}: the first parameter is the Run; write def {function.__name__}(run: Run, ...)"
        )
    hints = _hints(function, found[1:])
    readers: dict[str, Reader] = {}
    defaults: dict[str, Any] = {}
    for parameter in found[1:]:
        where = f"{name}({parameter.name})"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise InvalidInput(where, f"{parameter} has no schema; give each parameter a name and a type")
        if parameter.name not in hints:
            raise InvalidInput(where, f"has no type; annotate it, as in {parameter.name}: str")
        reader = readers[parameter.name] = reader_of(hints[parameter.name], where)
        if parameter.default is not parameter.empty:
            defaults[parameter.name] = parameter.default
            try:
                reader.read(from_json(to_json(plain(parameter.default), where)), where)
            except InvalidInput as problem:
                remedy = " | None" if parameter.default is None else ""
                raise InvalidInput(
                    where, f"its default is not of its type: {problem.problem}{remedy and '; append ' + remedy}"
                ) from None
    positional = tuple(p.name for p in found[1:] if p.kind is p.POSITIONAL_OR_KEYWORD)
    return Parameters(readers, defaults, positional)


def _is_run(parameter: inspect.Parameter) -> bool:
    from milepost.tracking.run import Run

    kind = parameter.annotation
    if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
        return False
    if isinstance(kind, str):
        return kind.rpartition(".")[2] == "Run"
    return kind is parameter.empty or (isinstance(kind, type) and issubclass(Run, kind))


def _hints(function: Callable[..., Any], wanted: list[inspect.Parameter]) -> dict[str, Any]:
    """The types of the parameters. The Run and the return value are not looked at: they may be known to type checkers only."""

    def bare() -> None: ...

    bare.__annotations__ = {p.name: p.annotation for p in wanted if p.annotation is not p.empty}
    inner = inspect.unwrap(function)
    try:
        return typing.get_type_hints(bare, getattr(inner, "__globals__", {}), include_extras=True)
    except NameError as error:
        raise InvalidInput(
            getattr(function, "__qualname__", "handler"),
            f"an annotation cannot be read: {error}; import the type at the top of the module, not only for type checkers",
        ) from None
