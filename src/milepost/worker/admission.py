"""Decides which claimed jobs start, which wait and which are returned, without any I/O.

A crash suspect is a job whose last run was lost together with others, uncharged. If its handler cannot run in a child
process, it runs with no other job in the worker, so that its next crash can only be its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import NamedTuple

from milepost.core.job import Job

START_DEADLINE = 0.05
"""Seconds within which a claimed job must start, and for which a finished job counts as a free slot."""


class ClaimedJob(NamedTuple):
    """A claimed job that has not started: when its claim was sent, and when it arrived."""

    job: Job
    sent_at: float
    came_at: float


class Step(Enum):
    """What to do with a claimed job."""

    BEGIN = auto()
    HOLD = auto()
    """Keep its lease; a later step starts it exclusively."""
    BEGIN_EXCLUSIVE = auto()
    RELEASE = auto()
    """Release it uncharged: it waited too long, its lease has expired, or a suspect needs the worker."""


def is_crash_suspect(job: Job) -> bool:
    """Return whether the last run of the job was lost together with others."""
    return bool(job.record.get("suspect"))


class Admission:
    """The claimed jobs of one worker that have not started. Call `next` until it returns None."""

    def __init__(self, slots: int, lease: float, needs_exclusive_run: Callable[[Job], bool]) -> None:
        self._slots = slots
        self._lease = lease
        self._needs_exclusive_run = needs_exclusive_run
        self._ready: deque[ClaimedJob] = deque()
        self._held: ClaimedJob | None = None
        self._exclusive_token: str | None = None

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def is_exclusive(self) -> bool:
        """Return whether a suspect runs exclusively or waits to do so: nothing else starts and nothing is claimed."""
        return self._exclusive_token is not None

    def add(self, claimed: Iterable[ClaimedJob]) -> None:
        """Add the jobs of a claim."""
        self._ready.extend(claimed)

    def next(self, now: float, running: int, is_quiet: Callable[[], bool]) -> tuple[Step, ClaimedJob] | None:
        """Return the next step, or None if the remaining jobs have to wait.

        `running` is the number of used slots. `is_quiet` tells whether no other job runs and every outcome and release
        is written: a job that the store still counts as running would share the blame for a crash.
        """
        if not self._ready:
            if self._held is None or not is_quiet():
                return None
            held, self._held = self._held, None
            return Step.BEGIN_EXCLUSIVE, held
        first = self._ready[0]
        if (
            self._exclusive_token is not None
            or now - first.came_at > START_DEADLINE
            or now - first.sent_at >= self._lease
        ):
            return Step.RELEASE, self._ready.popleft()
        if running >= self._slots:
            return None
        self._ready.popleft()
        if not self._needs_exclusive_run(first.job):
            return Step.BEGIN, first
        self._held, self._exclusive_token = first, first.job.record["token"]
        return Step.HOLD, first

    def ended(self, token: str) -> None:
        """Note that a run has ended or will not start."""
        if token == self._exclusive_token:
            self._held = self._exclusive_token = None

    def clear(self) -> list[ClaimedJob]:
        """Remove and return the jobs that will not start here."""
        left = list(self._ready)
        self._ready.clear()
        return left
