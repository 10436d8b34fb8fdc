"""The rows of stores in SQL: what they keep in columns, derived from the fields of a record, and the text of the rest."""

from __future__ import annotations

from typing import NamedTuple

from milepost.core.job import Job
from milepost.core.limits import queue_name
from milepost.core.placement import starts_at
from milepost.core.record_codec import SHORT, pack, unpack
from milepost.core.serialization import US
from milepost.core.transitions.change import Record

LARGEST = (1 << 63) - 1
NEVER = LARGEST
"""Where a held record is in the column `scheduled`: it becomes claimable when it is released."""
_CREATED, _TOKEN, _LEASE = (f"\n{SHORT[name]}=" for name in ("created", "token", "lease"))


class Row(NamedTuple):
    """A stored record. Lease and token are only in columns, so that a renewal updates one number."""

    n: int
    id: str
    created: int
    type: str
    status: str
    lease: int | None
    token: str | None
    queue: str | None
    unique_key: str | None
    body: str
    rank: int = 0

    def text(self) -> str:
        """Return the packed fields."""
        text = self.body
        created = f"{_CREATED}{self.created}"
        if created not in text:  # a damaged record; a list needs the creation time to continue after it
            text += created
        if self.token is not None:
            text += _TOKEN + self.token
        if self.lease is not None:
            text += f"{_LEASE}{self.lease}"
        return text

    def record(self) -> dict[str, str]:
        """Return the fields; those that every change needs come from the columns if the text is damaged."""
        record = unpack(self.body)
        if "status" not in record or "created" not in record or "type" not in record:
            record = {**record, "status": self.status, "created": str(self.created), "type": self.type}
        if self.token is not None:
            record["token"] = self.token
        if self.lease is not None:
            record["lease"] = str(self.lease)
        return record

    def job(self, waiting_for: str | None = None) -> Job:
        """Return the job, with `waiting_for`."""
        text = self.text()
        return Job.stored(self.id, text if waiting_for is None else f"{text}\nwaiting_for={waiting_for}")


class Columns(NamedTuple):
    """What indexes need of a record, in columns.

    `rank` is the negated priority, so that claims are in ascending order. `scheduled` is when a record becomes claimable,
    None once it is. `subqueue` is its queue from then on, if that is another one. `slot` and `worker` are those of its lease.
    """

    type: str
    status: str
    stalled: int
    queue: str | None
    rank: int
    scheduled: int | None
    subqueue: str | None
    deadline: int | None
    lease: int | None
    token: str | None
    slot: str | None
    worker: str | None
    stale: int | None
    ended: int | None
    unique_key: str | None


def body(record: Record) -> str:
    """Return the stored text of a record: all fields except lease and token."""
    if "token" in record or "lease" in record:
        record = dict(record)
        record.pop("token", None)
        record.pop("lease", None)
    return pack(record)


def columns(record: Record, now: int) -> Columns:
    """Return the index columns of a record. Raises ValueError for an invalid number."""
    get = record.get
    queue = get("ready") or None
    scheduled = subqueue = deadline = lease = slot = worker = None
    rank = 0
    if queue is not None:
        rank = -(_number(get("priority") or "0") or 0)
        start = starts_at(record)
        if start is None or start > now:
            scheduled = NEVER if start is None else min(start, NEVER - 1)
            if US in queue:
                subqueue, queue = queue, queue_name(queue)
    if "not_after" in record and "started" not in record and "completed" not in record:
        deadline = _number(record["not_after"])
    if "lease" in record:
        lease, slot, worker = _number(record["lease"]), get("slot", ""), get("worker", "")
    return Columns(
        record["type"], record["status"], 1 if get("stalled") else 0, queue, rank, scheduled, subqueue, deadline, lease,
        get("token"), slot, worker, _number(get("stale")), _number(get("completed")), get("unique_key") or None,
    )  # fmt: skip


def pairs(record: Record) -> set[str]:
    """Return the labels of a record, each as ``key=value``."""
    text = record.get("labels")
    return set(filter(None, text.split(US))) if text else set()


def _number(text: str | None) -> int | None:
    return None if text is None else max(-LARGEST, min(int(text), LARGEST))


KEEP = {"feed": 0, "list": 1, "life": 2}
"""The numbers that stand for where an event is kept, see `core.transitions.change`."""
