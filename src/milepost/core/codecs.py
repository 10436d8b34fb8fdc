"""Codecs of the fields of a record: from stored text to a value or to JSON, and from JSON to a value in a client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import StrEnum
from functools import cache, lru_cache
from json.encoder import encode_basestring
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from milepost.core.placement import ANSWER, PAUSED
from milepost.core.resume import repeated
from milepost.core.serialization import US, compact_json, from_json, from_micros, labels_dict
from milepost.core.usage import decode_usage
from milepost.core.values import (
    LARGE_MARK,
    Attempt,
    Eta,
    Failure,
    ItemCounts,
    JobStatus,
    LargeValue,
    Question,
    Receipt,
    Stage,
    WaitingFor,
    attempt_rows,
    attempts_of,
)

Record = Mapping[str, str]

UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
"""The errors that reading a damaged text may raise."""

_quoted: Callable[[str], str] = encode_basestring


@dataclass(frozen=True, slots=True)
class Codec:
    """A form in which fields are stored.

    `read` gives the value of a text, `json` its JSON text without building the value where that is cheaper, and `load`
    the value of what a client has decoded from JSON. `read` and `json` raise one of UNREADABLE for a damaged text.
    """

    read: Callable[[str], Any]
    json: Callable[[str], str]
    load: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True, slots=True)
class Derived:
    """A value that is made of several stored fields; `sources` are those without which it is empty.

    `json` writes its JSON text; by default from the value.
    """

    read: Callable[[Record], Any]
    sources: tuple[str, ...]
    load: Callable[[Any], Any] = lambda value: value
    json: Callable[[Record], str] | None = None


def jsonable(value: Any) -> Any:
    """Return a value of a field in JSON types."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [jsonable(inner) for inner in value]
    if isinstance(value, LargeValue):
        return value.to_dict()
    if isinstance(value, Attempt | Stage | ItemCounts | Eta | Failure | Receipt | WaitingFor | Question):
        return {name: jsonable(inner) for name, inner in asdict(value).items()}
    return value


def time_of(text: Any) -> datetime | None:
    """Return the time of an ISO 8601 text, None for anything else."""
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def decode_dataclass(cls: Any, data: Any) -> Any:
    """Return a dataclass of a JSON object, None for anything else; names that it does not know are ignored."""
    if not isinstance(data, dict):
        return None
    known = {f.name for f in fields(cls)}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known})


@cache
def _json_types(cls: Any) -> dict[str, tuple[type, ...]]:
    """Return the types that the fields of a dataclass have in JSON."""
    found = {}
    for name, hint in get_type_hints(cls).items():
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        found[name] = tuple(_IN_JSON.get(kind, kind) for kind in (get_origin(kind) or kind for kind in kinds))
    return found


_IN_JSON: dict[Any, Any] = {float: int | float, tuple: list, Mapping: dict, Any: object}


def _read_dataclass(cls: Any, data: Any) -> Any:
    """Return a dataclass of a JSON object. Raises ValueError for anything else, and for a value of another type."""
    if not isinstance(data, dict):
        raise ValueError(f"{data!r:.60} is not an object")
    types = _json_types(cls)
    for name, value in data.items():
        if name in types and not isinstance(value, types[name]):
            raise ValueError(f"{name}: {value!r:.60} has the wrong type")
    return decode_dataclass(cls, data)


def part(cls: type) -> Codec:
    """Return the codec of a JSON object that is read as a dataclass."""

    def read(text: str) -> Any:
        data = from_json(text)
        return None if data is None else _read_dataclass(cls, data)

    return Codec(read, lambda text: compact_json(jsonable(read(text))), lambda data: decode_dataclass(cls, data))


def parts(cls: type) -> Codec:
    """Return the codec of a JSON list of objects that are read as dataclasses."""

    def load(data: Any) -> tuple[Any, ...]:
        return tuple(decode_dataclass(cls, one) for one in data or ())

    def read(text: str) -> tuple[Any, ...]:
        return tuple(_read_dataclass(cls, one) for one in from_json(text))

    return Codec(read, lambda text: compact_json(jsonable(read(text))), load)


