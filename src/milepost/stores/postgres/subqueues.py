"""The subqueues of queues, in rings: those of one queue and limit key, in the order of their turns, see `subqueues.sql`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from milepost.core.limits import Capacities, key_of, queue_name, ring_name, slot_of, type_name, with_keys
from milepost.core.serialization import US
from milepost.stores.claim_order import Subqueue
from milepost.stores.postgres.connection import Rows
from milepost.stores.postgres.database import Part, Transaction, for_rows
from milepost.stores.postgres.limits import limits_of


@dataclass(frozen=True, slots=True)
class OpenRings:
    """The rings whose queue is not paused and whose limit key has capacity. `full` are subqueues of them without capacity."""

    rings: list[str]
    full: list[str]
    capacities: Capacities

    @property
    def request(self) -> dict[str, Any]:
        """Return the values for the statements that read them."""
        return {"rings": self.rings, "full": self.full}

    def has_capacity(self, name: str) -> bool:
        """Return whether jobs of a subqueue may start."""
        return ring_name(name) in self.rings and self.capacities.of(slot_of(name)) > 0


def capacity_parts(rings: Mapping[str, Sequence[str]], own: Mapping[str, int | None]) -> list[Part]:
    """Return the statements whose rows `open_rings` takes."""
    return [("limits", None), ("held_slots", {"keys": sorted({*rings, *map(type_name, own)})})]


def open_rings(
    rings: Mapping[str, Sequence[str]], own: Mapping[str, int | None], now: int, limits: Rows, counted: Rows
) -> OpenRings:
    """Return the open ones of the rings of limit keys, for a worker with limits of its `own`."""
    held: Counter[str] = with_keys((slot, count) for slot, count in counted)
    capacities = Capacities(limits_of(limits), own, held.__getitem__, now)
    every = sorted({ring for some in rings.values() for ring in some})
    found = [ring for ring in every if not capacities.is_paused(ring) and capacities.of(slot_of(ring)) > 0]
    slots = [slot for slot in held if US in slot and capacities.of(slot) <= 0]
    full = [f"{queue_name(ring)}{US}{slot}" for slot in slots for ring in found if slot_of(ring) == key_of(slot)]
    return OpenRings(found, full, capacities)


async def first_subqueues(tx: Transaction, read: OpenRings, most: int) -> tuple[list[Subqueue], bool]:
    """Return at least the first `most` subqueues of each open ring, and whether these are all."""
    while True:
        (rows,) = await tx.run(("first_subqueues", {**read.request, "most": most}))
        outdated = sorted((name, found) for rank, _, name, found in rows if rank != found)
        if not outdated:
            return [Subqueue(rank, turn, name) for rank, turn, name, _ in rows], len(rows) < most
        # The first records of these have gone, so others may be before them.
        await tx.run(*for_rows("ranks_put", "names ranks", outdated))
        most <<= 3
