"""The guards of transitions, and what they mean.

::

    ("token", src)          the record has a live lease with this token
    ("eq" | "ne", f, src)   the field (missing: empty) equals, or does not equal, this text
    ("lt" | "ge", f, src)   the field as a number (missing: 0) is less than, or at least, this number
    ("has" | "lacks", f)    the field exists, or does not
    ("past", f)             the field exists and is not after the store's clock
    ("ahead", f)            the field is missing, or after the store's clock
    ("due", f)              the field is missing, or not after the store's clock
    ("startable",)          the record is not held, and its earliest start has come: see `core.placement.starts_at`
    ("known", src)          every group that the pairs of `after` in this text name is known to the store
    ("open",)               a group that the record waits for has an open member: see `core.placement`
    ("failed", statuses)    a member of such a group ended, or was removed, in one of these statuses, and the record asks
                            to be cancelled then
    ("free",)               no draining lease blocks this id or its unique key (without a record: the change's `key`)
    ("unique", statuses)    no other record in these statuses (separated by spaces) has the unique key (the change's
                            `key`, else that of the record)
    ("value", key, src)     the key-value store has this text under the key, which is a source as well
    ("stopping", src)       the draining lease of this id has this token
    ("overdue", src)        the same, and the lease has expired by the store's clock
    ("leased", src, src)    the other record with this id has a live lease with this token
    ("joinable", src, src, src)  no group that the pairs of `group` in this text name belongs to a closed batch, or the other
                            record with this id has a live lease with this token
    ("orphan", statuses)    the record was made by a run, and its parent has one of these statuses, or no record
    ("parented", statuses)  the opposite
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from milepost.core.placement import BATCH, after_groups, failed_member, groups_joined, is_orphan, open_group, starts_at

if TYPE_CHECKING:
    from milepost.core.transitions.facts import StoreFacts
    from milepost.core.transitions.operations import Guard, Part, Record


def holds(
    guard: Guard, text: Callable[[Part], str | None], job_id: str, record: Record, key: str | None, facts: StoreFacts
) -> bool:
    """Return whether a guard holds for a record. `text` returns the text of a source, `key` is that of the change."""
    word, *rest = guard
    match word:
        case "token":
            return bool(record.get("token")) and record["token"] == text(rest[0])
        case "eq" | "ne":
            wanted = text(rest[1])
            missing = isinstance(rest[1], int) and wanted is None
            return missing or (record.get(str(rest[0]), "") == (wanted or "")) is (word == "eq")
        case "lt" | "ge":
            bound = text(rest[1])
            missing = isinstance(rest[1], int) and bound is None
            return missing or (float(record.get(str(rest[0])) or 0) < float(bound or 0)) is (word == "lt")
        case "has" | "lacks":
            return (str(rest[0]) in record) is (word == "has")
        case "past":
            return str(rest[0]) in record and int(record[str(rest[0])]) <= facts.now
        case "ahead":
            return str(rest[0]) not in record or int(record[str(rest[0])]) > facts.now
        case "due":
            return str(rest[0]) not in record or int(record[str(rest[0])]) <= facts.now
        case "startable":
            start = starts_at(record)
            return start is not None and start <= facts.now
        case "known":
            return all(map(facts.knows, after_groups(text(rest[0]) or "")))
        case "open":
            return open_group(record, facts) is not None
        case "failed":
            return failed_member(record, str(rest[0]).split(), facts) is not None
        case "leased":
            return _is_leased(text(rest[0]), text(rest[1]), facts)
        case "joinable":
            batches = map(facts.other, groups_joined(text(rest[0]) or ""))
            is_closed = any(one and one["type"] == BATCH and ("closed" in one or "completed" in one) for one in batches)
            return not is_closed or _is_leased(text(rest[1]), text(rest[2]), facts)
        case "orphan" | "parented":
            return is_orphan(record, str(rest[0]).split(), facts.other) is (word == "orphan")
        case "free":
            key = record.get("unique_key") or key
            return facts.stopping(job_id) is None and not (key and facts.key_is_draining(key))
        case "unique":
            key = key or record.get("unique_key")
            return not key or facts.key_owner_status(key, job_id) not in str(rest[0]).split()
        case "value":
            return facts.value_of(text(rest[0]) or "") == text(rest[1])
        case "stopping" | "overdue":
            lease = facts.stopping(job_id)
            if lease is None or lease.token != text(rest[0]):
                return False
            return word == "stopping" or lease.expires <= facts.now
    raise AssertionError(f"unknown guard {word!r}")


def _is_leased(job_id: str | None, token: str | None, facts: StoreFacts) -> bool:
    other = facts.other(job_id) if job_id else None
    return other is not None and bool(other.get("token")) and other["token"] == token
