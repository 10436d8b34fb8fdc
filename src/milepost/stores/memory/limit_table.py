"""The settings of limit keys in memory, without those that change nothing."""

from __future__ import annotations

from milepost.core.limits import Limit


class LimitTable(dict[str, Limit]):
    """The limits by key."""

    def put(self, key: str, limit: Limit, now: int) -> None:
        """Set a limit, and forget those that change nothing any more."""
        self[key] = limit
        for name in [name for name, one in self.items() if one.is_empty(now)]:
            del self[name]

    def close_gate(self, key: str, until: int, now: int) -> None:
        """Let no job with a limit key start until a time, or a later one that is set; 0 opens its gate."""
        limit = self.get(key, Limit())
        self.put(key, limit._replace(gate=max(limit.gate, until) if until else 0), now)

    def return_start(self, key: str, started: int, now: int) -> None:
        """Give a start back to the rate of a limit key."""
        if key in self:
            self[key] = self[key].returned(started, now)