@lru_cache(maxsize=8192)
def _instant(micros: str) -> str:
    """Return a stored time as JSON. Cached, because a client that polls asks for the same ones again and again."""
    return f'"{from_micros(int(micros)).isoformat()}"'


def _fraction(text: str) -> float:
    number = float(text)
    if not 0.0 <= number <= 1.0:
        raise ValueError(text)
    return number


def _raw_json(text: str) -> str:
    from_json(text)
    return text


def _labels_json(text: str) -> str:
    return f"{{{','.join(f'{_quoted(name)}:{_quoted(value)}' for name, value in labels_dict(text).items())}}}"


def _large(text: str) -> Any:
    return LargeValue.read(text) or from_json(text)


def _large_json(text: str) -> str:
    return compact_json(jsonable(LargeValue.read(text))) if text[:1] == LARGE_MARK else _raw_json(text)


def _bool(text: str) -> bool:
    return {"1": True, "0": False}[text]


TEXT = Codec(str, _quoted)
FILLED_TEXT = Codec(lambda text: text or None, lambda text: _quoted(text) if text else "null")
"""A text that is absent when it is empty."""
TEXTS = Codec(
    lambda text: tuple(text.split(US)), lambda text: compact_json(text.split(US)), lambda data: tuple(data or ())
)
INTEGER = Codec(int, lambda text: str(int(text)))
BOOLEAN = Codec(_bool, lambda text: "true" if _bool(text) else "false")
FRACTION = Codec(_fraction, lambda text: repr(_fraction(text)))
TIME = Codec(lambda text: from_micros(int(text)), _instant, time_of)
JSON = Codec(from_json, _raw_json)
LARGE_JSON = Codec(_large, _large_json, LargeValue.load)
"""JSON that a store keeps beside the record if it is large, with a marker in its place."""
USAGE = Codec(decode_usage, lambda text: compact_json(decode_usage(text)))
LABELS = Codec(labels_dict, _labels_json)
QUESTIONS = Codec(
    lambda text: LargeValue.read(text) or parts(Question).read(text),
    lambda text: _large_json(text) if text[:1] == LARGE_MARK else parts(Question).json(text),
    lambda data: parts(Question).load(data) if isinstance(data, list) else LargeValue.load(data),
)
STATUS = Codec(JobStatus, {status.value: f'"{status.value}"' for status in JobStatus}.__getitem__, JobStatus)
STAGES, ITEM_COUNTS, ETA, FAILURE = parts(Stage), part(ItemCounts), part(Eta), part(Failure)
WAITING_FOR = part(WaitingFor)


def _read_or(codec: Codec, text: str | None, otherwise: Any = None) -> Any:
    try:
        return otherwise if text is None else codec.read(text)
    except UNREADABLE:
        return otherwise


def _masked_params(record: Record) -> Any:
    params = _read_or(LARGE_JSON, record.get("params"))
    for name in record.get("secrets", "").split(US):
        if isinstance(params, dict) and name in params:
            params[name] = "***"
    return params


def pair_values(pairs: str, name: str) -> list[str]:
    """Return the values of an indexed field in a stored text of pairs."""
    start = f":{name}="
    return [pair[len(start) :] for pair in pairs.split(US) if pair.startswith(start)]


def _or_type(name: str) -> Derived:
    """Return the codec of a field that, in jobs for workers, is the job type by default."""

    def read(record: Record) -> str | None:
        labels = record.get("labels", "")
        values = pair_values(labels, name) if ":" in labels else ()
        return values[0] if values else record.get("type") if record.get("run_by") == "worker" else None

    def write(record: Record) -> str:
        value = read(record)
        return "null" if value is None else _quoted(value)

    return Derived(read, ("type",), json=write)


