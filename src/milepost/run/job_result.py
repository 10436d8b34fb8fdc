"""The result of a run in the form in which its record keeps it: as JSON, or as text with the reason why it is not JSON.

Values that are not JSON types are converted, the others named with the remedy. Most results are JSON types already, and the
encoder writes them at once; only for the others is each part visited.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections import deque
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import (
    ERROR_BYTES,
    JSON_DEPTH,
    MESSAGE_BYTES,
    RESULT_BYTES,
    convert,
    equal_keys_error,
    printable,
    safe_str,
    single_line,
    to_json,
)
from milepost.run.crash_report import redacted

if TYPE_CHECKING:
    from milepost.run.run import Run

TEXT_BYTES = ERROR_BYTES
MARGIN = 1024
"""Characters of a text that is cut which are left out as well, because a secret may be cut there."""


class JobResult(NamedTuple):
    """The result of a run: JSON, or `error` and `text` if it could not be stored as JSON."""

    json: str | None = None
    error: str | None = None
    text: str | None = None


NO_RESULT = JobResult()


def job_result(value: Any, run: Run) -> JobResult:
    """Return what the code of a run has returned, and log what was lost. Never raises.

    Call it while the heartbeat still reports the run, so that the log line arrives and the lease is renewed.
    """
    if value is None:
        return NO_RESULT
    try:
        text, nulls = result_json(value)
    except InvalidInputError as refused:
        problem = str(refused)
    except Exception as error:  # noqa: BLE001 - code of the values may raise anything
        problem = f"result: its conversion to JSON raised {type(error).__name__}: {safe_str(error)}; {CONVERT}"
    else:
        if nulls:
            others = f" and {len(nulls) - 1} more" if len(nulls) > 1 else ""
            run.log(f"stored as null, because JSON has no NaN or infinity: {nulls[0]}{others}", "warning")
        return JobResult(text)
    problem = single_line(redacted(problem, run), MESSAGE_BYTES)
    run.log(f"result not stored: {problem}", "warning")
    return JobResult(error=problem, text=_text(value, run))


def _text(value: Any, run: Run) -> str:
    """Return the redacted repr of a result, cut with a mark."""
    margin = max([MARGIN, *map(len, run._secret_values)])
    raw = bounded_repr(value, TEXT_BYTES + margin)
    shown = redacted(raw, run)
    if len(raw) == TEXT_BYTES + margin:
        shown = shown[: max(0, len(shown) - margin)] + "..."
    return printable(shown, TEXT_BYTES)


CONVERT = "convert it to str, int, float, bool, None, list or dict"
_REMEDIES: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (lambda value: isinstance(value, Iterator), "return list(...) of it"),
    (lambda value: isinstance(value, bytes | bytearray | memoryview), "decode it, or write it to a file and return the path"),
    (lambda value: hasattr(value, "__await__"), "await it"),
    (lambda value: hasattr(value, "to_dict"), "return what its to_dict() returns"),
    (lambda value: hasattr(value, "tolist"), "return what its tolist() returns"),
    (lambda value: True, CONVERT),
)  # fmt: skip


def result_json(value: Any) -> tuple[str, list[str]]:
    """Return a result as JSON, and the paths of its NaN, infinite and missing values, which become null.

    Models, dataclasses, enums, times, UUID, Path, Decimal, sets, tuples, and scalars and arrays of numpy and pandas are
    converted. Raises InvalidInputError, with the path and the remedy, for other values and for more than 1 MiB. Code of
    the values may raise anything.
    """
    try:
        return to_json(value, "result", RESULT_BYTES), []
    except Exception:  # noqa: BLE001 - mappings and dataclasses run code of the user
        conversion = _Conversion()
        return to_json(conversion.plain(value, "result", 0), "result", RESULT_BYTES), conversion.nulls


def is_model(kind: Any) -> bool:
    """Return whether a type is a pydantic model."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _remedy(value: Any) -> str:
    """Return what to do about a value that is not JSON-serialisable."""
    return next(remedy for applies, remedy in _REMEDIES if applies(value))


