"""Decides how many jobs to claim, and repeats a claim that got no reply."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from milepost.core.errors import OutcomeUnknownError, StoreError
from milepost.core.job import Job
from milepost.core.transitions import plan_start
from milepost.core.transitions.operations import Change
from milepost.stores.clock import SYSTEM_CLOCK, Clock
from milepost.stores.ids import SYSTEM_IDS, Ids
from milepost.stores.protocol import ApplyResult, Claim, Store
from milepost.stores.query import with_large_values
from milepost.worker.admission import START_DEADLINE, ClaimedJob
from milepost.worker.handlers import Handler

log = logging.getLogger("milepost.worker")

MAX_CLAIM = 200
MIN_CLAIM, CLAIM_GROWTH_FACTOR = 4, 4
"""An idle worker claims few jobs, because each start is sent whether or not there is a job for it. After a claim that
found jobs, the next one may ask for this many times as many.
"""


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
        self._finished: deque[tuple[float, int]] = deque()
        self._starts: list[Change] = []
        self._number = 0
        self._unanswered: tuple[float, Claim] | None = None

    def finished(self) -> None:
        """Note that a job has just finished."""
        now = self._monotonic()
        if self._finished and now - self._finished[-1][0] < 0.001:
            self._finished[-1] = (self._finished[-1][0], self._finished[-1][1] + 1)
        else:
            self._finished.append((now, 1))

    def recently_finished(self) -> int:
        """Return how many jobs finished in the last 50 ms."""
        horizon = self._monotonic() - START_DEADLINE
        while self._finished and self._finished[0][0] < horizon:
            self._finished.popleft()
        return sum(count for _, count in self._finished)

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

    def failed(self, claim: Claim | None, sent_at: float, error: StoreError) -> None:
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
