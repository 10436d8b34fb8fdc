"""After an outage of the store, wait one lease duration so that owners can renew before expired leases are recovered."""

from __future__ import annotations

from typing import NamedTuple


class Hold(NamedTuple):
    """A sweep may recover leases that expired at `due` or earlier (None: none). `until` is the end of the hold, if any."""

    due: int | None
    until: int | None


def hold_of(now: int, last: int | None, until: int | None, lease: int) -> Hold:
    """Return the hold for a sweep at `now`, given the time of the last sweep and its hold; all in microseconds.

    There was an outage if the last sweep is more than half a lease ago, or ahead of the clock because that was set back.
    The first sweep after a hold recovers leases that were not renewed since the hold began, however late it runs. If it
    follows another outage, leases that were renewed since then are held again.
    """
    went_back = last is not None and last > now
    late = went_back or (last is not None and now - last > lease // 2)
    if until is None or went_back:
        return Hold(None, now + lease) if late else Hold(now, None)
    if now < until:
        return Hold(None, until)
    return Hold(until - 1, now + lease) if late else Hold(now, None)
