"""What a worker sends to the store: claims of jobs, and the outcomes of runs. Requests without a reply are sent again."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from milepost.core.defaults import RENEWALS_PER_LEASE
from milepost.core.errors import LeaseHeldError, MilepostError, OutcomeUnknownError, StoreError
from milepost.core.job import FailureKind, Job
from milepost.core.record_codec import large_fields
from milepost.core.transitions import plan_fail, plan_release, plan_start
from milepost.core.transitions.change import Change
from milepost.run.crash_report import report_exception
from milepost.run.outcome import LateReceipt, RunOutcome
from milepost.stores.clock import SYSTEM_CLOCK, Clock
from milepost.stores.ids import SYSTEM_IDS, Ids, new_operation_id
from milepost.stores.protocol import MAX_CHARACTERS, ApplyResult, Claim, Store, Write, WriteResult
from milepost.worker.handlers import Handler
from milepost.worker.worker_state import ClaimedJob

log = logging.getLogger("milepost.worker")

MAX_CLAIM = 200
MIN_CLAIM, CLAIM_GROWTH_FACTOR = 4, 4
"""An idle worker claims few jobs, because each start is sent whether or not there is a job for it. After a claim that
found jobs, the next one may ask for this many times as many.
"""


async def with_large_values(store: Store, job: Job) -> Job:
    """Return a job of a claim with its large values: the same job, without a round trip, if it has none.

    Other fields stay as they were. A value that is gone by now stays a marker.
    """
    names = large_fields(job.record)
    newer = await store.get(job.job_id) if names else None
    if newer is None:
        return job
    values = {name: newer.record[name] for name in names if name in newer.record}
    return Job.stored(job.job_id, {**job.record, **values})


class ClaimPolicy:
    """The claims of one worker."""

    def __init__(
        self,
        worker: str,
        queues: Mapping[str, int | None],
        lease: int,
        only: str | None,
        release: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        ids: Ids = SYSTEM_IDS,
    ) -> None:
        self._monotonic = clock.monotonic
        self._ids = ids
        self._worker = worker
        self._queues = queues
        self._lease = lease
        self._single_job_id = only
        self._release = release
        self._limit = MIN_CLAIM
        self._starts: list[Change] = []
        self._number = 0
        self._unanswered: tuple[float, Claim] | None = None

    @property
    def is_unanswered(self) -> bool:
        """Return whether a claim got no reply, so that the store may have given it jobs."""
        return self._unanswered is not None

    def make(self, size: int) -> Claim | None:
        """Return a claim for at most `size` jobs; the previous claim again while its outcome is unknown."""
        if size <= 0:
            return None
        if self._unanswered is not None:
            return self._unanswered[1]
        starts, size = self._starts, min(size, self._limit)
        while len(starts) < size:
            starts.append(
                plan_start(
                    self._ids.new_operation_id(),
                    nonce=self._ids.new_nonce(),
                    lease=self._lease,
                    worker=self._worker,
                    release=self._release,
                )
            )
        self._number += 1
        return Claim(
            self._worker,
            self._queues,
            tuple(starts[:size]),
            self._ids.new_operation_id(),
            self._single_job_id,
            self._number,
        )

    def failed(self, claim: Claim | None, sent_at: float, error: MilepostError) -> None:
        """Note that a claim got no reply. It is repeated unless it is certain that nothing was written."""
        if claim is not None and isinstance(error, OutcomeUnknownError):
            self.repeat(claim, sent_at)

    async def read_reply(
        self, store: Store, claim: Claim | None, applied: ApplyResult, sent_at: float
    ) -> list[ClaimedJob] | None:
        """Return the jobs of a reply with their large values; None if these cannot be read, and the claim is repeated."""
        if claim is None:
            return None
        try:
            jobs = [await with_large_values(store, job) for job in applied.claimed]
        except StoreError as error:
            log.warning("large values of claimed jobs cannot be read; claiming again: %s", error)
            self.repeat(claim, sent_at)
            return None
        except asyncio.CancelledError:  # the event loop ends
            self.repeat(claim, sent_at)
            raise
        return self.on_reply(claim, jobs, sent_at)

    def repeat(self, claim: Claim, sent_at: float) -> None:
        """Send the same claim next time: its answer did not come, or the values of its jobs could not be read."""
        if self._unanswered is None:
            self._unanswered = (sent_at, claim)

    def on_reply(self, claim: Claim, claimed: Sequence[Job], sent_at: float) -> list[ClaimedJob]:
        """Return the jobs of a reply that belong to this worker, with the time when they were first claimed.

        Their leases may be that old. The reply to a repeated claim may name jobs that have ended since.
        """
        repeated = self._unanswered is not None
        if self._unanswered is not None:
            sent_at, self._unanswered = self._unanswered[0], None
        came_at = self._monotonic()
        self._limit = min(MAX_CLAIM, max(MIN_CLAIM, CLAIM_GROWTH_FACTOR * len(claimed)))
        self._starts = [] if repeated else list(claim.starts[len(claimed) :])
        return [
            ClaimedJob(job, sent_at, came_at)
            for job in claimed
            if job.record.get("token") and job.record.get("worker") == self._worker
        ]


def limits_of(handlers: Mapping[str, Handler[Any, Any]]) -> dict[str, int | None]:
    """Return the maximum number of concurrent runs of each queue, as its handler declares."""
    return {name: handler.type_options.concurrency for name, handler in handlers.items()}


def failure_of(claimed: ClaimedJob, error: Exception) -> RunOutcome:
    """Return the write that fails a job that cannot start, because its record is damaged."""
    line, failure = report_exception(error, None, FailureKind.BAD_PARAMETERS)
    plan = plan_fail(new_operation_id(), claimed.job.record["token"], error=line, failure=failure, report={})
    return RunOutcome([Write(claimed.job.job_id, plan, answer=False)], None)


def release_of(claimed: ClaimedJob) -> RunOutcome:
    """Return the write that releases a job that has not started, uncharged."""
    job, token = claimed.job, claimed.job.record["token"]
    plan = plan_release(new_operation_id(), token, {}, start=job.record.get("updated"))
    return RunOutcome([Write(job.job_id, plan, answer=False)], LateReceipt(token, "never_started"))


MAX_WRITES = 600


class Outbox:
    """The outcomes of one worker. True while any is not known to be written."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._monotonic = clock.monotonic
        self._waiting: deque[RunOutcome] = deque()
        self._sent: list[RunOutcome] = []
        self._limit = MAX_CHARACTERS
        self._is_doubtful = self._is_locked = False
        self._is_behind = False
        self._renew_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._waiting or self._sent)

    def add(self, end: RunOutcome) -> None:
        """Add an outcome."""
        self._waiting.append(end)

    def take(self) -> list[Write]:
        """Return the writes of the next request: at least one outcome, then as many as the limits allow."""
        writes: list[Write] = []
        if self._is_locked:
            self._is_locked = False
            return writes
        left = self._limit
        while self._waiting and len(writes) < MAX_WRITES:
            end = self._waiting[0]
            left -= _size(end)
            if left < 0 and writes:
                break
            self._sent.append(self._waiting.popleft())
            writes += end.writes
        return writes

    def written(self, outcomes: Sequence[WriteResult]) -> None:
        """Note the reply to the request. A run that was ended by others meanwhile gets its receipt."""
        place = 0
        for end in self._sent:
            place += len(end.writes)
            reply = outcomes[place - 1]
            if not reply.accepted and end.late is not None:
                self._waiting.append(_receipt(end, end.late))
            elif reply.accepted and end.on_end is not None:
                end.on_end(reply)
        self._sent.clear()
        self._is_behind = bool(self._waiting)
        self._limit = min(MAX_CHARACTERS, self._limit * 2)

    def failed(self, error: MilepostError) -> None:
        """Keep what was sent for another request, a smaller one if there was no reply in time or a job was locked.

        A locked job keeps neither claims nor other outcomes waiting: the next request is without outcomes, and those of
        other jobs come first then.
        """
        if isinstance(error, LeaseHeldError):
            self._is_doubtful = True  # the lock may be held for longer than the leases
            if self._sent:
                self._limit, self._is_locked = 1, True
            if len(self._sent) == 1:
                self._waiting.append(self._sent.pop())
        if self._sent and isinstance(error, OutcomeUnknownError):
            self._limit = max(1, min(self._limit, sum(map(_size, self._sent))) // 2)
            self._is_doubtful = True
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()

    async def renew(self, store: Store, micros: int) -> None:
        """Renew the leases of waiting outcomes, if that takes several requests. For lost leases only receipts are sent.

        The heartbeat renews the lease of a run only until its code has ended. Raises StoreError.
        """
        now = self._monotonic()
        if not self._is_doubtful and (not self._is_behind or now < self._renew_at):
            return
        leases = [(end.writes[-1].job_id, end.late.token) for end in self._waiting if end.late is not None]
        states = await store.renew(leases, micros)
        lost = {token for (_, token), state in zip(leases, states, strict=True) if state == "lost"}
        for place, end in enumerate(self._waiting):
            if end.late is not None and end.late.token in lost:
                self._waiting[place] = _receipt(end, end.late._replace(result=None))
        self._is_doubtful, self._renew_at = False, now + micros / 1_000_000 / RENEWALS_PER_LEASE


def _receipt(end: RunOutcome, late: LateReceipt) -> RunOutcome:
    """Return the writes for a run that was ended by others: that its code has stopped, and how."""
    return RunOutcome([Write(end.writes[-1].job_id, late.plan(), answer=False)], None)


def _size(end: RunOutcome) -> int:
    return sum([write.size for write in end.writes])
