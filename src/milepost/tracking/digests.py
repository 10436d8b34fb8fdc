"""What is kept of earlier runs: for each type one digest on the shelf, with the lessons of its newest completed runs.

Owns the form of a digest, its bounds, and when it is read and written: by the pulse, between its beats. A digest has at most
24 runs and 16 KiB; one run of three stages takes about 250 bytes. It is a help and no truth: what cannot be read is
taken as nothing, and of two processes that write at once none loses what the other has learned.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

from milepost.core.encoding import from_json, to_json
from milepost.core.errors import StoreError
from milepost.stores.protocol import Shelf
from milepost.tracking.timeline import STEPS, Lesson, PartLesson

RUNS_KEPT = 24
BYTES = 16 * 1024
KEPT = 90 * 86_400.0
"""Seconds that a digest is kept after the last run of its type."""
FRESH = 60.0
"""Seconds after which a digest that is in use is read again."""
BUSY, IDLE = 5.0, 1.0
"""Seconds between two writes for one type: while runs go on or are to come, and while there are none."""
TYPES_MAX = 500
FORM = 1
TRIES = 3


def key_of(job_type: str) -> str:
    """Where the digest of a type is on the shelf."""
    return f"digest/{job_type}"


class Digests:
    """The digests that one process knows; `learn` is for any thread, `tend` for one at a time."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._known: dict[str, tuple[Lesson, ...]] = {}
        self._read_at: dict[str, float] = {}
        self._written_at: dict[str, float] = {}
        self._waiting: dict[str, list[Lesson]] = {}
        self._lock = threading.Lock()

    def lessons(self, job_type: str) -> tuple[Lesson, ...]:
        """The lessons of a type as far as this process knows them, the newest last. Never asks the store."""
        return self._known.get(job_type, ())

    def learn(self, job_type: str, lesson: Lesson) -> None:
        """A run has completed; it is written with the next `tend`. Never waits."""
        with self._lock:
            waiting = self._waiting.setdefault(job_type, [])
            waiting.append(lesson)
            del waiting[:-RUNS_KEPT]

    def learn_short(self, job_type: str, seconds: float) -> None:
        """A run has completed before anybody looked at it; one of many such in a row is enough."""
        if job_type not in self._waiting:
            self.learn(job_type, Lesson(seconds, 0.0, (PartLesson("", None, seconds, (), seconds),)))

    async def tend(self, wanted: Iterable[str] = (), *, spacing: float = BUSY) -> None:
        """Read what is wanted and not fresh, and write what was learned: one and two round trips for a type.

        `spacing` is the least time between two writes for one type, in seconds.
        """
        now = time.monotonic()
        for job_type in wanted:
            if now >= self._read_at.get(job_type, 0.0):
                self._remember(job_type, await read_lessons(self._shelf, job_type))
        if self._waiting:
            for job_type in list(self._waiting):
                if now - self._written_at.get(job_type, -BUSY) >= spacing:
                    await self._write(job_type)

    def _remember(self, job_type: str, lessons: tuple[Lesson, ...]) -> None:
        if len(self._known) >= TYPES_MAX and job_type not in self._known:
            for kept in (self._known, self._read_at, self._written_at):
                kept.clear()
        self._known[job_type] = lessons
        self._read_at[job_type] = time.monotonic() + FRESH

    async def _write(self, job_type: str) -> None:
        with self._lock:
            new = self._waiting.pop(job_type, [])
        try:
            for _ in range(TRIES):
                item = await self._shelf.shelf_get(key_of(job_type))
                lessons = (*(decoded(item.value) if item is not None else ()), *new)[-RUNS_KEPT:]
                version = item.version if item is not None else 0
                if (
                    await self._shelf.shelf_put(key_of(job_type), encoded(lessons), version=version, ttl=KEPT)
                    is not None
                ):
                    self._remember(job_type, lessons)
                    self._written_at[job_type] = time.monotonic()
                    return
        except StoreError:
            self._again(job_type, new)
            raise
        self._again(job_type, new)

    def _again(self, job_type: str, new: list[Lesson]) -> None:
        """Keep what could not be written for the next time."""
        with self._lock:
            self._waiting[job_type] = (new + self._waiting.get(job_type, []))[-RUNS_KEPT:]


async def read_lessons(shelf: Shelf, job_type: str) -> tuple[Lesson, ...]:
    """The lessons of a type, the newest last; empty when nothing is known."""
    item = await shelf.shelf_get(key_of(job_type))
    return decoded(item.value) if item is not None else ()


def encoded(lessons: Sequence[Lesson]) -> str:
    """A digest as text; the oldest runs are left out when it would be too large.

    Names once, then each run: seconds, head, and its parts: the number of the name, total, span, gap, and the curve in
    thousandths of the span.
    """
    names: dict[str, int] = {}
    runs = [
        [
            _short(lesson.seconds),
            _short(lesson.head),
            [
                [names.setdefault(one.name, len(names)), one.total, _short(one.span), _short(one.gap)]
                + [round(1000 * at / one.span) if one.span else 0 for at in one.curve]
                for one in lesson.parts
            ],
        ]
        for lesson in lessons
    ]
    text = to_json({"form": FORM, "names": list(names), "runs": runs}, "digest", 1024 * 1024)
    return text if len(text.encode()) <= BYTES or len(lessons) < 2 else encoded(lessons[1:])


def decoded(text: str) -> tuple[Lesson, ...]:
    """The lessons of a digest; none when it is of another form."""
    try:
        data = from_json(text)
        names, form = data["names"], data["form"]
        if form != FORM:
            return ()
        return tuple(
            Lesson(float(seconds), float(head), tuple(_part(names, *one) for one in parts))
            for seconds, head, parts in data["runs"]
        )
    except (ValueError, TypeError, KeyError, IndexError):
        return ()


def _part(names: list[str], name: int, total: float | None, span: float, gap: float, *curve: int) -> PartLesson:
    if curve and len(curve) != STEPS:
        raise ValueError(curve)
    return PartLesson(
        str(names[name]), None if total is None else float(total), float(span), tuple(at * span / 1000 for at in curve),
        float(gap),
    )  # fmt: skip


def _short(seconds: float) -> float:
    """Four digits are enough, and none below a millisecond."""
    return round(float(f"{seconds:.4g}"), 3)
