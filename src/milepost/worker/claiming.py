"""How many jobs a worker asks for, and with what words. Owns the rule of the free slots, the starts that are left over, and the
claim whose answer was lost; knows no execution.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from milepost.core.change import Change
from milepost.core.job import Job
from milepost.core.lifecycle import plan_start
from milepost.stores.ids import new_nonce, new_op
from milepost.stores.protocol import Claim
from milepost.worker.handlers import Handler

BEGINS_WITHIN = 0.05
"""Seconds within which a claimed job must have begun, and for which what was finished counts as a free slot."""
CLAIM_MOST = 200
CLAIM_FIRST, CLAIM_GROWTH = 4, 4
"""An idle worker asks for few, since each start is sent and read whether or not there is a job for it; where jobs wait, each
claim may ask for so many times as many as the last one found."""
REPEATED_FOR = 30.0


class Claims:
    """The claims of one worker."""

    def __init__(self, worker: str, queues: Mapping[str, int | None], lease: int, only: str | None) -> None:
        self._worker = worker
        self._queues = queues
        self._lease = lease
        self._only = only
        self._most = CLAIM_FIRST
        self._finished: deque[tuple[float, int]] = deque()
        self._starts: list[Change] = []
        self._unanswered: tuple[float, Claim] | None = None

    def finished(self) -> None:
        """Something was finished just now."""
        now = time.monotonic()
        if self._finished and now - self._finished[-1][0] < 0.001:
            self._finished[-1] = (self._finished[-1][0], self._finished[-1][1] + 1)
        else:
            self._finished.append((now, 1))

    def lately(self) -> int:
        """How many were finished in the last 50 ms."""
        horizon = time.monotonic() - BEGINS_WITHIN
        while self._finished and self._finished[0][0] < horizon:
            self._finished.popleft()
        return sum(count for _, count in self._finished)

    def make(self, wanted: int) -> Claim | None:
        """A claim for up to so many jobs, with starts that are left over; the very same again while its outcome is unknown."""
        if wanted <= 0:
            return None
        if self._unanswered is not None:
            asked_at, claim = self._unanswered
            if time.monotonic() - asked_at < REPEATED_FOR:
                return claim
            self._unanswered, self._starts = None, []
        starts, wanted = self._starts, min(wanted, self._most)
        while len(starts) < wanted:
            starts.append(plan_start(new_op(), nonce=new_nonce(), lease=self._lease, worker=self._worker))
        return Claim(self._worker, self._queues, tuple(starts[:wanted]), new_op(), self._only)

    def unanswered(self, claim: Claim | None, sent_at: float) -> None:
        """The outcome of a claim is not known."""
        if claim is not None and self._unanswered is None:
            self._unanswered = (sent_at, claim)

    def answered(self, claim: Claim, claimed: Sequence[Job]) -> list[Job]:
        """The jobs of an answer that this worker has; a repeated answer may name some that were ended since."""
        repeated, self._unanswered = self._unanswered is not None, None
        self._most = min(CLAIM_MOST, max(CLAIM_FIRST, CLAIM_GROWTH * len(claimed)))
        self._starts = [] if repeated else list(claim.starts[len(claimed) :])
        return [job for job in claimed if job.record.get("token") and job.record.get("worker") == self._worker]


def limits_of(handlers: Mapping[str, Handler[Any, Any]]) -> dict[str, int | None]:
    """The most runs at once of each queue, as its handler says."""
    return {name: handler.type_options.concurrency for name, handler in handlers.items()}
