"""The results of `run.map` that are kept, so that the next attempt returns the results of all items.

The latest ones are stored with the cursors of the run. When they become many, the heartbeat moves them into a part
beside the record, under a name that only this attempt uses, and the record names the part. So a run that lost its lease
cannot add results, and a missing part only costs repeating its items. Parts are deleted after the end of the job.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from milepost.core.errors import InvalidInputError, StoreError
from milepost.core.record_codec import results_prefix
from milepost.core.serialization import KIB, from_json, to_json
from milepost.run import typed_values
from milepost.run.typed_values import Codec, codec_of
from milepost.stores.clock import SYSTEM_CLOCK, Clock
from milepost.stores.protocol import Store
from milepost.stores.scan import scan_all
from milepost.stores.sync_bridge import run_sync

RESULT_BYTES = 64 * KIB
"""The size limit of the kept result of one item."""
JOB_BYTES = 256 * 1024 * KIB
"""The size limit of all kept results of a job."""
PART_BYTES = 32 * KIB
"""From here on the newest results become a part of their own."""
MAX_PART_BYTES = 1024 * KIB
PARTS_AT_ONCE = 2
"""How many parts one heartbeat writes for a map."""
REMEDY = "write the results elsewhere and give keep=False, or give resume=False, with which each attempt does all items"


class KeptResult(NamedTuple):
    """The result of one item: its key, what identifies the item, and the result as text."""

    key: str
    digest: str | None
    shown: str | None
    text: str
    is_typed: bool = False

    @property
    def size(self) -> int:
        """Return its size in bytes, as the limits count it."""
        return typed_values.size_of(self.text) + len(self.key)


class ResultCodec:
    """Encodes and decodes the results of a function, by its return annotation, else as plain JSON."""

    def __init__(
        self,
        function: Callable[..., Any],
        what: str = "result of item",
        limit: int = RESULT_BYTES,
        remedy: str = REMEDY,
    ) -> None:
        self.name = name_of(function)
        self._what, self._limit, self._remedy = what, limit, remedy
        self._typed: Codec | None
        try:
            self._typed = codec_of(typing.get_type_hints(function)["return"], "result")
        except Exception:  # noqa: BLE001 - whatever the annotation is, plain JSON is kept without it
            self._typed = None

    def dump(self, result: Any, key: str) -> tuple[str, bool]:
        """Return a result as text, and whether it has the declared type. Raises InvalidInputError."""
        field, remedy = f"{self._what} {key:.80}", self._remedy
        typed = self._typed
        if typed is not None and typed.accepts(result):
            text = typed_values.encode(typed.dump(result), field, remedy)
            if not typed_values.equal(typed.load(typed_values.decode(text)), result):
                raise InvalidInputError(field, f"{type(result).__name__} would not come back equal; {remedy}")
        else:
            typed = None
            text = typed_values.encode(
                result, field, f"return plain JSON or a declared type (-> set[str]), or {remedy}"
            )
        if (size := typed_values.size_of(text)) > self._limit:
            raise InvalidInputError(field, f"{size} bytes, the limit is {self._limit}; {remedy}")
        return text, typed is not None

    def load(self, kept: KeptResult) -> Any:
        """Return a kept result."""
        value = typed_values.decode(kept.text)
        return self._typed.load(value) if kept.is_typed and self._typed is not None else value

    def knows(self, kept: KeptResult) -> bool:
        """Return whether the current function can read the result."""
        return not kept.is_typed or self._typed is not None


class KeptResults:
    """The kept results of one map."""

    def __init__(self, prefix: str, budget: Budget, kept: Mapping[str, Any]) -> None:
        self._prefix = prefix
        self._budget = budget
        self._newest: list[KeptResult] = [KeptResult(*entry) for entry in kept.get("results", ())]
        self._size = sum(entry.size for entry in self._newest)
        self._parts: dict[str, int] = dict(kept.get("parts", {}))
        self._lock = threading.Lock()

    def add(self, entry: KeptResult) -> None:
        """Keep a result. Raises InvalidInputError if the results of the job become too large."""
        self._budget.spend(entry)
        with self._lock:
            self._newest.append(entry)
            self._size += entry.size

    def take_parts(self) -> list[tuple[str, str]]:
        """Move the latest results into parts if they are many; return the names and texts of the parts."""
        made: list[tuple[str, str]] = []
        with self._lock:
            while self._size > PART_BYTES and len(made) < PARTS_AT_ONCE:
                count = _within(self._newest, MAX_PART_BYTES)
                part, self._newest = self._newest[:count], self._newest[count:]
                self._size = sum(entry.size for entry in self._newest)
                number = self._parts.get(self._prefix, 0)
                self._parts[self._prefix] = number + 1
                made.append((f"{self._prefix}.{number}", to_json(part, "results", 16 * MAX_PART_BYTES)))
        return made

    def cursor(self) -> dict[str, Any]:
        """Return the entry of the record: the latest results, and the names of the parts with the others."""
        with self._lock:
            newest = self._newest[: _within(self._newest, MAX_PART_BYTES)]
            return {"results": newest, **({"parts": dict(self._parts)} if self._parts else {})}


class Budget:
    """The size limit of the kept results of a job."""

    def __init__(self) -> None:
        self._left = JOB_BYTES
        self._lock = threading.Lock()

    def spend(self, entry: KeptResult) -> None:
        """Use the bytes of a result. Raises InvalidInputError, with the item, if they are not left."""
        with self._lock:
            if entry.size > self._left:
                problem = f"the results of this job take more than {JOB_BYTES} bytes together; {REMEDY}"
                raise InvalidInputError(f"result of item {entry.key:.80}", problem)
            self._left -= entry.size


def part_names(cursor: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the parts in a cursor."""
    for prefix, count in cursor.get("parts", {}).items():
        for number in range(count):
            yield f"{prefix}.{number}"


