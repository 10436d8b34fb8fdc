"""The limits of the SQLite store, and its subqueues in the order of their turns, see `subqueues.sql`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from heapq import merge
from typing import TYPE_CHECKING

from milepost.core.limits import AFTER_US, Capacities, Limit, Rate, key_of, ring_name, slot_of, with_keys
from milepost.core.serialization import US
from milepost.stores.claim_order import BEFORE_ALL, UNKNOWN_RANK, Subqueue

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


def place(tx: WriteTransaction, *queues: str | None) -> None:
    """Note that a record has left or entered queues: update the subqueues among them."""
    for name in {queue for queue in queues if queue is not None and US in queue}:
        tx.run("subqueue_put", {"name": name, "ring": ring_name(name)})


def promote_due(tx: WriteTransaction, queue: str, most: int) -> None:
    """Make due records of a queue claimable, up to `most`."""
    promoted = tx.all("claim_promote", (queue, tx.now, most))
    if promoted:
        tx.changed = True
        place(tx, *(name for (name,) in promoted))


def subqueue_rings(db: ReadTransaction, queue: str) -> list[str]:
    """Return the rings of a queue that have claimable records."""
    return [ring for (ring,) in db.all("rings", {"first": queue + US, "end": queue + AFTER_US})]


def first_subqueues(
    db: ReadTransaction, queue: str, rings: Sequence[str], capacities: Capacities, most: int
) -> Iterator[Subqueue]:
    """Yield a queue and the subqueues of its rings in ascending order, without those of limit keys without capacity.

    They are read as they are needed, at first `most` of each ring. Jobs may start meanwhile; a subqueue that moves on by its
    turn comes again.
    """
    if not rings:
        return iter([Subqueue(UNKNOWN_RANK, 0, queue)])
    found = db.one("turn_get", (queue,))
    own = Subqueue(UNKNOWN_RANK, 0 if found is None else found[0], queue)
    return merge([own], *(_open(db, ring, capacities, most) for ring in rings))


def _open(db: ReadTransaction, ring: str, capacities: Capacities, most: int) -> Iterator[Subqueue]:
    key, last = key_of(slot_of(ring)), BEFORE_ALL
    while capacities.of(key) > 0:
        rows = db.all("first_subqueues", {"ring": ring, "most": most, **last._asdict()})
        for row in rows:
            if capacities.of(key) > 0:
                last = Subqueue(*row)
                yield last
        if len(rows) < most:
            return
        most *= 2


def take_turn(tx: WriteTransaction, name: str) -> int:
    """Give the next turn to a subqueue, or to a queue that has some, and return its number."""
    ((turn,),) = tx.all("turn_take", {"name": name, "ring": ring_name(name)})
    tx.changed = True
    return int(turn)
