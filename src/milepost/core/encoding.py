"""How values become text and come back: JSON in plain forms, one-line texts, ids, times. Knows no job and no store.

User JSON is encoded once, here, and from then on carried as text: no store decodes it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import unicodedata
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any

from milepost.core.errors import InvalidInput

KIB = 1024
MESSAGE_BYTES = KIB
ERROR_BYTES = 8 * KIB
FAILURE_BYTES = 64 * KIB
INPUT_BYTES = 64 * KIB
RESULT_BYTES = 1024 * KIB
CHECKPOINT_BYTES = 256 * KIB
JSON_DEPTH = 64
LABELS_MAX = 16
LABEL_CHARS = 128

JOB_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
JOB_TYPE = re.compile(r"[A-Za-z0-9._:/-]{1,128}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# --- JSON -----------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Give the plain form of what JSON has no word for, or raise TypeError."""
    if isinstance(value, datetime | date | clock_time):
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
        return value.item()
    raise TypeError(f"{type(value).__name__} has no plain form")


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)


def to_json(value: Any, field: str, limit: int = INPUT_BYTES) -> str:
    """Encode a value as compact JSON text of at most `limit` bytes.

    Dates, Path, UUID, Decimal, Enum, set, tuple, dataclass and numpy scalars are written in their plain form.
    Raises InvalidInput, naming the path inside `field` and the remedy, for what has none, for NaN and infinities,
    lone surrogates, nesting deeper than 64, and texts over the limit.
    """
    try:
        text = _encoder.encode(value)
        size = len(text) if text.isascii() else len(text.encode())
    except (TypeError, ValueError, RecursionError):
        raise _explain(value, field, 0) or InvalidInput(field, "cannot be written as JSON") from None
    if size > limit:
        raise InvalidInput(
            field, f"{size} bytes of JSON, the limit is {limit}; store it elsewhere and keep a reference"
        )
    if text.count("[") + text.count("{") > JSON_DEPTH:
        deep = _explain(value, field, 0)
        if deep is not None:
            raise deep
    return text


def _explain(value: Any, path: str, depth: int) -> InvalidInput | None:
    """Find the first place inside a value that JSON cannot carry."""
    if depth > JSON_DEPTH:
        return InvalidInput(path, f"nests deeper than {JSON_DEPTH}; flatten it")
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            return InvalidInput(path, "holds a lone surrogate; decode the text with errors='replace'")
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else InvalidInput(path, f"{value} is not JSON; use None")
    if value is None or isinstance(value, bool | int):
        return None
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str | int | float | bool | None):
                return InvalidInput(path, f"key {key!r:.60} is a {type(key).__name__}; keys must be text")
            problem = _explain(key, f"{path} (key)", depth) or _explain(inner, f"{path}.{key}", depth + 1)
            if problem is not None:
                return problem
        return None
    if isinstance(value, list | tuple | set | frozenset):
        for position, inner in enumerate(value):
            problem = _explain(inner, f"{path}[{position}]", depth + 1)
            if problem is not None:
                return problem
        return None
    try:
        return _explain(_plain(value), path, depth + 1)
    except TypeError:
        return InvalidInput(
            path, f"{type(value).__name__} has no plain form; convert it to text, numbers, lists or dicts"
        )


def from_json(text: str) -> Any:
    """Decode JSON text. Raises ValueError for what is not JSON (NaN and infinities included)."""
    return _decoder.decode(text)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


# --- texts for people -----------------------------------------------------------------------------------------


def one_line(text: object, limit: int = MESSAGE_BYTES) -> str:
    """Make a text for people: one line, no control characters or surrogates, cut to `limit` bytes with `...`.

    Never refuses: an error path that raises would leave its job running. An object whose `str()` raises is named.
    """
    shown = text if isinstance(text, str) else safe_str(text)
    if not shown.isprintable():
        shown = _CONTROL.sub(lambda m: "\ufffd" if m[0] >= "\ud800" else " ", shown)
    return cut(shown, limit)


def safe_str(value: object) -> str:
    """`str(value)`, or a description when that raises."""
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - any user object may stand here, and its text must never fail a job
        return f"<{type(value).__name__} whose str() raised {type(error).__name__}>"