def read_part(text: str | None) -> list[KeptResult]:
    """Return the results of a part; none if it is gone."""
    return [] if text is None else [KeptResult(*entry) for entry in from_json(text)]


def part_key(job_id: str, part: str) -> str:
    """Return the key of a part beside the record."""
    return f"{results_prefix(job_id)}{part}"


def name_of(function: Callable[..., Any]) -> str:
    """Return what identifies a function: kept results belong to it."""
    inner = getattr(function, "func", function)
    name = f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', type(inner).__qualname__)}"
    code = getattr(inner, "__code__", None)
    if code is not None and "<lambda>" in name:
        content = repr(
            (code.co_code, [const for const in code.co_consts if not hasattr(const, "co_code")], code.co_names)
        )
        return f"{name}:{hashlib.blake2b(content.encode(), digest_size=6).hexdigest()}"
    return name


def _within(entries: list[KeptResult], limit: int) -> int:
    """Return how many of the first entries fit into `limit` bytes; at least one."""
    size = 0
    for count, entry in enumerate(entries):
        size += entry.size
        if size > limit and count:
            return count
    return len(entries)


log = logging.getLogger("milepost.run")

TTL_MARGIN = 30 * 86_400.0
"""Seconds for which parts outlive the retention of ended jobs, since a job may wait long for its next attempt."""


class HasParts(Protocol):
    """A run with kept results."""

    job_id: str

    def _take_parts(self, *, at_end: bool = False) -> list[tuple[str, str]]:
        """Return the parts since the last call, each with its key."""


