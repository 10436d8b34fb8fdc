"""The filter grammar that the URL, the API, the dashboard and the command line share. Owns its words; knows no transport.

::

    filter   = term { space term }
    term     = [ "not." ] key ":" value            word or "quoted words" without a key: free text
    status:failed,cancelled   type:ingestion   id:018f   label.owner:ana   worker:host-1   error:timeout
    created:1d (within)   created:2h..1d   created:2026-11-01..2026-11-08   duration:5m..   duration:..5m
    is:stalled | active | ended | stopping   failure:ValueError@embed.py:41

Commas and a repeated `status`, `type` or `id` give alternatives; everything else must hold together. Status, type,
label, stalled and created are answered by indexes; the rest is looked at job by job, which `Filter.reads` names.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from milepost.core.encoding import fold, micros, seconds
from milepost.core.errors import FilterError, InvalidInput
from milepost.core.job import Job, JobStatus
from milepost.stores.protocol import Select
from milepost.stores.query import Query, created

LENGTH_MAX = 2000
TERMS_MAX = 50
KEYS = ("status", "type", "id", "label.NAME", "worker", "error", "created", "duration", "is", "failure")
STATES = ("stalled", "active", "ended", "stopping")

Test = Callable[[Job], bool]
_TERM = re.compile(r'(?P<negative>not\.)?(?:(?P<key>[A-Za-z][\w.-]*):)?(?P<value>(?:"(?:[^"\\]|\\.)*"|[^\s"])*)')
_MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter as a query. `reads` names the terms that no index answers: each job that the rest leaves is looked at."""

    text: str
    query: Query
    reads: tuple[str, ...] = ()


@dataclass(slots=True)
class _Terms:
    """What the terms read so far ask for."""

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
    """Read a filter; an empty one selects all. `now` is in microseconds (default: the clock of this machine).

    Raises FilterError, whose `.position` points at the character that is wrong.
    """
    if len(text) > LENGTH_MAX:
        raise FilterError(text[:80], 79, f"{len(text)} characters, the limit is {LENGTH_MAX}")
    terms = _Terms(text, time.time_ns() // 1000 if now is None else now, [], [], [], [], [], [])
    at = count = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        found = _TERM.match(text, at)
        if found is None or found.end() == at or (found.end() < len(text) and not text[found.end()].isspace()):
            raise FilterError(text, text.find('"', at) if '"' in text[at:] else at, "the quote is not closed")
        count += 1
        if count > TERMS_MAX:
            raise FilterError(text, at, f"more than {TERMS_MAX} terms")
        _read(terms, found, at)
        at = found.end()
    if terms.ids:
        prefixes = tuple(terms.ids)
        terms.tests.append(lambda job: job.job_id.startswith(prefixes))
    statuses = tuple(s.value for s in JobStatus if s in terms.allowed and (not terms.statuses or s in terms.statuses))
    if not statuses:
        terms.tests.append(lambda job: False)
    select = Select(
        tuple(dict.fromkeys(terms.types)),
        statuses if len(statuses) < len(JobStatus) else (),
        tuple(terms.labels),
        terms.stalled,
        terms.after,
        terms.before,
    )
    return Filter(text, Query(select, tuple(terms.tests)), tuple(dict.fromkeys(terms.reads)))


def _read(terms: _Terms, found: re.Match[str], at: int) -> None:
    key, negative = found["key"], bool(found["negative"])
    where = found.start("value")
    value = _unquoted(found["value"])
    if key is None or (key not in _READERS and not key.startswith("label.") and not _looks_like_key(key)):
        if negative:
            raise FilterError(terms.text, at, "free text cannot be negated; write not.error:word or not.type:name")
        words = fold(_unquoted(found[0]))
        terms.tests.append(lambda job: _says(job, words))
        terms.reads.append("text")
        return
    if not value:
        raise FilterError(terms.text, where, f"{key}: needs a value")
    if key.startswith("label."):
        _read_label(terms, key[6:], value, negative, at)
    elif key in _READERS:
        _READERS[key](terms, value, negative, where)
    else:
        raise FilterError(terms.text, at, f"{key!r} is not a key; one of {', '.join(KEYS)}")


def _looks_like_key(key: str) -> bool:
    """Whether `key:` was meant as a key, rather than as text such as an id or an address with a colon in it."""
    return key.islower() and key.isalpha() and key not in ("http", "https", "file", "sqlite", "redis")


def _unquoted(value: str) -> str:
    return re.sub(r'"((?:[^"\\]|\\.)*)"', lambda m: re.sub(r"\\(.)", r"\1", m[1]), value)


def _alternatives(terms: _Terms, value: str, where: int) -> list[str]:
    parts = value.split(",")
    if not all(parts):
        raise FilterError(terms.text, where, "an alternative is empty")
    return parts


def _read_status(terms: _Terms, value: str, negative: bool, where: int) -> None:
    for part in _alternatives(terms, value, where):
        if part not in tuple(JobStatus):
            at = max(where, terms.text.find(part, where))
            raise FilterError(terms.text, at, f"{part!r:.40} is not a status; one of {', '.join(JobStatus)}")
        if not negative:
            terms.statuses.append(part)
    if negative:
        terms.allowed -= set(value.split(","))


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
        case "stopping":
            terms.reads.append("is:stopping")
            terms.tests.append(lambda job: is_stopping(job) is not negative)
        case _:
            raise FilterError(terms.text, where, f"{value!r:.40} is not known here; one of {', '.join(STATES)}")


def _read_created(terms: _Terms, value: str, negative: bool, where: int) -> None:
    """`1d`: within the last day; `2h..1d`: between two hours and a day ago; dates work as well."""
    first, dots, last = value.partition("..")
    ends = [_instant(terms, part, where) for part in ((first, last) if dots else (first,)) if part]
    if not ends or len(ends) > 2:
        raise FilterError(terms.text, where, "created: needs a time, as in created:1d or created:2h..1d")
    low: int | None
    high: int | None
    if len(ends) == 2:
        low, high = min(ends), max(ends)
    elif dots and not first:
        # `..1d` is at most a day ago, `1d..` at least; with dates, until and since
        low, high = (ends[0], None) if _is_duration(last) else (None, ends[0])
    elif dots:
        low, high = (None, ends[0]) if _is_duration(first) else (ends[0], None)
    else:
        low, high = ends[0], None
    if negative:
        terms.reads.append("not.created")
        terms.tests.append(lambda job: not _between(created(job), low, high))
        return
    if low is not None:
        terms.after = low if terms.after is None else max(terms.after, low)
    if high is not None:
        terms.before = high if terms.before is None else min(terms.before, high)


def _between(value: int, low: int | None, high: int | None) -> bool:
    return (low is None or value >= low) and (high is None or value < high)


def _is_duration(text: str) -> bool:
    return not re.match(r"\d{4}-", text)


def _instant(terms: _Terms, text: str, where: int) -> int:
    try:
        if _is_duration(text):
            return terms.now - int(seconds(text, "created") * _MICROS)
        moment = datetime.fromisoformat(text)
        return micros(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC), "created")
    except (InvalidInput, ValueError, OverflowError):
        at = max(where, terms.text.find(text, where))
        problem = f"{text!r:.40} is no time; write 2h, 1d, 1h30m, or a date such as 2026-11-25"
        raise FilterError(terms.text, at, problem) from None


