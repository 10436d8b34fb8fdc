"""The limits of the SQLite store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from milepost.core.limits import AFTER_US, Capacities, Limit, key_of, with_keys
from milepost.core.rate import Rate

if TYPE_CHECKING:
    from milepost.stores.sqlite.transaction import ReadTransaction, WriteTransaction


def read_limits(db: ReadTransaction) -> dict[str, Limit]:
    """Return the limits of limit keys."""
    rows = db.all("limits")
    return {
        key: Limit(running, bool(paused), per_partition, rate and Rate.parse(rate), gate, opens)
        for key, running, paused, per_partition, rate, gate, opens in rows
    }


def put_limit(tx: WriteTransaction, key: str, limit: Limit) -> None:
    """Store the limit of a limit key, and delete those that change nothing any more."""
    rate = limit.rate and str(limit.rate)
    tx.run("limit_put", (key, limit.running, int(limit.paused), limit.per_partition, rate, limit.gate, limit.opens))
    tx.run("limit_delete_empty", (tx.now,))
    tx.wakes_workers = True


def close_gate(tx: WriteTransaction, key: str, until: int) -> None:
    """Let no job with a limit key start until a time; 0 opens its gate."""
    limit = read_limits(tx).get(key, Limit())
    put_limit(tx, key, limit._replace(gate=max(limit.gate, until) if until else 0))


def return_start(tx: WriteTransaction, key: str, started: int) -> None:
    """Give a start back to the rate of a limit key."""
    limit = read_limits(tx).get(key)
    if limit is not None:
        tx.run("limit_opens", (limit.returned(started, tx.now).opens, key))


def capacities_of(db: ReadTransaction, queues: Mapping[str, int | None], now: int) -> Capacities:
    """Return how many more leases slots may have, for a worker that serves these queues."""

    counted: dict[str, Counter[str]] = {}

    def held(slot: str) -> int:
        key = key_of(slot)
        if key not in counted:
            counted[key] = with_keys(db.all("claim_held", {"slot": key, "end": key + AFTER_US}))
        return counted[key][slot]

    return Capacities(read_limits(db), queues, held, now)
