"""The state of a loop: values that are saved together with its cursor, so that the next attempt continues with both.

State is restored when its loop is entered. A snapshot is taken only between two items, by the thread of the loop, so no
item is counted twice or in part.
"""

from __future__ import annotations

import dataclasses
import time
import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import KIB
from milepost.run import typed_values
from milepost.run.job_result import is_model
from milepost.run.typed_values import Codec, fields_of

S = TypeVar("S")

STATE_BYTES = 256 * KIB
BYTES_PER_SECOND = 64 * KIB
"""How often a snapshot is taken depends on its size; small ones are taken with each heartbeat."""


class State:
    """The state of `run.state(words=0)`: its values are attributes of plain JSON types."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment] # it is mutable

    def __repr__(self) -> str:
        return f"State({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


class StateBinding:
    """One state of a run: the object that its code has, and how its values are encoded and decoded."""

    def __init__(self, target: Any, version: int) -> None:
        if isinstance(version, bool) or not isinstance(version, int):
            raise InvalidInputError("version", f"{version!r:.40} must be a whole number")
        self.target = target
        self.version = version
        self.is_open = False
        """Whether a loop with this state is under way."""
        kind = type(target)
        self._fields: dict[str, Codec] | None = None
        self._model = kind if is_model(kind) else None
        if dataclasses.is_dataclass(kind):
            if kind.__dataclass_params__.frozen:  # type: ignore[attr-defined] # every dataclass has them
                raise InvalidInputError("state", f"{kind.__name__} is frozen; state is changed in place")
            self._fields = fields_of(kind)

    @classmethod
    def make(cls, kind: Any, version: int, values: dict[str, Any]) -> StateBinding:
        """Return the binding of a new state. `kind` is a dataclass, a TypedDict or a model, or None for plain values."""
        if kind is None:
            if not values:
                raise InvalidInputError("state", "has no values; write run.state(words=0), or give a dataclass")
            return cls(State(**values), version)
        if typing.is_typeddict(kind):
            binding = cls(dict(values), version)
            binding._fields = fields_of(kind)
            return binding
        if not isinstance(kind, type) or not (dataclasses.is_dataclass(kind) or is_model(kind)):
            raise InvalidInputError(
                "state", f"{kind!r:.80} is not a dataclass, a TypedDict or a model; write run.state(words=0)"
            )
        try:
            return cls(kind(**values), version)
        except TypeError as error:
            raise InvalidInputError(
                "state", f"{error}; give its values, as in run.state({kind.__name__}, ...)"
            ) from None

    def dump(self) -> str:
        """Return the values as text from which they are decoded unchanged. Raises InvalidInputError for other values."""
        values = self._values()
        if self._model is not None:
            text = typed_values.encode(self.target.model_dump(mode="json"), "state")
            if self._model.model_validate(typed_values.decode(text)) != self.target:
                raise InvalidInputError("state", f"{self._model.__name__} would not come back equal from its JSON")
            return text
        if self._fields is None:
            return typed_values.encode(values, "state")
        dumped = {name: self._dump_field(name, value) for name, value in values.items()}
        return typed_values.encode(dumped, "state")

    def _dump_field(self, name: str, value: Any) -> Any:
        assert self._fields is not None, "called for declared fields"
        codec = self._fields.get(name)
        if codec is None:
            raise InvalidInputError(f"state.{name}", f"is not declared; there are: {', '.join(self._fields)}")
        try:
            dumped = codec.dump(value)
            back = codec.load(typed_values.decode(typed_values.encode(dumped, f"state.{name}")))
        except InvalidInputError:
            raise
        except Exception as error:  # noqa: BLE001 - a value of any type may stand where another one was declared
            raise InvalidInputError(
                f"state.{name}", f"{type(value).__name__} is not of the declared type: {error}"
            ) from None
        if not typed_values.equal(value, back):
            raise InvalidInputError(
                f"state.{name}", f"{type(value).__name__} would come back as {back!r:.60}; give it the declared type"
            )
        return dumped

    def restore(self, text: str) -> None:
        """Set the values of a snapshot. A field that the snapshot lacks keeps its initial value."""
        stored = typed_values.decode(text)
        if self._model is not None:
            merged = self._model.model_validate({**self.target.model_dump(mode="json"), **stored})
            for name in self._model.model_fields:
                setattr(self.target, name, getattr(merged, name))
            return
        if self._fields is not None:
            stored = {name: self._fields[name].load(value) for name, value in stored.items() if name in self._fields}
        values = self._values()
        for name, value in stored.items():
            new = _into(values.get(name), value)
            if isinstance(self.target, dict):
                self.target[name] = new
            else:
                setattr(self.target, name, new)

    def _values(self) -> dict[str, Any]:
        if isinstance(self.target, dict):
            return dict(self.target)
        if self._fields is not None:
            return {name: getattr(self.target, name) for name in self._fields}
        return dict(vars(self.target))


class Snapshots:
    """The snapshots of a run's states, each with the cursor of its loop: one per finished loop and one per active loop."""

    def __init__(self) -> None:
        self.error: str | None = None
        """Why the last snapshot is not the newest."""
        self._kept: dict[str, dict[str, Any]] = {}
        self._sizes: dict[str, int] = {}
        self._next_at: dict[str, float] = {}

    def is_due(self, name: str) -> bool:
        """Return whether the loop of this name should take a snapshot."""
        return time.monotonic() >= self._next_at.get(name, 0.0)

    def put(self, name: str, cursor: dict[str, Any], values: str) -> bool:
        """Replace the snapshot of a loop; return whether all snapshots are within their size limit."""
        size = typed_values.size_of(values)
        whole = sum(self._sizes.values()) - self._sizes.get(name, 0) + size
        self._next_at[name] = time.monotonic() + size / BYTES_PER_SECOND
        if whole > STATE_BYTES:
            self.error = f"{whole} bytes of state, the limit is {STATE_BYTES}; the last snapshot before that is kept"
            return False
        self.error = None
        self._kept[name] = {**cursor, "state": values}
        self._sizes[name] = size
        return True

    def amend(self, name: str, cursor: dict[str, Any]) -> None:
        """Add to the latest snapshot of a loop what identifies its item, if it has the same position as the cursor."""
        kept = self._kept.get(name)
        if kept is not None and kept["n"] == cursor["item"][0]:
            self._kept[name] = {**kept, **cursor}

    def take_over(self, name: str, kept: dict[str, Any]) -> None:
        """Keep the snapshot of an earlier attempt until the loop takes its own."""
        self._kept[name] = kept
        self._sizes[name] = typed_values.size_of(kept["state"])

    def drop(self, names: Iterable[str]) -> None:
        """Drop the snapshots of loops whose items are done."""
        for name in names:
            self._kept.pop(name, None)
            self._sizes.pop(name, None)

    def all(self) -> dict[str, dict[str, Any]]:
        """Return the snapshots by the names of their loops."""
        return dict(self._kept)


def _into(old: Any, new: Any) -> Any:
    """Return a restored value, inside the container that the code may already hold."""
    if type(old) is not type(new):
        return new
    if isinstance(new, dict):
        before = dict(old)
        old.clear()
        for key, value in new.items():
            old[key] = _into(before.get(key), value)
        return old
    if isinstance(new, list):
        old[:] = new
        return old
    if isinstance(new, set):
        old.clear()
        old.update(new)
        return old
    return new
