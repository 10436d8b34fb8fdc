"""Between records and rows. Owns which columns a record has (the rules of `protocol.Placement`); knows no connection."""

from __future__ import annotations

from typing import NamedTuple

from milepost.core.change import Record
from milepost.core.job import Job
from milepost.core.packing import SHORT, pack, unpack

Columns = tuple[str | int | None, ...]

LARGEST = (1 << 63) - 1
_CREATED, _TOKEN, _LEASE = (f"\n{SHORT[name]}=" for name in ("created", "token", "lease"))


class Row(NamedTuple):
    """A record as it is stored. Lease and token are columns alone, so that a renewal touches one number."""

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
        """The packed fields."""
        text = self.body
        created = f"{_CREATED}{self.created}"
        if created not in text:  # a damaged record; without its place a list could not go on behind it
            text += created
        if self.token is not None:
            text += _TOKEN + self.token
        if self.lease is not None:
            text += f"{_LEASE}{self.lease}"
        return text

    def record(self) -> dict[str, str]:
        """The fields. Where the text is damaged, those that a change cannot do without come from the columns."""
        record = unpack(self.body)
        if "status" not in record or "created" not in record or "type" not in record:
            record = {**record, "status": self.status, "created": str(self.created), "type": self.type}
        if self.token is not None:
            record["token"] = self.token
        if self.lease is not None:
            record["lease"] = str(self.lease)
        return record

    def job(self, waiting_for: str | None = None) -> Job:
        """The job, with what it waits for."""
        text = self.text()
        return Job.stored(self.id, text if waiting_for is None else f"{text}\nwaiting_for={waiting_for}")


def body(record: Record) -> str:
    """The text that is stored of a record: all but its lease and token."""
    if "token" in record or "lease" in record:
        return pack({name: value for name, value in record.items() if name not in ("token", "lease")})
    return pack(record)


def columns(record: Record, now: int) -> Columns:
    """What is derived from a record, in the order of `apply_insert` and `apply_move`.

    `rank` is the priority turned round, so that the order of claims is ascending. `scheduled` is when a record becomes
    claimable, empty once it has. `slot` and `worker` are those of its lease. ValueError for a number that is none.
    """
    get = record.get
    queue = get("queue") or None
    scheduled = deadline = lease = slot = worker = None
    rank = 0
    if queue is not None:
        rank = -int(get("priority") or 0)
        before = _number(get("not_before"))
        if before is not None and before > now:
            scheduled = before
    if "not_after" in record and "started" not in record and "completed" not in record:
        deadline = _number(record["not_after"])
    if "lease" in record:
        lease, slot, worker = _number(record["lease"]), get("slot", ""), get("worker", "")
    return (
        record["type"], record["status"], 1 if get("stalled") else 0, queue, rank, scheduled, deadline, lease, get("token"),
        slot, worker, _number(get("stale")), _number(get("completed")), get("unique_key") or None,
    )  # fmt: skip


def pairs(record: Record) -> set[str]:
    """The labels of a record, each ``key=value``."""
    text = record.get("labels")
    return set(filter(None, text.split("\x1f"))) if text else set()


def _number(text: str | None) -> int | None:
    return None if text is None else max(-LARGEST, min(int(text), LARGEST))
