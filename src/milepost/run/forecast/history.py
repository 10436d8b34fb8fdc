"""The history of each job type in the key-value store: the profiles of its newest completed runs.

It has at most 24 runs and 16 KiB. It is advisory and can be rebuilt: what cannot be read is ignored, and concurrent
writers lose nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

from milepost.core.errors import StoreError
from milepost.core.serialization import from_json, to_json
from milepost.run.forecast.profile import STEPS, PartProfile, RunProfile
from milepost.stores.protocol import KeyValueStore

MAX_RUNS = 24
MAX_BYTES = 16 * 1024
HISTORY_TTL = 90 * 86_400.0
"""Seconds that the history of a type is kept after its last run."""
REFRESH_INTERVAL = 60.0
"""Seconds after which a history that is in use is read again."""
BUSY_WRITE_INTERVAL, IDLE_WRITE_INTERVAL = 5.0, 1.0
"""Seconds between two writes for one type, with and without active runs."""
MAX_TYPES = 500
FORMAT_VERSION = 1
MAX_WRITE_ATTEMPTS = 3


def history_key(job_type: str) -> str:
    """Return the key of the history of a type."""
    return f"digest/{job_type}"


class RunHistory:
    """The histories that one process knows. `record_profile` is thread-safe; `sync` is for one caller at a time."""

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store
        self._known: dict[str, tuple[RunProfile, ...]] = {}
        self._read_at: dict[str, float] = {}
        self._written_at: dict[str, float] = {}
        self._waiting: dict[str, list[RunProfile]] = {}
        self._lock = threading.Lock()

    def profiles(self, job_type: str) -> tuple[RunProfile, ...]:
        """Return the known profiles of a type, the newest last, without a request to the store."""
        return self._known.get(job_type, ())

    def record_profile(self, job_type: str, profile: RunProfile) -> None:
        """Add the profile of a completed run, to be written by the next `sync`. Never waits."""
        with self._lock:
            waiting = self._waiting.setdefault(job_type, [])
            waiting.append(profile)
            del waiting[:-MAX_RUNS]

    def record_short_run(self, job_type: str, seconds: float) -> None:
        """Add a run that completed before its first beat, unless one is waiting to be written already."""
        if job_type not in self._waiting:
            self.record_profile(job_type, RunProfile(seconds, 0.0, (PartProfile("", None, seconds, (), seconds),)))

    async def sync(self, job_types: Iterable[str] = (), *, spacing: float = BUSY_WRITE_INTERVAL) -> None:
        """Read the histories of `job_types` that are out of date, and write new profiles.

        That takes one and two round trips for each type. `spacing` is the least time between two writes for one type,
        in seconds.
        """
        now = time.monotonic()
        for job_type in job_types:
            if now >= self._read_at.get(job_type, 0.0):
                self._remember(job_type, await read_profiles(self._store, job_type))
        if self._waiting:
            for job_type in list(self._waiting):
                if now - self._written_at.get(job_type, -BUSY_WRITE_INTERVAL) >= spacing:
                    await self._write(job_type)

    def _remember(self, job_type: str, profiles: tuple[RunProfile, ...]) -> None:
        if len(self._known) >= MAX_TYPES and job_type not in self._known:
            for kept in (self._known, self._read_at, self._written_at):
                kept.clear()
        self._known[job_type] = profiles
        self._read_at[job_type] = time.monotonic() + REFRESH_INTERVAL

    async def _write(self, job_type: str) -> None:
        with self._lock:
            new = self._waiting.pop(job_type, [])
        try:
            for _ in range(MAX_WRITE_ATTEMPTS):
                item = await self._store.kv_get(history_key(job_type))
                profiles = (*(decode_history(item.value) if item is not None else ()), *new)[-MAX_RUNS:]
                version = item.version if item is not None else 0
                if (
                    await self._store.kv_put(
                        history_key(job_type), encode_history(profiles), version=version, ttl=HISTORY_TTL
                    )
                    is not None
                ):
                    self._remember(job_type, profiles)
                    self._written_at[job_type] = time.monotonic()
                    return
        except StoreError:
            self._requeue(job_type, new)
            raise
        self._requeue(job_type, new)

    def _requeue(self, job_type: str, new: list[RunProfile]) -> None:
        """Keep profiles that could not be written for the next `sync`."""
        with self._lock:
            self._waiting[job_type] = (new + self._waiting.get(job_type, []))[-MAX_RUNS:]


async def read_profiles(store: KeyValueStore, job_type: str) -> tuple[RunProfile, ...]:
    """Return the profiles of a type, the newest last; empty if there are none."""
    item = await store.kv_get(history_key(job_type))
    return decode_history(item.value) if item is not None else ()


def encode_history(profiles: Sequence[RunProfile]) -> str:
    """Return profiles as text, without the oldest ones if it would be too large.

    First the names, then each run: its seconds, its head, and for each part the index of its name, total, span, gap,
    and the curve in thousandths of the span.
    """
    names: dict[str, int] = {}
    runs = [
        [
            _short(profile.seconds),
            _short(profile.head),
            [
                [names.setdefault(one.name, len(names)), one.total, _short(one.span), _short(one.gap)]
                + [round(1000 * at / one.span) if one.span else 0 for at in one.curve]
                for one in profile.parts
            ],
        ]
        for profile in profiles
    ]
    text = to_json({"form": FORMAT_VERSION, "names": list(names), "runs": runs}, "digest", 1024 * 1024)
    return text if len(text.encode()) <= MAX_BYTES or len(profiles) < 2 else encode_history(profiles[1:])


def decode_history(text: str) -> tuple[RunProfile, ...]:
    """Return the profiles of a stored history; none if it has another format."""
    try:
        data = from_json(text)
        names, form = data["names"], data["form"]
        if form != FORMAT_VERSION:
            return ()
        return tuple(
            RunProfile(float(seconds), float(head), tuple(_part(names, *one) for one in parts))
            for seconds, head, parts in data["runs"]
        )
    except (ValueError, TypeError, KeyError, IndexError):
        return ()


def _part(names: list[str], name: int, total: float | None, span: float, gap: float, *curve: int) -> PartProfile:
    if curve and len(curve) != STEPS:
        raise ValueError(curve)
    return PartProfile(
        str(names[name]), None if total is None else float(total), float(span), tuple(at * span / 1000 for at in curve),
        float(gap),
    )  # fmt: skip


def _short(seconds: float) -> float:
    """Round to four digits and whole milliseconds."""
    return round(float(f"{seconds:.4g}"), 3)
