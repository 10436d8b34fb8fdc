"""When a record may start, as a pure function of its fields; every store places pending records by it."""

from __future__ import annotations

from collections.abc import Mapping

Record = Mapping[str, str]


def starts_at(record: Record) -> int | None:
    """Return the earliest start of a pending record in microseconds, 0 if it has none; None while it is held.

    A held record waits for a group of `after` or `wait_groups` that has an open member. A suspended one (`wait_groups`,
    `wake_at`) may start as soon as it is not held, or at `wake_at`, whichever comes first.
    """
    wake_at = record.get("wake_at")
    if "held" in record:
        return None if wake_at is None else int(wake_at)
    if "wait_groups" in record:
        return 0
    return int(record.get("not_before", 0) if wake_at is None else wake_at)