class _Conversion:
    """Converts one result to JSON types."""

    def __init__(self) -> None:
        self.nulls: list[str] = []
        self._left = RESULT_BYTES // 2  # each part has at least one character, and a separator

    def plain(self, value: Any, path: str, depth: int) -> Any:
        """Return a value as JSON types. Raises InvalidInputError."""
        if depth > JSON_DEPTH:
            raise InvalidInputError(path, f"is nested deeper than {JSON_DEPTH} levels; flatten it")
        self._spend(1)
        if value is None or (isinstance(value, bool | int | str) and not isinstance(value, Enum)):
            return value
        if isinstance(value, float):
            return self._finite(float(value), path)
        if _is_missing(value):
            self.nulls.append(path)
            return None
        if isinstance(value, Mapping):
            return self._object(value.items(), path, depth)
        if isinstance(value, list | tuple | deque | range | KeysView | ValuesView | ItemsView):
            return self._list(value, path, depth)
        if isinstance(value, set | frozenset):
            return self._list(sorted(value, key=str), path, depth)
        if is_model(type(value)):
            return self.plain(self._dumped(value, path, depth), path, depth + 1)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            own = [(one.name, getattr(value, one.name)) for one in dataclasses.fields(value)]
            return self._object(own, path, depth)
        return self._leaf(value, path, depth)

    def _dumped(self, model: Any, path: str, depth: int) -> Any:
        """Return what a pydantic model is as JSON. Raises InvalidInputError for the first field that has no JSON form."""
        try:
            return model.model_dump(mode="json")
        except Exception as error:  # noqa: BLE001 - serialisers of the user may raise anything
            self._object(model, path, depth)  # names the field, if that is the reason
            name, why = type(model).__name__, single_line(error, ERROR_BYTES)
            raise InvalidInputError(path, f"{name}.model_dump() failed ({why}); give the field a serializer") from None

    def _leaf(self, value: Any, path: str, depth: int) -> Any:
        numpy = sys.modules.get("numpy")
        if isinstance(value, timedelta):
            return value.total_seconds()
        if numpy is not None and isinstance(value, numpy.generic | numpy.ndarray):
            self._spend(value.size)
            return self.plain(_of_numpy(value, path), path, depth)
        try:
            return self.plain(convert(value), path, depth + 1)
        except TypeError:
            name = type(value).__name__
            raise InvalidInputError(path, f"{name} is not JSON-serialisable; {_remedy(value)}") from None

    def _list(self, values: Iterable[Any], path: str, depth: int) -> list[Any]:
        return [self.plain(value, f"{path}[{position}]", depth + 1) for position, value in enumerate(values)]

    def _object(self, entries: Iterable[tuple[Any, Any]], path: str, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in entries:
            name = self._key(key, path)
            if name in made:
                raise equal_keys_error(path, name)
            made[name] = self.plain(value, f"{path}.{name}", depth + 1)
        return made

    def _key(self, key: Any, path: str) -> str:
        """Return a key as JSON writes it."""
        if isinstance(key, str) and not isinstance(key, Enum):
            return key
        plain = self.plain(key, f"{path} (key)", 0)
        if isinstance(plain, str):
            return plain
        if isinstance(plain, list | dict) or (plain is None and key is not None):
            raise InvalidInputError(path, f"key {safe_str(key)!r} is of type {type(key).__name__}; use a str")
        return to_json(plain, path)

    def _finite(self, number: float, path: str) -> float | None:
        if math.isfinite(number):
            return number
        self.nulls.append(path)
        return None

    def _spend(self, parts: int) -> None:
        self._left -= parts
        if self._left < 0:
            raise InvalidInputError(
                "result", f"more than {RESULT_BYTES} bytes of JSON; store the data elsewhere and return a reference"
            )


def _is_missing(value: Any) -> bool:
    """Return whether a value is pandas' NA or NaT, or numpy's NaT."""
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if pandas is not None and (value is pandas.NA or value is pandas.NaT):
        return True
    return numpy is not None and isinstance(value, numpy.datetime64 | numpy.timedelta64) and bool(numpy.isnat(value))


def _of_numpy(value: Any, path: str) -> Any:
    """Return a scalar or an array of numpy with one level less of it."""
    numpy, kind = sys.modules["numpy"], value.dtype.kind
    if isinstance(value, numpy.ndarray):
        return value[()] if value.ndim == 0 else list(value) if kind in "mM" else value.tolist()
    if kind == "M":
        return str(value)
    if isinstance(value, numpy.longdouble):
        return float(value)
    found = (value.astype("timedelta64[us]") if kind == "m" else value).item()
    if isinstance(found, numpy.generic):
        raise InvalidInputError(path, f"{type(value).__name__} is not JSON-serialisable; {CONVERT}")
    return found


MAX_LEVELS = 64


def bounded_repr(value: Any, limit: int) -> str:
    """Return the first `limit` characters of `repr(value)`. Never raises."""
    writer = _Writer(limit)
    writer.write(value, 0)
    return "".join(writer.parts)[:limit]


class _Writer:
    """Writes the repr of containers part by part, until the limit is reached."""

    def __init__(self, limit: int) -> None:
        self.parts: list[str] = []
        self._left = limit

    def write(self, value: Any, level: int) -> None:
        """Write a value."""
        kind = type(value)
        if level > MAX_LEVELS:
            self._add("...")
        elif kind is dict:
            self._all("{", value.items(), "}", level, pairs=True)
        elif kind is list:
            self._all("[", value, "]", level)
        elif kind is tuple:
            self._all("(", value, ",)" if len(value) == 1 else ")", level)
        elif kind in (set, frozenset) and value:
            head, tail = ("{", "}") if kind is set else ("frozenset({", "})")
            self._all(head, value, tail, level)
        else:
            self._add(_repr(value[: self._left + 1] if kind in (str, bytes) else value))

    def _all(self, head: str, values: Iterable[Any], tail: str, level: int, *, pairs: bool = False) -> None:
        self._add(head)
        for position, value in enumerate(values):
            if self._left <= 0:
                return
            if position:
                self._add(", ")
            if pairs:
                self.write(value[0], level + 1)
                self._add(": ")
                value = value[1]
            self.write(value, level + 1)
        self._add(tail)

    def _add(self, text: str) -> None:
        self.parts.append(text[: self._left + 1])
        self._left -= len(text)


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - any user object may stand here
        return f"<{type(value).__name__} whose repr() raised {type(error).__name__}>"