def printable(text: str, limit: int = FAILURE_BYTES) -> str:
    """A text of several lines (a traceback) without surrogates and NUL, cut to `limit` bytes."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return cut(text.replace("\x00", "\ufffd"), limit)


def cut(text: str, limit: int) -> str:
    """Cut a text to `limit` bytes of UTF-8, ending in `...`, never inside a character."""
    if len(text) * 4 <= limit:
        return text
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit:
        return text
    return raw[: limit - 3].decode("utf-8", "ignore") + "..."


# --- names ----------------------------------------------------------------------------------------------------


def job_id_text(job_id: object) -> str:
    """Check a job id against ``[A-Za-z0-9._:-]{1,128}``. Raises InvalidInput."""
    if not isinstance(job_id, str) or not JOB_ID.match(job_id):
        raise InvalidInput("job_id", f"{job_id!r:.80} must be 1 to 128 of A-Z a-z 0-9 . _ : -")
    return job_id


def job_type_text(job_type: object) -> str:
    """Check a job type against ``[A-Za-z0-9._:/-]{1,128}``. Raises InvalidInput."""
    if not isinstance(job_type, str) or not JOB_TYPE.match(job_type):
        raise InvalidInput("job_type", f"{job_type!r:.80} must be 1 to 128 of A-Z a-z 0-9 . _ : / -")
    return job_type


def key_text(key: object, field: str = "unique_key", limit: int = 512) -> str:
    """Check a unique key: text without control characters, 1 to `limit` bytes. Raises InvalidInput."""
    if not isinstance(key, str) or not key or len(key.encode("utf-8", "replace")) > limit or _CONTROL.search(key):
        raise InvalidInput(field, f"{key!r:.80} must be 1 to {limit} bytes of text without control characters")
    return key


def labels_text(labels: Mapping[str, str] | None) -> str:
    """Write labels as ``k=v`` joined by the unit separator, sorted. Raises InvalidInput.

    Up to 16 pairs; keys of ``[A-Za-z0-9._-]``, values any text without control characters, each up to 128 characters.
    """
    if not labels:
        return ""
    if not isinstance(labels, Mapping):
        raise InvalidInput("labels", "must be a mapping of text to text")
    if len(labels) > LABELS_MAX:
        raise InvalidInput("labels", f"{len(labels)} pairs, the limit is {LABELS_MAX}")
    pairs = []
    for key, value in labels.items():
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", key):
            raise InvalidInput("labels", f"key {key!r:.60} must be 1 to 128 of A-Z a-z 0-9 . _ -")
        if not isinstance(value, str) or len(value) > LABEL_CHARS or _CONTROL.search(value):
            raise InvalidInput(f"labels.{key}", f"must be text of at most {LABEL_CHARS} characters, one line")
        pairs.append(f"{key}={value}")
    return "\x1f".join(sorted(pairs))


def labels_dict(text: str) -> dict[str, str]:
    """Read labels written by `labels_text`."""
    return dict(pair.split("=", 1) for pair in text.split("\x1f")) if text else {}


def fold(text: str) -> str:
    """Fold a text for comparison without case or composition."""
    return unicodedata.normalize("NFKC", text).casefold()


# --- times ----------------------------------------------------------------------------------------------------


def moment(micros: int) -> datetime:
    """The UTC datetime of a number of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=micros)


def micros(value: datetime, field: str) -> int:
    """Microseconds since 1970 of a timezone-aware datetime. Raises InvalidInput for a naive one."""
    if not isinstance(value, datetime):
        raise InvalidInput(field, f"{value!r:.60} is not a datetime")
    if value.tzinfo is None:
        raise InvalidInput(field, "a naive datetime has no moment; give it a timezone, as in datetime.now(UTC)")
    return (value - _EPOCH) // timedelta(microseconds=1)


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def seconds(value: float | timedelta | str, field: str) -> float:
    """A duration in seconds from a number of seconds, a timedelta or text such as ``"1h30m"``.

    Raises InvalidInput for what is none of these, negative or not finite.
    """
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, bool):
        raise InvalidInput(field, "a bool is not a duration")
    elif isinstance(value, int | float):
        number = float(value)
    elif isinstance(value, str):
        text = value.strip().lower()
        parts = _DURATION.findall(text)
        if parts and "".join(n + u for n, u in parts) == text:
            number = sum(float(n) * _UNITS[u] for n, u in parts)
        else:
            try:
                number = float(text)
            except ValueError:
                raise InvalidInput(
                    field, f"{value!r:.40} is not a duration; write 90, '90s', '2h' or '1h30m'"
                ) from None
    else:
        raise InvalidInput(field, f"{value!r:.40} is not a duration; write 90, '90s', '2h' or '1h30m'")
    if not math.isfinite(number) or not 0 <= number <= 100 * 366 * 86400:
        raise InvalidInput(field, f"{value!r:.40} must be between 0 and 100 years")
    return number
