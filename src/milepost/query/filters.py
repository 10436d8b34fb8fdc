"""Parse the filter language that the API, the dashboard and the command line share.

::

    filter   = term { space term }
    term     = [ "not." ] key ":" value            word or "quoted words" without a key: free text
    status:failed,cancelled   type:ingestion   id:018f   label.owner:ana   worker:host-1   error:timeout
    created:1d (within)   created:2h..1d   created:2026-11-01..2026-11-08   ended:1d (the same)   duration:5m..   duration:..5m
    is:stalled | active | ended | stopping | waiting   failure:ValueError@embed.py:41
    group:import-42   parent:018f   partition:acme   after:group:import-42   queue:gpu   release:2.4.0   run_by:worker

Commas outside of quotes and a repeated `status`, `type` or `id` give alternatives; all other terms must match. Indexes answer status,
type, label, stalled, created, group, parent, partition and after. The other terms are tested job by job; `Filter.reads` names them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from milepost.core.errors import FilterError, InvalidInputError
from milepost.core.fields import Field
from milepost.core.job import Job, JobStatus
from milepost.core.placement import is_waiting
from milepost.core.record import PUBLIC
from milepost.core.serialization import US, fold, seconds, to_micros
from milepost.stores.protocol import Select
from milepost.stores.query import Query, created

LENGTH_MAX = 2000
TERMS_MAX = 50
KEYS = (
    "status", "type", "id", "label.NAME", "worker", "error", "created", "ended", "duration", "is", "failure",
    *(row.filter for row in PUBLIC if row.filter),
)  # fmt: skip
STATES = ("stalled", "active", "ended", "stopping", "waiting")
TERM_START = re.compile(
    rf"(?:not\.)?(?:{'|'.join(key.replace('label.NAME', r'label[.][A-Za-z0-9_.-]+') for key in KEYS)}):"
)
"""The beginning of a term with a key."""

Test = Callable[[Job], bool]
_TERM = re.compile(r'(?P<negative>not\.)?(?:(?P<key>[A-Za-z][\w.-]*):)?(?P<value>(?:"(?:[^"\\]|\\.)*"|[^\s"])*)')
_MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter. `reads` names the terms that no index answers, so that each remaining job is read."""

    text: str
    query: Query
    reads: tuple[str, ...] = ()


@dataclass(slots=True)
class _Terms:
    """What the terms parsed so far select."""

    text: str
    now: int
    types: list[str]
    statuses: list[str]
    ids: list[str]
    labels: list[tuple[str, str]]
    tests: list[Test]
    reads: list[str]
    allowed: frozenset[str] = frozenset(JobStatus)
    stalled: bool = False
    after: int | None = None
    before: int | None = None


