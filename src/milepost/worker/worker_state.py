"""What a worker does next with its jobs: the decisions, without a store, a clock or a thread.

A crash suspect is a job whose last run was lost together with others, uncharged. If its handler cannot run in a child
process, or writes in transactions of its own, it runs with no other job in the worker, so that its next crash can only
be its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Generic, NamedTuple, TypeVar

from milepost.core.job import Job

START_DEADLINE = 0.05
"""Seconds for which a claimed job waits for a slot, and for which a finished job counts as a free slot."""

Execution = TypeVar("Execution")


class ClaimedJob(NamedTuple):
    """A claimed job that has not started: when its claim was sent, and when it arrived."""

    job: Job
    sent_at: float
    came_at: float


class Step(Enum):
    """What to do with a claimed job. Report the result by `started`, `hold` or `ended`."""

    BEGIN = auto()
    HOLD = auto()
    """Keep its lease; a later step starts it exclusively."""
    BEGIN_HELD = auto()
    DROP_HELD = auto()
    """End the held job, which was stopped meanwhile, without having started it."""
    RELEASE = auto()
    """Release it uncharged: it waited too long, its lease has expired, or a suspect needs the worker."""


def is_crash_suspect(job: Job) -> bool:
    """Return whether the last run of the job was lost together with others."""
    return bool(job.record.get("suspect"))


class WorkerState(Generic[Execution]):
    """The jobs of one worker: claimed, running, held, ended. Events change it; `next` and `claim_size` tell what to do.

    `is_stopped` returns whether the run of an execution was stopped. All times are on one clock, in seconds.
    """

    def __init__(
        self,
        slots: int,
        lease: float,
        *,
        needs_exclusive_run: Callable[[Job], bool],
        is_stopped: Callable[[Execution], bool],
        single: bool = False,
        max_jobs: int | None = None,
    ) -> None:
        self.running: dict[str, Execution] = {}
        """The executions by token, until their outcome is known."""
        self.held: Execution | None = None
        """A suspect that waits until it can run exclusively."""
        self.should_claim = True
        self.stops = 0
        """How often the worker was stopped; from 2 on it does not wait for code that ignores its stop."""
        self._slots = slots
        self._lease = lease
        self._single = single
        self._left = max_jobs
        """How many more jobs may start; None: any number."""
        self._needs_exclusive_run = needs_exclusive_run
        self._is_stopped = is_stopped
        self._ready: deque[ClaimedJob] = deque()
        self._held: ClaimedJob | None = None
        self._exclusive_token: str | None = None
        self._finished: deque[tuple[float, int]] = deque()

    # --- events ---

    def claimed(self, jobs: Iterable[ClaimedJob], *, more: bool) -> None:
        """Take the jobs of a claim; `more` tells whether there may be more of them."""
        before = len(self._ready)
        self._ready.extend(jobs)
        if self._left is not None:
            self._left -= len(self._ready) - before
        self.should_claim = more

    def started(self, token: str, execution: Execution) -> None:
        """Note that the code of a job starts, or that a held job ends without it: it uses a slot until it has ended."""
        if execution is self.held:
            self.held = None
        self.running[token] = execution

    def hold(self, execution: Execution) -> None:
        """Keep a suspect that must run exclusively."""
        self.held = execution

    def ended(self, token: str) -> None:
        """Note that a run has ended or will not start."""
        self.running.pop(token, None)
        if token == self._exclusive_token:
            self.held = self._held = self._exclusive_token = None

    def finished(self, now: float) -> None:
        """Note that a slot has become free: the outcome of its job is sent with the next claim."""
        if self._finished and now - self._finished[-1][0] < 0.001:
            self._finished[-1] = (self._finished[-1][0], self._finished[-1][1] + 1)
        else:
            self._finished.append((now, 1))

    def stop(self, stops: int) -> None:
        """Begin nothing any more."""
        self.stops = max(self.stops, stops)

    def clear(self) -> list[ClaimedJob]:
        """Remove and return the claimed jobs that will not start here."""
        left = list(self._ready)
        self._ready.clear()
        return left

    # --- decisions ---

    @property
    def has_ready(self) -> bool:
        """Return whether claimed jobs wait for their start or release."""
        return bool(self._ready)

    @property
    def is_idle(self) -> bool:
        """Return whether no job is claimed or running."""
        return not (self.running or self._ready or self.held)

    @property
    def is_spent(self) -> bool:
        """Return whether all jobs that the worker may claim were claimed."""
        return self._left is not None and self._left <= 0

    @property
    def is_exclusive(self) -> bool:
        """Return whether a suspect runs exclusively or waits to do so: nothing else starts and nothing is claimed."""
        return self._exclusive_token is not None

    @property
    def is_free(self) -> bool:
        """Return whether a slot is free for another job."""
        taken = len(self.running) + len(self._ready)
        return not (self.is_exclusive or self._single or self.is_spent) and taken < self._slots

    def next(self, now: float, is_written: Callable[[], bool]) -> tuple[Step, ClaimedJob] | None:
        """Return the next step, or None if the remaining jobs have to wait.

        `is_written` tells whether every outcome and release is written: a job that the store still counts as running
        would share the blame for the crash of a suspect.
        """
        if self.stops:
            return None
        if self._held is not None and self.held is not None and self._is_stopped(self.held):
            return Step.DROP_HELD, self._take_held()
        if not self._ready:
            is_quiet = self._held is not None and is_written() and all(map(self._is_stopped, self.running.values()))
            return (Step.BEGIN_HELD, self._take_held()) if is_quiet else None
        first = self._ready[0]
        is_full = len(self.running) >= self._slots
        is_late = is_full and now - first.came_at > START_DEADLINE
        if self.is_exclusive or is_late or now - first.sent_at >= self._lease:
            if self._left is not None:
                self._left += 1  # it does not start here
            return Step.RELEASE, self._ready.popleft()
        if is_full:
            return None
        self._ready.popleft()
        if not self._needs_exclusive_run(first.job):
            return Step.BEGIN, first
        self._held, self._exclusive_token = first, first.job.record["token"]
        return Step.HOLD, first

    def _take_held(self) -> ClaimedJob:
        held, self._held = self._held, None
        assert held is not None, "a suspect is held"
        return held

    def claim_size(self, now: float, *, is_writing: bool) -> int:
        """Return how many jobs to claim: the free slots, and as many as finished in the last 50 ms.

        `is_writing` tells whether a request is sent anyway.
        """
        if self.stops or self.is_exclusive or not (self.should_claim or is_writing):
            return 0
        if self._single:
            return 0 if self.running or self._ready else 1
        while self._finished and self._finished[0][0] < now - START_DEADLINE:
            self._finished.popleft()
        recent = sum(count for _, count in self._finished)
        free = max(0, self._slots - len(self.running) + recent - len(self._ready))
        return free if self._left is None else min(free, max(0, self._left))
