"""The outcomes of runs that wait to be written: how much goes into one request, and what is sent again after a failure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from milepost.core.defaults import RENEWALS_PER_LEASE
from milepost.core.errors import OutcomeUnknownError, StoreError
from milepost.run.outcome import LateReceipt, RunOutcome
from milepost.stores.clock import SYSTEM_CLOCK, Clock
from milepost.stores.protocol import MAX_CHARACTERS, Store, Write, WriteResult

MAX_WRITES = 600


class Outbox:
    """The outcomes of one worker. True while any is not known to be written."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._monotonic = clock.monotonic
        self._waiting: deque[RunOutcome] = deque()
        self._sent: list[RunOutcome] = []
        self._limit = MAX_CHARACTERS
        self._is_doubtful = False
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

    def failed(self, error: StoreError) -> None:
        """Keep what was sent for another request, a smaller one if there was no reply in time."""
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