def parse_filter(text: str, *, now: int | None = None) -> Filter:
    """Return the query of a filter; an empty one selects all. `now` is in microseconds (default: the system clock).

    Raises FilterError, whose `.position` is the index of the wrong character.
    """
    if len(text) > LENGTH_MAX:
        raise FilterError(text[:80], 79, f"{len(text)} characters, the limit is {LENGTH_MAX}; shorten it")
    terms = _Terms(text, time.time_ns() // 1000 if now is None else now, [], [], [], [], [], [])
    at = count = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        found = _TERM.match(text, at)
        if found is None or found.end() == at or (found.end() < len(text) and not text[found.end()].isspace()):
            raise FilterError(text, text.find('"', at) if '"' in text[at:] else at, "missing closing quote")
        count += 1
        if count > TERMS_MAX:
            raise FilterError(text, at, f"more than {TERMS_MAX} terms; remove some")
        _read(terms, found, at)
        at = found.end()
    if terms.ids:
        prefixes = tuple(terms.ids)
        terms.tests.append(lambda job: job.job_id.startswith(prefixes))
    statuses = tuple(s.value for s in JobStatus if s in terms.allowed and (not terms.statuses or s in terms.statuses))
    if not statuses:
        terms.tests.append(lambda job: False)
    types = tuple(dict.fromkeys(terms.types))
    limited = statuses if len(statuses) < len(JobStatus) else ()
    select = Select(types, limited, tuple(terms.labels), terms.stalled, terms.after, terms.before)
    return Filter(text, Query(select, tuple(terms.tests)), tuple(dict.fromkeys(terms.reads)))


def _read(terms: _Terms, found: re.Match[str], at: int) -> None:
    key, negative, where = found["key"], bool(found["negative"]), found.start("value")
    value = _unquoted(found["value"], US if key in _WITH_ALTERNATIVES else ",")
    if key is None or (key not in _READERS and not key.startswith("label.") and not _looks_like_key(key)):
        if negative:
            raise FilterError(terms.text, at, "free text cannot be negated; write not.error:word or not.type:name")
        words = fold(_unquoted(found[0]))
        terms.tests.append(lambda job: _contains(job, words))
        terms.reads.append("text")
        return
    if not value:
        raise FilterError(terms.text, where, f"{key}: needs a value")
    if key.startswith("label."):
        _read_label(terms, key[6:], value, negative, at)
    elif key in _READERS:
        _READERS[key](terms, value, negative, where)
    else:
        raise FilterError(terms.text, at, f"unknown key {key!r}; use one of {', '.join(KEYS)}")


def _looks_like_key(key: str) -> bool:
    """Return whether `key:` is meant as a key, and not text with a colon such as an id or a URL."""
    return (
        key.islower()
        and key.isalpha()
        and key not in ("http", "https", "file", "sqlite", "redis", "postgresql", "postgres")
    )


def _unquoted(value: str, comma: str = ",") -> str:
    return re.sub(r'"((?:[^"\\]|\\.)*)"', lambda m: re.sub(r"\\(.)", r"\1", m[1]).replace(",", comma), value)


def _alternatives(terms: _Terms, value: str, where: int) -> list[str]:
    parts = [part.replace(US, ",") for part in value.split(",")]
    if not all(parts):
        raise FilterError(terms.text, where, "empty alternative; remove the extra comma")
    return parts


def _read_status(terms: _Terms, value: str, negative: bool, where: int) -> None:
    for part in (parts := _alternatives(terms, value, where)):
        if part not in tuple(JobStatus):
            at = max(where, terms.text.find(part, where))
            raise FilterError(terms.text, at, f"unknown status {part!r:.40}; use one of {', '.join(JobStatus)}")
        if not negative:
            terms.statuses.append(part)
    if negative:
        terms.allowed -= set(parts)


def _read_type(terms: _Terms, value: str, negative: bool, where: int) -> None:
    parts = tuple(_alternatives(terms, value, where))
    if negative:
        terms.tests.append(lambda job: job.job_type not in parts)
        terms.reads.append("not.type")
    else:
        terms.types.extend(parts)


def _read_id(terms: _Terms, value: str, negative: bool, where: int) -> None:
    parts = tuple(_alternatives(terms, value, where))
    terms.reads.append("id")
    if negative:
        terms.tests.append(lambda job: not job.job_id.startswith(parts))
    else:
        terms.ids.extend(parts)


def _read_label(terms: _Terms, name: str, value: str, negative: bool, at: int) -> None:
    if not name:
        raise FilterError(terms.text, at, "label. needs a name, as in label.owner:ana")
    if negative:
        terms.tests.append(lambda job: job.labels.get(name) != value)
        terms.reads.append("not.label")
    else:
        terms.labels.append((name, value))


def _read_worker(terms: _Terms, value: str, negative: bool, where: int) -> None:
    terms.reads.append("worker")
    terms.tests.append(lambda job: (job.worker is not None and job.worker.startswith(value)) is not negative)


def _read_error(terms: _Terms, value: str, negative: bool, where: int) -> None:
    wanted = fold(value)
    terms.reads.append("error")

    def test(job: Job) -> bool:
        kind = job.failure.type or "" if job.failure is not None else ""
        return (wanted in fold(f"{kind} {job.error or ''}") and bool(job.error)) is not negative

    terms.tests.append(test)


def _read_failure(terms: _Terms, value: str, negative: bool, where: int) -> None:
    terms.reads.append("failure")
    terms.tests.append(lambda job: (failure_group(job) == value) is not negative)


def _read_is(terms: _Terms, value: str, negative: bool, where: int) -> None:
    match value:
        case "stalled" if not negative:
            terms.stalled = True
        case "stalled":
            terms.reads.append("not.is")
            terms.tests.append(lambda job: not job.stalled)
        case "active" | "ended":
            ends = (value == "ended") is not negative
            terms.allowed &= {status.value for status in JobStatus if status.is_terminal is ends}
        case "stopping" | "waiting":
            terms.reads.append(f"is:{value}")
            terms.tests.append(
                lambda job: (is_stopping(job) if value == "stopping" else is_waiting(job, terms.now)) is not negative
            )
        case _:
            remedy = f"status:{value}" if value in set(JobStatus) else f"one of {', '.join(STATES)}"
            raise FilterError(terms.text, where, f"unknown state {value!r:.40}; use {remedy}")


def _read_created(terms: _Terms, value: str, negative: bool, where: int) -> None:
    low, high = _time_range(terms, "created", value, where)
    if negative:
        terms.reads.append("not.created")
        terms.tests.append(lambda job: not _between(created(job), low, high))
        return
    if low is not None:
        terms.after = low if terms.after is None else max(terms.after, low)
    if high is not None:
        terms.before = high if terms.before is None else min(terms.before, high)


def _read_ended(terms: _Terms, value: str, negative: bool, where: int) -> None:
    low, high = _time_range(terms, "ended", value, where)
    terms.reads.append("not.ended" if negative else "ended")
    terms.tests.append(lambda job: (_has_ended(job, low, high)) is not negative)
    if not negative and high is not None:  # a job that has ended was created before
        terms.before = high if terms.before is None else min(terms.before, high)


def _has_ended(job: Job, low: int | None, high: int | None) -> bool:
    return job.completed_at is not None and _between(to_micros(job.completed_at, "ended"), low, high)


def _time_range(terms: _Terms, key: str, value: str, where: int) -> tuple[int | None, int | None]:
    """Return the bounds of a term of time: `1d` is within the last day, `2h..1d` is a day to two hours ago."""
    first, dots, last = value.partition("..")
    ends = [_instant(terms, part, where) for part in ((first, last) if dots else (first,)) if part]
    if not ends or len(ends) > 2:
        raise FilterError(terms.text, where, f"{key}: needs a time, as in {key}:1d or {key}:2h..1d")
    if len(ends) == 2:
        return min(ends), max(ends)
    if dots and not first:
        # `..1d` is at most a day ago, `1d..` at least; with dates, until and since
        return (ends[0], None) if _is_duration(last) else (None, ends[0])
    if dots:
        return (None, ends[0]) if _is_duration(first) else (ends[0], None)
    return ends[0], None


def _between(value: int, low: int | None, high: int | None) -> bool:
    return (low is None or value >= low) and (high is None or value < high)


def _is_duration(text: str) -> bool:
    return not re.match(r"\d{4}-", text)


def _instant(terms: _Terms, text: str, where: int) -> int:
    try:
        if _is_duration(text):
            return terms.now - int(seconds(text, "created") * _MICROS)
        moment = datetime.fromisoformat(text)
        return to_micros(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC), "created")
    except (InvalidInputError, ValueError, OverflowError):
        at = max(where, terms.text.find(text, where))
        problem = f"{text!r:.40} is not a time; use 2h, 1d, 1h30m, or a date such as 2026-11-25"
        raise FilterError(terms.text, at, problem) from None


