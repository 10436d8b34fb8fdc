"""The settings of limit keys in memory, without those that change nothing."""

from __future__ import annotations

from milepost.core.limits import Limit
from milepost.core.transitions.operations import BranchResult


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

    def apply(self, effect: BranchResult, now: int) -> None:
        """Close the gates that a branch closes, and give back the starts that it gives back."""
        for key, until in effect.gates.items():
            self.close_gate(key, until, now)
        for key, started in effect.unstarted:
            if key in self:
                self[key] = self[key].returned(started, now)