def _read_duration(terms: _Terms, value: str, negative: bool, where: int) -> None:
    first, dots, last = value.partition("..")
    if not dots:
        raise FilterError(terms.text, where, "duration: needs a range: 5m.. (at least), ..5m (at most) or 1m..5m")
    try:
        low = seconds(first, "duration") if first else None
        high = seconds(last, "duration") if last else None
    except InvalidInput as error:
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


_READERS: dict[str, Callable[[_Terms, str, bool, int], None]] = {
    "status": _read_status,
    "type": _read_type,
    "id": _read_id,
    "worker": _read_worker,
    "error": _read_error,
    "failure": _read_failure,
    "is": _read_is,
    "created": _read_created,
    "duration": _read_duration,
}


# --- what the words mean of one job ------------------------------------------------------------------------------


def duration(job: Job, now: int) -> float | None:
    """How long a job has run, in seconds; a running one until now, one that never started None."""
    if job.started_at is None:
        return None
    end = micros(job.completed_at, "completed_at") if job.completed_at is not None else now
    return max(0, end - micros(job.started_at, "started_at")) / _MICROS


def is_stopping(job: Job) -> bool:
    """Whether a stop was asked for that its code has not answered."""
    return job.receipt is not None and job.receipt.confirmed is None


def title(job: Job) -> str | None:
    """What a job is called in lists: `metadata.title`, a file's name, or the first text among its parameters."""
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
    return None


def failure_group(job: Job) -> str | None:
    """What groups failures: the exception type and the last frame outside installed packages.

    A job whose caller only gave an error is grouped by its beginning; None for one that has not failed.
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


def _says(job: Job, words: str) -> bool:
    return fold(job.job_id).startswith(words) or words in fold(f"{job.job_type}\n{title(job) or ''}\n{job.message}")
