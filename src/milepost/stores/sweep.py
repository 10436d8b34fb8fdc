"""The arguments of a sweep, and which leases it may recover."""

from __future__ import annotations

from typing import NamedTuple

from milepost.core.record_codec import short_name

_WAITS_FOR_TASK_QUEUE = f"\n{short_name('run_by')}=external\n"


class Sweep(NamedTuple):
    """The arguments of a sweep, see `protocol.Store.sweep`. Times are in microseconds."""

    lease: int
    interval: int
    limit: int
    task_queue: str | None
    unreached: int

    @classmethod
    def of_seconds(cls, lease: float, interval: float, limit: int, task_queue: str | None, unreached: float) -> Sweep:
        """Return the arguments with times given in seconds."""
        return cls(
            round(lease * 1_000_000), round(interval * 1_000_000), limit, task_queue, round(unreached * 1_000_000)
        )

    def skips(self, now: int, last: int | None) -> bool:
        """Return whether another sweep ran within half the interval; `last` is when, None for never."""
        return last is not None and 0 <= now - last < self.interval / 2

    def others(self, now: int) -> dict[str, int | str | None]:
        """Return the values of `sweep_stale` for jobs of other task queues, which are due `unreached` microseconds later."""
        own = None if self.task_queue is None else f"\n{short_name('task_queue')}={self.task_queue}\n"
        return {"others_from": now - self.unreached, "waits": _WAITS_FOR_TASK_QUEUE, "own": own}


class Hold(NamedTuple):
    """After an outage no lease is recovered before `until`. `since` is when the first of several close outages was noticed."""

    since: int
    until: int


def hold_of(now: int, last: int | None, hold: Hold | None, lease: int) -> tuple[int | None, Hold | None]:
    """Return the time until which expired leases are due (None: none are), and the hold to keep; all in microseconds.

    `last` and `hold` are those of the last sweep. There was an outage if that is more than half a lease ago, or ahead of
    the clock because that was set back. An outage within a hold prolongs it, so the owners of live runs have a whole lease
    after each outage to renew. But sweeps may always be rare: the first late one that is at least a lease after `since`
    recovers leases that were not renewed since then, and begins another hold. The sweep at `since` may have come one sweep
    interval after the outage, which is at most a quarter of a lease, and after renewals.
    """
    if last is not None and last > now:
        return None, Hold(now, now + lease)
    if last is None or now - last <= lease // 2:
        return (now, None) if hold is None or now >= hold.until else (None, hold)
    if hold is None:
        return None, Hold(now, now + lease)
    if now < hold.since + lease:
        return None, Hold(hold.since, now + lease)
    return hold.since + lease - lease // 4, Hold(now, now + lease)
