"""Limits on running jobs: what they count, and the names under which the jobs that they count are claimed.

A limit counts leases by *slot*: the limit key of a job, followed by its partition if it has one. Jobs with a limit key
or a partition of their own are claimable in a *subqueue* of their queue, one for each slot. All other jobs are
claimable in the queue itself, and their slot is their type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from math import inf
from typing import Any, NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import US, validate_key

AFTER_US = " "
"""The first character after those that keys cannot contain: the slots of a key are the texts in [key, key + AFTER_US)."""


class Keep(Enum):
    """Stands for a part of a setting that stays as it is."""

    KEEP = "keep"


KEEP = Keep.KEEP


class Limit(NamedTuple):
    """A limit key's setting: the most leases at once in all and in each partition, None for any number; and whether the
    type of that name is paused."""

    running: int | None = None
    paused: bool = False
    per_partition: int | None = None

    def changed(self, running: int | Keep | None, paused: bool | Keep, per_partition: int | Keep | None) -> Limit:
        """Return the setting with other values, except for those that are KEEP."""
        return Limit(
            self.running if running is KEEP else running,
            self.paused if paused is KEEP else paused,
            self.per_partition if per_partition is KEEP else per_partition,
        )


KEY_BYTES = 128
MAX_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class LimitState:
    """A limit with its use: at most `running` jobs with the limit key run at once, and `per_partition` of each partition."""

    key: str
    running: int | None = None
    per_partition: int | None = None
    leases: int = 0
    """How many jobs with this key run now, stopping ones included."""
    partitions: dict[str, int] = field(default_factory=dict)
    """The same by partition, without zeros."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def validate_limit(key: object, running: object, per_partition: object) -> None:
    """Raise InvalidInputError unless a limit can be set."""
    validate_key(key, "key", KEY_BYTES)
    for name, value, least in (("running", running, 0), ("per_partition", per_partition, 1)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and least <= value <= MAX_LIMIT):  # type: ignore[operator]
            raise InvalidInputError(
                name, f"{value!r:.40} must be a whole number from {least} to {MAX_LIMIT}, or None for no limit"
            )


def with_keys(slots: Iterable[tuple[str, int]]) -> Counter[str]:
    """Return the number of leases by slot and by limit key, from that by slot."""
    held: Counter[str] = Counter()
    for slot, count in slots:
        for name in counted_under(slot):
            held[name] += count
    return held


def limit_states(limits: Mapping[str, Limit], held: Mapping[str, int]) -> list[LimitState]:
    """Return the limits by key with their use; `held` is the number of leases by slot and by limit key."""
    partitions: dict[str, dict[str, int]] = {}
    for slot, count in sorted(held.items()):
        key, _, partition = slot.partition(US)
        if partition and count > 0:
            partitions.setdefault(key, {})[partition] = count
    return [
        LimitState(key, limit.running, limit.per_partition, held.get(key, 0), partitions.get(key, {}))
        for key, limit in sorted(limits.items())
        if limit.running is not None or limit.per_partition is not None
    ]


def ready_name(job_type: str, queue: str | None = None, slot: str | None = None) -> str:
    """Return the name under which a job is claimed: the queue, as `queue_name`, and for a subqueue US and the slot."""
    name = job_type if queue is None or queue == job_type else f"{job_type}@{queue}"
    return name if slot is None or slot == job_type else f"{name}{US}{slot}"


def queue_name(ready: str) -> str:
    """Return the queue of such a name, as workers claim it: the type, which is its default queue, or ``type@queue``."""
    return ready.partition(US)[0]


def type_name(ready: str) -> str:
    """Return the type of such a name; it is paused whatever its queues."""
    return queue_name(ready).partition("@")[0]


def slot_name(limit_key: str, partition: str | None) -> str:
    """Return the slot of a limit key and a partition."""
    return limit_key if not partition else f"{limit_key}{US}{partition}"


def slot_of(ready: str) -> str:
    """Return the slot of the jobs that are claimed under a name."""
    return ready.partition(US)[2] or type_name(ready)


def key_of(slot: str) -> str:
    """Return the limit key of a slot."""
    return slot.partition(US)[0]


def counted_under(slot: str) -> set[str]:
    """Return the names under which a lease of a slot counts: the slot and its limit key."""
    return {slot, key_of(slot)}


class Capacities:
    """How many more leases slots may have. `held` counts the leases of a slot; those of a key include all its partitions.

    `own` are the limits of a worker for the types that it serves; they apply where none is set in the store.
    """

    def __init__(self, limits: Mapping[str, Limit], own: Mapping[str, int | None], held: Callable[[str], int]) -> None:
        self._limits, self._count, self._held = limits, held, dict[str, int]()
        self._own = {type_name(queue): limit for queue, limit in own.items()}

    def is_paused(self, queue: str) -> bool:
        """Return whether the type of a queue is paused."""
        return self._limits.get(type_name(queue), Limit()).paused

    def of(self, slot: str) -> float:
        """Return how many more leases a slot may have; infinite without a limit."""
        key, _, partition = slot.partition(US)
        limit = self._limits.get(key, Limit())
        running = self._own.get(key) if limit.running is None else limit.running
        capacity = inf if running is None else running - self.held(key)
        if partition and limit.per_partition is not None and capacity > 0:
            capacity = min(capacity, limit.per_partition - self.held(slot))
        return capacity

    def held(self, slot: str) -> int:
        """Return the number of leases of a slot, with those that were taken since."""
        if slot not in self._held:
            self._held[slot] = self._count(slot)
        return self._held[slot]

    def take(self, slot: str) -> None:
        """Count one more lease of a slot."""
        for name in counted_under(slot) & self._held.keys():
            self._held[name] += 1
