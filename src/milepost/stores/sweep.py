"""The arguments of a sweep, shared by the SQL stores."""

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