class PartWriter:
    """Writes the parts for all runs of one heartbeat, whose thread calls `write` and `delete_outdated`; so does the end of
    the process.

    Both end after the part during which the time `until`, on the monotonic clock, comes; later calls continue. `finish`
    writes what is left of a run that ends.
    """

    def __init__(self, store: Store, ttl: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._store = store
        self._monotonic = clock.monotonic
        self._ttl = ttl + TTL_MARGIN
        self._waiting: list[tuple[str, str]] = []
        self._outdated: list[str] = []
        self._has_parts: set[str] = set()
        self._ended: set[str] = set()
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        """Held while parts pass from a run to `_waiting`, and at each look at it, so that no thread misses one; never in a request."""

    def write(self, runs: Iterable[HasParts], until: float = math.inf) -> None:
        """Write the new parts of runs. A part that the store rejects waits for the next call.

        A report that names a missing part does no harm: the next attempt processes its items again. So this neither
        raises nor delays the lease renewals of the same beat by more than one part.
        """
        for run in runs:
            self._take(run)
        try:
            while self._write_next(blocking=False):  # renewals do not wait for runs that end
                if self._monotonic() >= until:
                    return
        except StoreError as error:
            log.debug("kept results not written yet: %s", error)

    def has_waiting(self, run: HasParts) -> bool:
        """Return whether parts of a run whose code has ended are not written yet."""
        self._take(run, at_end=True)
        return bool(self._waiting) and self._first(results_prefix(run.job_id)) is not None

    def finish(self, run: HasParts) -> None:
        """Write the parts of a run whose code has ended, before its outcome: the job may start again at once. Raises StoreError."""
        if self.has_waiting(run):
            while self._write_next(results_prefix(run.job_id)):
                pass

    def _first(self, prefix: str) -> tuple[str, str] | None:
        with self._lock:
            return next((part for part in self._waiting if part[0].startswith(prefix)), None)

    def _write_next(self, prefix: str = "", *, blocking: bool = True) -> bool:
        """Write the first part that waits, of those with a prefix; return False if there is none.

        Not `blocking`: also return False if another thread is writing one.
        """
        if not self._writing.acquire(blocking=blocking):
            return False
        try:
            part = self._first(prefix)
            if part is not None:
                run_sync(self._store.kv_put(*part, ttl=self._ttl))
                with self._lock:
                    self._waiting.remove(part)
            return part is not None
        finally:
            self._writing.release()

    def leave(self, run: HasParts) -> None:
        """Take the parts that a run leaves at its end; the next beat writes them."""
        self._take(run, at_end=True)
        if run.job_id in self._has_parts:
            self._ended.add(run.job_id)

    def _take(self, run: HasParts, *, at_end: bool = False) -> None:
        with self._lock:
            parts = run._take_parts(at_end=at_end)
            if parts:
                self._has_parts.add(run.job_id)
                self._waiting += parts

    def discard(self, job_id: str, cursors: Iterable[Mapping[str, Any]]) -> None:
        """Delete the parts in the cursors and steps of a completed job at the next `delete_outdated`."""
        self._ended.discard(job_id)
        self._has_parts.discard(job_id)
        for cursor in cursors:
            self._outdated += [part_key(job_id, name) for name in part_names(cursor)]

    async def _part_keys(self, job_id: str) -> list[str]:
        return [item.key async for item in scan_all(self._store, results_prefix(job_id))]

    def delete_outdated(self, until: float = math.inf) -> None:
        """Delete the parts of completed and deleted jobs, after writing what ended runs have left. Raises StoreError."""
        self.write([], until)
        while not self._waiting and self._monotonic() < until and (job_id := _taken(self._ended)) is not None:
            try:
                if run_sync(self._store.get(job_id)) is None:
                    self._outdated += run_sync(self._part_keys(job_id))
            except StoreError:
                self._ended.add(job_id)
                raise
            self._has_parts.discard(job_id)
        while self._monotonic() < until and (key := _taken(self._outdated)) is not None:
            try:
                run_sync(self._store.kv_delete(key))
            except StoreError:
                self._outdated.append(key)
                raise


def _taken(waiting: set[str] | list[str]) -> str | None:
    """Take one of these, or return None. Runs that end add some, and the end of the process takes some, in other threads."""
    try:
        return waiting.pop()
    except (IndexError, KeyError):
        return None
