"""Serialise and validate values: JSON, single-line texts, ids, labels, times, durations.

User JSON is encoded once, here, and then carried as text: no store decodes it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import re
import unicodedata
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeGuard

from milepost.core.errors import InvalidInputError, JobNotFoundError

US, RS = "\x1f", "\x1e"
"""The separators between the parts of a line, and between the lines, of a field that is a table."""

KIB = 1024
MESSAGE_BYTES = KIB
ERROR_BYTES = 8 * KIB
FAILURE_BYTES = 64 * KIB
INPUT_BYTES = 64 * KIB
PARAMS_BYTES = 1024 * KIB
RESULT_BYTES = 1024 * KIB
CHECKPOINT_BYTES = 256 * KIB
JSON_DEPTH = 64
MAX_NUMBER = 1e300
"""Larger integers have no float."""
LABELS_MAX = 16
LABEL_CHARS = 128

JOB_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
JOB_TYPE = re.compile(r"[A-Za-z0-9._:/-]{1,128}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# --- JSON -----------------------------------------------------------------------------------------------------


def convert(value: Any) -> Any:
    """Convert a value of another type to a JSON type. Raises TypeError if there is no conversion."""
    if isinstance(value, datetime | date | clock_time) and value == value:
        return value.isoformat()
    if isinstance(value, PurePath | uuid.UUID | Decimal):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if type(value).__module__ == "numpy" and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        if value.dtype.kind not in "mM":
            return value.item()
        if value.dtype.kind == "M" and value == value:
            return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON-serialisable")


def finite_number(value: object) -> int | float | None:
    """Return a number as int or float, also one of numpy or a Decimal; None for anything else, NaN and infinities."""
    if type(value) is float or type(value) is int:  # the usual case, without look-ups of abstract classes
        number: int | float = value
    elif isinstance(value, bool):
        return None
    else:
        if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
            value = value.item()  # type: ignore[attr-defined] # of scalars, also of `numpy.bool`
        if isinstance(value, numbers.Integral):
            number = int(value)
        elif isinstance(value, numbers.Real | Decimal):
            number = float(value)
        else:
            return None
    return number if abs(number) <= MAX_NUMBER else None  # false for NaN


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=convert)


compact_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
"""Encode JSON types that need no conversion and no limit. Raises ValueError for NaN and infinities."""


def to_json(value: Any, field: str, limit: int = INPUT_BYTES) -> str:
    """Return a value as compact JSON of at most `limit` bytes.

    Dates, Path, UUID, Decimal, Enum, set, tuple, dataclass and numpy scalars are converted. Raises InvalidInputError,
    naming the path inside `field`, for other types, keys that are the same in JSON (1 and "1"), NaN, infinities, lone
    surrogates, nesting deeper than 64, and larger texts.
    """
    try:
        text = _encoder.encode(value)
        size = len(text) if text.isascii() else len(text.encode())
        if _NO_TEXT_KEY.search(text):
            _checked_decoder.decode(text)
    except (TypeError, ValueError, RecursionError) as error:  # such as a number of more digits than Python writes
        raise _explain(value, field, 0) or InvalidInputError(field, f"is not JSON-serialisable: {error}") from None
    if size > limit:
        raise InvalidInputError(
            field, f"{size} bytes of JSON, the limit is {limit}; store the data elsewhere and pass a reference"
        )
    if text.count("[") + text.count("{") > JSON_DEPTH:
        deep = _explain(value, field, 0)
        if deep is not None:
            raise deep
    return text


_NO_TEXT_KEY = re.compile(r'[{,]"(?:-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?|true|false|null)":')
"""Finds the keys in JSON that may have been no texts; most values have none, and need not be read again."""


def _different(pairs: list[tuple[str, Any]]) -> None:
    """Raise ValueError if two keys of an object are the same."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("two keys are the same in JSON")


_checked_decoder = json.JSONDecoder(object_pairs_hook=_different)


def _equal_key(value: Mapping[Any, Any]) -> str | None:
    """Return the first name that two keys of a mapping have in JSON, or None."""
    names: set[str] = set()
    for key in value:
        name = str.__str__(key) if isinstance(key, str) else _encoder.encode(key)
        if name in names:
            return name
        names.add(name)
    return None