def _attempts_json(record: Record) -> str:
    return f"[{','.join(_attempt_json(*row) for row in attempt_rows(record))}]"


def _attempt_json(start: str, end: str, number: str, worker: str, release: str) -> str:
    return (
        f'{{"attempt":{int(number) if number.isdigit() else 0},"worker":{_quoted(worker) if worker else "null"},'
        f'"started_at":{_instant(start) if start.isdigit() else "null"},'
        f'"ended_at":{_instant(end) if end.isdigit() else "null"},"release":{_quoted(release) if release else "null"}}}'
    )


def _load_attempts(data: Any) -> tuple[Attempt, ...]:
    rows = [{**one, **{name: time_of(one.get(name)) for name in ("started_at", "ended_at")}} for one in data or ()]
    return tuple(decode_dataclass(Attempt, row) for row in rows)


def failure_rows(record: Record) -> list[dict[str, Any]]:
    """Return the crash reports that a record keeps as JSON types, oldest first; of very many the newest."""
    texts = ",".join(filter(None, (record.get(name) for name in ("failures_before", "failures"))))
    try:
        rows: list[dict[str, Any]] = from_json(f"[{texts}]")
    except ValueError:
        return []
    return rows


def _receipt(record: Record) -> Receipt | None:
    if "stop_at" not in record:
        return None
    confirmed = record.get("stop_confirmed")
    return Receipt(
        _read_or(TIME, record["stop_at"]),
        record.get("stop_by"),
        record.get("stop_reason"),
        _read_or(TIME, record.get("stopped") or None),
        record.get("stop_how"),
        confirmed == "1" if confirmed else None,
        _read_or(LARGE_JSON, record.get("late_result")),
    )


def _held_by(record: Record) -> WaitingFor | None:
    """Return the reason that a store gives, else the question or group that holds the job, else an open question of a run."""
    held = record.get("held", "")
    _, is_answer, key = held.partition(ANSWER)
    reason = None
    if held == PAUSED:
        reason = WaitingFor("paused_job", {"resume": repeated(record)})
    elif is_answer:
        reason = WaitingFor("answer", {"key": key})
    elif held:
        stalled = {"stalled": record["stalled"]} if record.get("stalled") else {}
        asked = {"question": question} if (question := _open_question(record)) else {}
        reason = WaitingFor("after", {"group": held, **stalled, **asked})
    elif record.get("status") == "running" and (question := _open_question(record)):
        reason = WaitingFor("answer", {"key": question})
    found: WaitingFor | None = _read_or(WAITING_FOR, record.get("waiting_for"), reason)
    return found


def _open_question(record: Record) -> str | None:
    """Return the key of the first open question of a job, or None; also None if its questions are large.

    One that had expired when the job changed last can no longer be answered, although it is open until the code asks it again.
    """
    found, updated = _read_or(QUESTIONS, record.get("questions")), _read_or(TIME, record.get("updated"))
    for one in found if isinstance(found, tuple) else ():
        expires = time_of(one.expires_at)
        if one.state == "open" and (expires is None or updated is None or expires > updated):
            return str(one.key)
    return None


def _load_receipt(data: Any) -> Any:
    if not isinstance(data, dict):
        return None
    return decode_dataclass(
        Receipt,
        {
            **data,
            **{name: time_of(data.get(name)) for name in ("requested_at", "stopped_at")},
            "late_result": LargeValue.load(data.get("late_result")),
        },
    )


PARAMS = Derived(_masked_params, ("secrets",))
"""The parameters with the secret ones as ``***``; without secrets they are plain JSON."""
HELD_BY = Derived(_held_by, ("held", "questions"), WAITING_FOR.load)
RECEIPT = Derived(_receipt, ("stop_at",), _load_receipt)
QUEUE, LIMIT_KEY = _or_type("queue"), _or_type("limit_key")
ATTEMPTS = Derived(attempts_of, ("started", "runs"), _load_attempts, _attempts_json)
