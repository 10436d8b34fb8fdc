"""Positions in the feed. Transactions commit in another order than that in which they wrote, and may stay open for minutes.

So a position is not the last event that was read, but the set of transactions whose events were: all before `first`,
except those of `unfinished`, which were open. No event is skipped, none waits for an open transaction, and the events of one
job come in the order of its versions, because each change of a job follows the commit of the one before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from milepost.core.events import Event
from milepost.core.record_codec import unpack
from milepost.stores.postgres.connection import Rows
from milepost.stores.postgres.database import Database
from milepost.stores.protocol import FeedEvents


class FeedPosition(NamedTuple):
    """With `until`, a snapshot, a reader is within the events that it sees: it has read those up to number `after`."""

    first: int
    unfinished: tuple[int, ...] = ()
    until: str | None = None
    after: int = 0

    @classmethod
    def read(cls, text: str) -> FeedPosition:
        """Return the position of a text."""
        seen, _, page = text.partition("/")
        first, *unfinished = map(int, seen.split("-"))
        if not page:
            return cls(first, tuple(unfinished))
        until, _, after = page.rpartition("/")
        return cls(first, tuple(unfinished), until, int(after))

    @classmethod
    def of_snapshot(cls, snapshot: str) -> FeedPosition:
        """Return the position after all that a snapshot sees. Its text is "xmin:xmax:open,open,..."."""
        _, last, unfinished = snapshot.split(":")
        return cls(int(last), tuple(map(int, unfinished.split(","))) if unfinished else ())

    def __str__(self) -> str:
        seen = "-".join(map(str, (self.first, *self.unfinished)))
        return seen if self.until is None else f"{seen}/{self.until}/{self.after}"

    def values(self, limit: int) -> dict[str, Any]:
        """Return the values of the statement `feed`."""
        return {
            "first": str(self.first), "unfinished": [str(xid) for xid in self.unfinished], "until": self.until,
            "after": self.after, "limit": limit,
        }  # fmt: skip

    def has_lost(self, trimmed: int, transaction: int) -> bool:
        """Return whether events that left the feed, up to this number and this transaction, were not read."""
        if self.first == 0:
            return self.until is not None and trimmed > self.after
        return transaction >= self.first or transaction in self.unfinished

    def behind(self, found: Rows, limit: int) -> FeedPosition:
        """Return the position after the rows of the statement `feed`."""
        until, *_ = found[0]
        events = [row for row in found if row[4] is not None]
        if len(events) >= limit:
            return self._replace(until=until, after=events[-1][4])
        end = FeedPosition.of_snapshot(until)
        if self.until is None:  # name no transaction without events, so that a quiet feed keeps its position
            first = max([self.first, *(row[5] + 1 for row in events)])
            end = FeedPosition(first, end.unfinished) if first < end.first else end
        return FeedPosition(end.first, tuple(sorted(xid for xid in end.unfinished if xid < end.first)))


async def read_feed(db: Database, start: FeedPosition, limit: int) -> FeedEvents:
    """Return the events after a position."""
    (rows,) = await db.run(("feed", start.values(limit)))
    snapshot, end, trimmed, transaction, *_ = rows[0]
    if start.first > end:  # the position is from an earlier database with this URL
        return FeedEvents([], str(FeedPosition.of_snapshot(snapshot)), lost=True)
    events = [
        Event.stored(job_id, version, kind, at, unpack(text))
        for *_, seq, _, job_id, version, kind, at, text in rows
        if seq is not None
    ]
    if transaction >= end:  # of the server from whose dump this database was restored
        transaction = 0
    return FeedEvents(events, str(start.behind(rows, limit)), lost=start.has_lost(trimmed, transaction))