def _explain(value: Any, path: str, depth: int) -> InvalidInputError | None:
    """Return the error for the first part of a value that is not JSON-serialisable, or None."""
    if depth > JSON_DEPTH:
        return InvalidInputError(path, f"is nested deeper than {JSON_DEPTH} levels; flatten it")
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            return InvalidInputError(path, "contains a lone surrogate; decode the text with errors='replace'")
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else InvalidInputError(path, f"{value} is not JSON; use None")
    if value is None or isinstance(value, bool | int):
        return None
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str | int | float | bool | None):
                return InvalidInputError(path, f"key {key!r:.60} is of type {type(key).__name__}; use a str")
            problem = _explain(key, f"{path} (key)", depth) or _explain(inner, f"{path}.{key}", depth + 1)
            if problem is not None:
                return problem
        equal = _equal_key(value)
        return None if equal is None else equal_keys_error(path, equal)
    if isinstance(value, list | tuple | set | frozenset):
        for position, inner in enumerate(value):
            problem = _explain(inner, f"{path}[{position}]", depth + 1)
            if problem is not None:
                return problem
        return None
    try:
        return _explain(convert(value), path, depth + 1)
    except TypeError:
        return InvalidInputError(
            path,
            f"{type(value).__name__} is not JSON-serialisable; convert it to str, int, float, bool, None, list or dict",
        )


def equal_keys_error(path: str, name: str) -> InvalidInputError:
    """Return the error for two keys that are the same in JSON, such as 1 and "1"."""
    return InvalidInputError(path, f"two keys are {name!r} in JSON; use different ones")