def _read_duration(terms: _Terms, value: str, negative: bool, where: int) -> None:
    first, dots, last = value.partition("..")
    if not dots:
        raise FilterError(terms.text, where, "duration: needs a range: 5m.. (at least), ..5m (at most) or 1m..5m")
    try:
        low = seconds(first, "duration") if first else None
        high = seconds(last, "duration") if last else None
    except InvalidInputError as error:
        raise FilterError(terms.text, where, error.problem) from None
    if low is None and high is None:
        raise FilterError(terms.text, where, "duration: needs a range: 5m.. (at least), ..5m (at most) or 1m..5m")
    now = terms.now
    terms.reads.append("duration")

    def test(job: Job) -> bool:
        took = duration(job, now)
        inside = took is not None and (low is None or took >= low) and (high is None or took <= high)
        return inside is not negative

    terms.tests.append(test)


def _read_field(row: Field) -> Callable[[_Terms, str, bool, int], None]:
    """Return the reader of the values of a field of the record."""

    def read(terms: _Terms, value: str, negative: bool, where: int) -> None:
        parts = tuple(_alternatives(terms, value, where))
        if row.indexed and row.derived is None and len(parts) == 1 and not negative:
            terms.labels.append((f":{row.name}", parts[0]))
            return
        terms.reads.append(f"not.{row.filter}" if negative else row.filter)
        terms.tests.append(lambda job: (not _values(job, row).isdisjoint(parts)) is not negative)

    return read


