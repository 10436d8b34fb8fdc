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
    """A sweep may recover leases that expired at `due` or earlier (None: none). `until` is the end of the hold, if any."""

    due: int | None
    until: int | None


def hold_of(now: int, last: int | None, until: int | None, lease: int) -> Hold:
    """Return the hold for a sweep at `now`, given the time of the last sweep and its hold; all in microseconds.

    There was an outage if the last sweep is more than half a lease ago, or ahead of the clock because that was set back.
    The first sweep after a hold recovers leases that were not renewed since the outage, however late it runs. If it
    follows another outage, leases that were renewed since then are held again. The sweep that began the hold may have
    come one sweep interval after the outage, which is at most a quarter of a lease, and after renewals.
    """
    went_back = last is not None and last > now
    late = went_back or (last is not None and now - last > lease // 2)
    if until is None or went_back:
        return Hold(None, now + lease) if late else Hold(now, None)
    if now < until:
        return Hold(None, until)
    return Hold(until - lease // 4, now + lease) if late else Hold(now, None)