def from_json(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError if it is not JSON (NaN and infinities included)."""
    return _decoder.decode(text)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


# --- texts for people -----------------------------------------------------------------------------------------


def single_line(text: object, limit: int = MESSAGE_BYTES) -> str:
    """Return text for display: one line, no control characters or surrogates, truncated to `limit` bytes with `...`.

    Never raises, because an error path that raises would leave its job running.
    """
    shown = text if isinstance(text, str) else safe_str(text)
    if not shown.isprintable():
        shown = _CONTROL.sub(lambda m: "\ufffd" if m[0] >= "\ud800" else " ", shown)
    return truncate(shown, limit)


def wrong_type(field: str, value: object, rest: str, limit: int = 80) -> InvalidInputError:
    """Return the error for a value of a wrong type: what it is, and the `rest` of the sentence, with the remedy."""
    return InvalidInputError(field, f"{single_line(repr(value), limit)} is a {type(value).__name__}{rest}")


def safe_str(value: object) -> str:
    """Return `str(value)`, or a description if that raises."""
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - any user object may stand here, and its text must never fail a job
        return f"<{type(value).__name__} whose str() raised {type(error).__name__}>"


def printable(text: str, limit: int = FAILURE_BYTES) -> str:
    """Return a multi-line text (a traceback) without surrogates and NUL, truncated to `limit` bytes."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return truncate(text.replace("\x00", "\ufffd"), limit)


def truncate(text: str, limit: int) -> str:
    """Return a text truncated to `limit` bytes of UTF-8, ending in `...`, never inside a character."""
    if len(text) * 4 <= limit:
        return text
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit:
        return text
    return raw[: limit - 3].decode("utf-8", "ignore") + "..."


# --- names ----------------------------------------------------------------------------------------------------


def is_id(job_id: object) -> TypeGuard[str]:
    """Return whether a job can have this id."""
    return isinstance(job_id, str) and JOB_ID.match(job_id) is not None


def validate_job_id(job_id: object) -> str:
    """Return a job id if it matches ``[A-Za-z0-9._:-]{1,128}``. Raises InvalidInputError."""
    if not is_id(job_id):
        raise InvalidInputError("job_id", f"{job_id!r:.80} must be 1 to 128 of the characters A-Z a-z 0-9 . _ : -")
    return job_id


CHILD_ID = re.compile(r"[A-Za-z0-9._:-]{1,40}\.[A-Za-z0-9_-]{22}\Z")
"""The ids of jobs that runs make, see `milepost.run.children`."""


def validate_new_id(job_id: object) -> str:
    """Return an id for a new job of a caller. Raises InvalidInputError, also for one that has the form of a child's."""
    valid = validate_job_id(job_id)
    if CHILD_ID.match(valid):
        raise InvalidInputError(
            "job_id", f"{valid!r:.80} has the form of the id of a child; omit the dot, or use another length"
        )
    return valid


def known_id(job_id: str) -> str:
    """Return a valid id. Raises JobNotFoundError for one that no job can have, and InvalidInputError for what is no text."""
    if not may_be_id(job_id):
        raise JobNotFoundError(single_line(job_id, 200))
    return job_id


def may_be_id(job_id: object) -> TypeGuard[str]:
    """Return whether a job can have this id. Raises InvalidInputError for what is no text, such as a Job; None is no id."""
    if job_id is not None and not isinstance(job_id, str):
        remedy = "pass its job_id" if hasattr(job_id, "job_id") else "pass the id of a job"
        raise wrong_type("job_id", job_id, f", not a str; {remedy}")
    return is_id(job_id)


def validate_job_type(job_type: object) -> str:
    """Return a job type if it matches ``[A-Za-z0-9._:/-]{1,128}``. Raises InvalidInputError."""
    if not isinstance(job_type, str) or not JOB_TYPE.match(job_type):
        raise InvalidInputError(
            "job_type", f"{job_type!r:.80} must be 1 to 128 of the characters A-Z a-z 0-9 . _ : / -"
        )
    return job_type


def validate_key(key: object, field: str = "unique_key", limit: int = 512) -> str:
    """Return a key if it is text of 1 to `limit` bytes without control characters. Raises InvalidInputError."""
    if not isinstance(key, str) or not key or len(key.encode("utf-8", "replace")) > limit or _CONTROL.search(key):
        raise InvalidInputError(field, f"{key!r:.80} must be 1 to {limit} bytes of text without control characters")
    return key


def validate_name(name: str, field: str) -> str:
    """Return a name to search for. Raises InvalidInputError for control characters, which no stored name has."""
    if _CONTROL.search(name):
        raise InvalidInputError(field, f"{name!r:.80} must be text without control characters")
    return name


def validate_labels(labels: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return labels, or none for None. Raises InvalidInputError if they are no mapping."""
    if labels and not isinstance(labels, Mapping):
        raise InvalidInputError("labels", 'must be a mapping of str to str, such as {"tenant": "acme"}')
    return labels or {}


def labels_text(labels: Mapping[str, str] | None) -> str:
    """Return labels as sorted ``k=v`` pairs joined by the unit separator. Raises InvalidInputError.

    At most 16 pairs; keys of ``[A-Za-z0-9._-]``, values of any text without control characters, 128 characters each.
    """
    labels = validate_labels(labels)
    if len(labels) > LABELS_MAX:
        raise InvalidInputError("labels", f"{len(labels)} pairs, the limit is {LABELS_MAX}; remove some")
    pairs = []
    for key, value in labels.items():
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", key):
            raise InvalidInputError("labels", f"key {key!r:.60} must be 1 to 128 of the characters A-Z a-z 0-9 . _ -")
        if not isinstance(value, str) or len(value) > LABEL_CHARS or _CONTROL.search(value):
            raise InvalidInputError(f"labels.{key}", f"must be one line of text of at most {LABEL_CHARS} characters")
        pairs.append(f"{key}={value}")
    return US.join(sorted(pairs))


def labels_dict(text: str) -> dict[str, str]:
    """Return the labels that `labels_text` wrote; pairs that begin with a colon are indexed fields."""
    return dict(pair.split("=", 1) for pair in text.split(US) if pair[0] != ":") if text else {}


def fold(text: str) -> str:
    """Return a text normalised for comparison that ignores case and Unicode composition."""
    return unicodedata.normalize("NFKC", text).casefold()


# --- times ----------------------------------------------------------------------------------------------------


def from_micros(micros: int) -> datetime:
    """Return the UTC datetime of a number of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=micros)


def to_micros(value: datetime, field: str) -> int:
    """Return a timezone-aware datetime as microseconds since 1970. Raises InvalidInputError for a naive one."""
    if not isinstance(value, datetime):
        raise InvalidInputError(field, f"{value!r:.60} is not a datetime")
    if value.tzinfo is None:
        raise InvalidInputError(field, "datetime must be timezone-aware, e.g. datetime.now(UTC)")
    return (value - _EPOCH) // timedelta(microseconds=1)


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)")
_DURATIONS = re.compile(r"(?:\d++(?:\.\d++)?+(?:us|ms|s|m|h|d|w))++\Z")
"""One or more durations. It takes no digit back, so that a megabyte of digits is refused in one pass."""
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


Duration = float | timedelta | str
"""Seconds, a timedelta or text such as ``"1h30m"``."""


def seconds(value: Duration, field: str) -> float:
    """Return a duration in seconds, given as a number of seconds, a timedelta or text such as ``"1h30m"``.

    Raises InvalidInputError for anything else, and for negative or infinite durations.
    """
    number: float | None = None
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, bool):
        raise InvalidInputError(field, "a bool is not a duration; use seconds, a timedelta or text such as '1h30m'")
    elif isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    elif isinstance(value, str):
        text = value.strip().lower()
        if _DURATIONS.match(text):
            number = sum(float(n) * _UNITS[u] for n, u in _DURATION.findall(text))
        else:
            with suppress(ValueError):
                number = float(text)
    if number is None:
        raise InvalidInputError(field, f"{value!r:.40} is not a duration; use 90, '90s', '2h' or '1h30m'")
    if not math.isfinite(number) or not 0 <= number <= 100 * 366 * 86400:
        raise InvalidInputError(field, f"{value!r:.40} must be between 0 and 100 years")
    return number
