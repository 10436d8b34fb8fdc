"""The operation ids that a record keeps, so that a request repeated after a lost reply is applied once.

Each kind of request is kept separately, so that the many writes of a run cannot displace the one request of a caller:

=============  =======================================================================================================
retention      what is kept
=============  =======================================================================================================
"last"         the last start, end or recovery, with its branch, at the beginning of field `recent_ops`
"reports"      the newest report or log lines of a run, next in field `recent_ops`, until its code has stopped. They are
               applied in the order of their ids, so an id that is not greater than the kept one was applied before
"checkpoints"  the newest checkpoint of a run, likewise, next in field `recent_ops`
"steps"        the newest kept step of a run, likewise, last in field `recent_ops`
"updates"      the last UPDATES_KEPT updates of a manual job, or notes that the job of a task queue cannot be dispatched:
               field `update_ops`
"callers"      the newest CALLERS_KEPT: field `caller_ops`, and in a tombstone once the record is removed. One more
               within 60 s is refused, with the time after which it is accepted
=============  =======================================================================================================

The id that created a record is kept as long as the record (field `created_by_op`).

A request may be repeated for 60 s. A tombstone stays for an hour of the store's clock (KEPT_MICROS), so that it survives
a clock that is set ahead by up to 59 minutes. In a record an id is displaced only by newer ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

Record = Mapping[str, str]
IdRetention = Literal["last", "reports", "checkpoints", "steps", "updates", "callers"]

OP_WIDTH = 8
SOURCE_WIDTH = 4
"""The characters of an id that name its source; ids of one source increase, by code points."""
LAST_WIDTH = OP_WIDTH + 1
"""An id and the number of its branch."""
CALLER_WIDTH = LAST_WIDTH + 10
"""The same with the second at which it was applied."""
CALLERS_KEPT = 64
CALLERS_SECONDS = 60
KEPT_MICROS = 3_600_000_000
"""How long the stores keep what only a repeated request needs: tombstones and the answers to claims."""
UPDATES_KEPT = 7
CREATION_OF_REMOVED = "-"
"""The branch that stands for the creation of a removed record."""

_PLACES = {
    "reports": slice(LAST_WIDTH, LAST_WIDTH + OP_WIDTH),
    "checkpoints": slice(LAST_WIDTH + OP_WIDTH, LAST_WIDTH + 2 * OP_WIDTH),
    "steps": slice(LAST_WIDTH + 2 * OP_WIDTH, LAST_WIDTH + 3 * OP_WIDTH),
}


def applied_branch(operation_id: str, retention: IdRetention, record: Record, gone: str = "") -> int | None:
    """Return the branch that an operation was applied with, or None if it is not known; -1 if its record was removed.

    `gone` has the callers' operation ids on removed records of the id.
    """
    if gone and (branch := _find(operation_id, gone, CALLER_WIDTH)) is not None:
        return branch
    if record.get("created_by_op") == operation_id:
        return 0
    match retention:
        case "callers":
            return _find(operation_id, record.get("caller_ops", ""), CALLER_WIDTH)
        case "updates":
            return _find(operation_id, record.get("update_ops", ""), LAST_WIDTH)
        case "last":
            kept = record.get("recent_ops", "")
            return int(kept[OP_WIDTH]) if kept.startswith(operation_id) else None
    return None


def is_superseded(operation_id: str, retention: IdRetention, record: Record) -> bool:
    """Return whether this write of a run, or a later one of its kind from the same source, was applied."""
    place = _PLACES.get(retention)
    if place is None:
        return False
    kept = record.get("recent_ops", "")[place]
    return kept[:SOURCE_WIDTH] == operation_id[:SOURCE_WIDTH] and operation_id <= kept


def id_fields(
    operation_id: str,
    branch: int,
    retention: IdRetention,
    record: Record,
    now: int,
    may_write: Callable[[], bool] = lambda: False,
) -> dict[str, str]:
    """Return the fields that record an operation which is being applied.

    `may_write` returns whether the code of a run may continue after the operation, and so write at least log lines.
    """
    ops = record.get("recent_ops", "")
    match retention:
        case "last":
            rest = ops[LAST_WIDTH:]
            return {"recent_ops": f"{operation_id}{branch}{rest if rest and may_write() else ''}"}
        case "updates":
            return {"update_ops": f"{record.get('update_ops', '')}{operation_id}{branch}"[-LAST_WIDTH * UPDATES_KEPT :]}
        case "callers":
            return {
                "caller_ops": without_expired(record.get("caller_ops", ""), now)
                + _entry(operation_id, str(branch), now)
            }
    place = _PLACES[retention]
    return {"recent_ops": f"{ops[: place.start]:{place.start}}{operation_id}{ops[place.stop :]}"}


def wait(record: Record, now: int) -> int:
    """Return the microseconds until another caller request is accepted; 0 if it is accepted now."""
    asked = without_expired(record.get("caller_ops", ""), now)
    if len(asked) < CALLERS_KEPT * CALLER_WIDTH:
        return 0
    return max(1_000_000, (int(asked[LAST_WIDTH:CALLER_WIDTH]) + CALLERS_SECONDS) * 1_000_000 - now)


def tombstone(operation_id: str, branch: int, record: Record, gone: str, now: int) -> str:
    """Return the tombstone of a record that an operation removes; `gone` is the tombstone of earlier ones."""
    born = record.get("created_by_op", "")
    creation = _entry(born, CREATION_OF_REMOVED, now) if len(born) == OP_WIDTH else ""
    return (
        without_expired(gone, now)
        + without_expired(record.get("caller_ops", ""), now)
        + creation
        + _entry(operation_id, str(branch), now)
    )


def without_expired(kept: str, now: int) -> str:
    """Return the callers' operations, dropping the oldest beyond the limit if they are older than a minute."""
    second, at = now // 1_000_000, 0
    surplus = len(kept) - (CALLERS_KEPT - 1) * CALLER_WIDTH
    while at < surplus and abs(second - int(kept[at + LAST_WIDTH : at + CALLER_WIDTH])) >= CALLERS_SECONDS:
        at += CALLER_WIDTH
    return kept[at:]


def _entry(operation_id: str, branch: str, now: int) -> str:
    return f"{operation_id}{branch}{now // 1_000_000:010d}"


def _find(operation_id: str, kept: str, width: int) -> int | None:
    for start in range(0, len(kept), width):
        if kept.startswith(operation_id, start):
            branch = kept[start + OP_WIDTH]
            return -1 if branch == CREATION_OF_REMOVED else int(branch)
    return None
