"""Where a record stands in the indexes: a pure function of its fields. Owns the rules of `protocol.Placement`.

The memory store keeps its indexes by it, and the conformance suite holds every other store against it.
"""

from __future__ import annotations

from milepost.core.change import Record

Entry = tuple[tuple[str, ...], tuple[int | str, ...]]
"""An index and the sort key that ends in the id."""

WAITING_FOR_STOP = "the previous run to stop"


def placement(job_id: str, record: Record, *, now: int, parked: bool) -> set[Entry]:
    """The entries of a record. `parked`: a stopping lease has its id or its unique key, so it is not claimable."""
    created = int(record["created"])
    order = (created, job_id)
    entries: set[Entry] = {(("list", record["type"], record["status"]), order)}
    for pair in filter(None, record.get("labels", "").split("\x1f")):
        entries.add((("label", pair), order))
    if record.get("stalled"):
        entries.add((("stalled",), order))
    if record.get("unique_key"):
        entries.add((("key", record["unique_key"]), order))
    if "lease" in record:
        entries.add((("lease",), (int(record["lease"]), job_id)))
        entries.add((("slot", record.get("slot", "")), order))
        entries.add((("worker", record.get("worker", "")), order))
    if "stale" in record:
        entries.add((("stale",), (int(record["stale"]), job_id)))
    if "completed" in record:
        entries.add((("ended",), (int(record["completed"]), job_id)))
    if "not_after" in record and "started" not in record and "completed" not in record:
        entries.add((("deadline",), (int(record["not_after"]), job_id)))
    queue = record.get("queue")
    if queue:
        due = int(record.get("not_before", 0))
        if not parked and due > now:
            entries.add((("scheduled", queue), (due, job_id)))
        elif not parked:
            entries.add((("claimable", queue), (-int(record.get("priority", 0)), created, job_id)))
    return entries