def _values(job: Job, row: Field) -> set[Any]:
    if row.name == "release":
        return {attempt.release for attempt in job.attempts} | {job.release}
    held = getattr(job, row.name)
    return set(held) if isinstance(held, tuple) else {held}


_READERS: dict[str, Callable[[_Terms, str, bool, int], None]] = {
    "status": _read_status,
    "type": _read_type,
    "id": _read_id,
    "worker": _read_worker,
    "error": _read_error,
    "failure": _read_failure,
    "is": _read_is,
    "created": _read_created,
    "ended": _read_ended,
    "duration": _read_duration,
    **{row.filter: _read_field(row) for row in PUBLIC if row.filter},
}
_WITH_ALTERNATIVES = {"status", "type", "id", *(row.filter for row in PUBLIC if row.filter)}


def duration(job: Job, now: int) -> float | None:
    """Return how long a job has run in seconds, until now if it is running, or None if it never started."""
    if job.started_at is None:
        return None
    end = to_micros(job.completed_at, "completed_at") if job.completed_at is not None else now
    return max(0, end - to_micros(job.started_at, "started_at")) / _MICROS


def is_stopping(job: Job) -> bool:
    """Return whether a stop was requested and not yet confirmed."""
    return job.receipt is not None and job.receipt.confirmed is None


def title(job: Job) -> str | None:
    """Return the title of a job in lists: `metadata.title`, a file name, a text parameter, or the key as a child."""
    metadata: dict[str, Any] = job.metadata if isinstance(job.metadata, dict) else {}
    for name in ("title", "filename"):
        if isinstance(metadata.get(name), str) and metadata[name]:
            return str(metadata[name])[:200]
    path = metadata.get("file_path")
    if isinstance(path, str) and path:
        return PurePosixPath(path.replace("\\", "/")).name[:200]
    params: dict[str, Any] = job.params if isinstance(job.params, dict) else {}
    for value in params.values():
        if isinstance(value, str) and value and value != "***":
            return value[:200]
    return job.child_key[:200] if job.child_key else None


def failure_group(job: Job) -> str | None:
    """Return the group of a failed job: the exception type and the last frame outside installed packages.

    A job with only an error text is grouped by the start of that text. None for a job that has not failed.
    """
    failure = job.failure
    if failure is None:
        if job.status is not JobStatus.FAILED:
            return None
        return (job.error or "").partition(":")[0].strip()[:60] or "failed"
    frames = re.findall(r'File "([^"]+)", line (\d+)', failure.traceback or "")
    own = [frame for frame in frames if "site-packages" not in frame[0] and "/lib/python" not in frame[0]]
    path, line = (own or frames or [("", "")])[-1]
    file = path.replace("\\", "/").rsplit("/", 1)[-1]
    place = f"@{file}:{line}" if path else ""
    return f"{failure.type or failure.kind}{place}"


def _contains(job: Job, words: str) -> bool:
    return fold(job.job_id).startswith(words) or words in fold(f"{job.job_type}\n{title(job) or ''}\n{job.message}")
