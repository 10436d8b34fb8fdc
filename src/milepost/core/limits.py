"""Limits on running jobs and on the rate of starts: what they count, and the names under which the jobs that they count are claimed.

A limit counts leases by *slot*: the limit key of a job, followed by its partition if it has one. Jobs with a limit key
or a partition of their own are claimable in a *subqueue* of their queue, one for each slot. All other jobs are
claimable in the queue itself, and their slot is their type.

A rate says how many jobs may start per period, as the generic cell rate algorithm (GCRA) counts them. Starts are spaced
evenly, `spacing` apart. After a pause, as many may start at once as the rate allows in 50 ms. All that is kept is one
time, `opens`: when the next job may start.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from math import inf
from typing import Any, NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import US, from_micros, seconds, validate_key

MAX_STARTS = 1_000_000
MAX_PERIOD = 366 * 86_400
_BURSTS_PER_SECOND = 20
_RATE = re.compile(r"([0-9]{1,20})/([0-9]*[a-z]\w*)")
_PERIODS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "hour": 3600, "day": 86_400}
_SHOWN = {1: "s", 60: "min", 3600: "h", 86_400: "d"}


class Rate(NamedTuple):
    """At most `starts` in `period` seconds."""

    starts: int
    period: int

    @classmethod
    def parse(cls, value: object) -> Rate:
        """Return the rate of a text such as ``500/min``, ``10/s`` or ``1000/15m``. Raises InvalidInputError."""
        found = _RATE.fullmatch(value.replace(" ", "").lower()) if isinstance(value, str) else None
        period = None if found is None else _period_seconds(found[2])
        if found is None or period is None:
            raise InvalidInputError(
                "rate",
                f"{value!r:.40} is not a rate; use starts per period, for example '500/min', '10/s' or '1000/15m'",
            )
        starts = int(found[1])
        if not 1 <= starts <= MAX_STARTS or period != int(period) or not 1 <= period <= MAX_PERIOD:
            raise InvalidInputError(
                "rate",
                f"{value!r:.40} must be 1 to {MAX_STARTS} starts in a whole number of seconds, at most a year, for example "
                "'500/min' or '1000/15m'",
            )
        return cls(starts, int(period))

    def __str__(self) -> str:
        return f"{self.starts}/{_SHOWN.get(self.period) or f'{self.period}s'}"

    @property
    def spacing(self) -> int:
        """Return the microseconds between starts."""
        return -(-self.period * 1_000_000 // self.starts)

    @property
    def tolerance(self) -> int:
        """Return how many microseconds of starts may be made up for at once after a pause."""
        return (max(1, self.starts // (self.period * _BURSTS_PER_SECOND)) - 1) * self.spacing

    def admitted(self, opens: int, now: int) -> int:
        """Return how many jobs may start now, if one may."""
        return (now - self._unused_since(opens, now)) // self.spacing + 1

    def after_start(self, opens: int, now: int) -> int:
        """Return when the next job may start after one has started."""
        return self._unused_since(opens, now) + self.spacing

    def after_return(self, opens: int, started: int, now: int) -> int:
        """Return when the next job may start after the start at `started` was given back.

        One that is older than what may be made up for is lost, as it is if it was never taken.
        """
        fresh = started <= now < started + self.spacing + self.tolerance
        return max(0, opens - self.spacing) if fresh else opens

    def _unused_since(self, opens: int, now: int) -> int:
        return now if opens > now else max(opens, now - self.tolerance)


def _period_seconds(text: str) -> float | None:
    """Return the seconds of a period such as ``min`` or ``15m``, or None if it is not one."""
    try:
        return _PERIODS.get(text) or seconds(text if text[0].isdigit() else f"1{text}", "period")
    except InvalidInputError:
        return None


AFTER_US = " "
"""The first character after those that keys cannot contain: the slots of a key are the texts in [key, key + AFTER_US)."""


class Keep(Enum):
    """Stands for a part of a setting that stays as it is."""

    KEEP = "keep"


KEEP = Keep.KEEP


class Limit(NamedTuple):
    """A limit key's setting: the most leases at once in all and in each partition, None for any number; whether the type of
    that name is paused; and how often jobs may start.

    No job starts before `gate` and `opens`, times of the store's clock in microseconds: a gate is closed until then, and
    the rate is spent until then. Starts move `opens`.
    """

    running: int | None = None
    paused: bool = False
    per_partition: int | None = None
    rate: Rate | None = None
    gate: int = 0
    opens: int = 0

    def changed(
        self,
        running: int | Keep | None,
        paused: bool | Keep,
        per_partition: int | Keep | None,
        rate: Rate | Keep | None = KEEP,
    ) -> Limit:
        """Return the setting with other values, except for those that are KEEP. Another rate starts afresh."""
        return Limit(
            self.running if running is KEEP else running,
            self.paused if paused is KEEP else paused,
            self.per_partition if per_partition is KEEP else per_partition,
            self.rate if rate is KEEP else rate,
            self.gate,
            self.opens if rate in (KEEP, self.rate) else 0,
        )

    def is_empty(self, now: int) -> bool:
        """Return whether it changes nothing, so that it need not be kept."""
        return self[:4] == Limit()[:4] and self.gate <= now

    def opens_at(self, now: int) -> int:
        """Return when its gate and rate let a job start: `now` or a later time."""
        # A start moves `opens` by one spacing beyond its time. More means that the clock was set back since.
        spent = self.opens if self.rate is not None and self.opens - now <= self.rate.spacing else 0
        return max(now, self.gate, spent)

    def admitted(self, now: int) -> float:
        """Return how many jobs its gate and rate let start now; infinite without either."""
        if self.opens_at(now) > now:
            return 0
        return inf if self.rate is None else self.rate.admitted(self.opens, now)

    def started(self, now: int) -> Limit:
        """Return the setting after a start."""
        return self if self.rate is None else self._replace(opens=self.rate.after_start(self.opens, now))

    def returned(self, started: int, now: int) -> Limit:
        """Return the setting after the start at `started` was given back."""
        return self if self.rate is None else self._replace(opens=self.rate.after_return(self.opens, started, now))


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
    rate: str | None = None
    """How many jobs start per period, for example ``500/min``."""
    gate_until: str | None = None
    """Until when no job starts because a run has closed the gate, as ISO 8601."""
    claimable: int = 0
    """How many jobs with this key wait for nothing but a worker, the limit, the rate or the gate."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def validate_limit(key: object, running: object, per_partition: object = None) -> None:
    """Raise InvalidInputError unless a limit can be set."""
    validate_key(key, "key", KEY_BYTES)
    for name, value, least in (("running", running, 0), ("per_partition", per_partition, 1)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and least <= value <= MAX_LIMIT):  # type: ignore[operator]
            raise InvalidInputError(
                name, f"{value!r:.40} must be a whole number from {least} to {MAX_LIMIT}, or None for no limit"
            )


def refuse_no_limit(*limits: object) -> None:
    """Raise InvalidInputError if all limits that a caller sets are None: the call would remove those of the key."""
    if all(limit is None for limit in limits):
        raise InvalidInputError("running", "give running, per_partition or rate; remove_limit(key) removes a limit")


def with_keys(slots: Iterable[tuple[str, int]]) -> Counter[str]:
    """Return the number of leases by slot and by limit key, from that by slot."""
    held: Counter[str] = Counter()
    for slot, count in slots:
        for name in counted_under(slot):
            held[name] += count
    return held


def by_key(claimable: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the number of claimable jobs by limit key, from that by the name of `ready_name`."""
    found: Counter[str] = Counter()
    for name, count in claimable:
        found[key_of(slot_of(name))] += count
    return dict(found)


def limit_states(
    limits: Mapping[str, Limit], held: Mapping[str, int], claimable: Mapping[str, int], now: int
) -> list[LimitState]:
    """Return the limits by key with their use; `held` is the number of leases by slot and by limit key, `claimable` the
    number of jobs by limit key."""
    partitions: dict[str, dict[str, int]] = {}
    for slot, count in sorted(held.items()):
        key, _, partition = slot.partition(US)
        if partition and count > 0:
            partitions.setdefault(key, {})[partition] = count
    return [
        LimitState(
            key,
            limit.running,
            limit.per_partition,
            held.get(key, 0),
            partitions.get(key, {}),
            None if limit.rate is None else str(limit.rate),
            from_micros(limit.gate).isoformat(timespec="milliseconds") if limit.gate > now else None,
            claimable.get(key, 0),
        )
        for key, limit in sorted(limits.items())
        if not limit._replace(paused=False).is_empty(now)
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


def ring_name(ready: str) -> str:
    """Return the name of the ring of a subqueue: its queue and its limit key. The subqueues of a ring differ in their partition."""
    return US.join(ready.split(US)[:2])


def key_of(slot: str) -> str:
    """Return the limit key of a slot."""
    return slot.partition(US)[0]


def counted_under(slot: str) -> set[str]:
    """Return the names under which a lease of a slot counts: the slot and its limit key."""
    return {slot, key_of(slot)}


class Capacities:
    """How many more leases slots may have at `now`. `held` counts the leases of a slot; those of a key include all its
    partitions.

    `own` are the limits of a worker for the types that it serves; they apply where none is set in the store.
    """

    def __init__(
        self, limits: Mapping[str, Limit], own: Mapping[str, int | None], held: Callable[[str], int], now: int
    ) -> None:
        self._limits, self._count, self._held = dict(limits), held, dict[str, int]()
        self._own = {type_name(queue): limit for queue, limit in own.items()}
        self._now, self._asked = now, set[str]()
        self.opens: dict[str, int] = {}
        """The new `opens` of the limit keys with a rate under which jobs were started."""
        self.later = Counter[str]()
        """The difference to their `opens` before."""

    def is_paused(self, queue: str) -> bool:
        """Return whether the type of a queue is paused."""
        return self._limits.get(type_name(queue), Limit()).paused

    def of(self, slot: str) -> float:
        """Return how many more leases a slot may have; infinite without a limit."""
        key, _, partition = slot.partition(US)
        limit = self._limits.get(key, Limit())
        running = self._own.get(key) if limit.running is None else limit.running
        capacity = inf if running is None else running - self.held(key)
        if limit.rate is not None or limit.gate:
            self._asked.add(key)
            capacity = min(capacity, limit.admitted(self._now))
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
        limit = self._limits.get(key := key_of(slot))
        if limit is not None and limit.rate is not None:
            self._limits[key] = limit.started(self._now)
            self.opens[key] = self._limits[key].opens
            self.later[key] += self.opens[key] - limit.opens

    def reopens(self) -> int | None:
        """Return the first time at which a gate or a rate lets jobs start of those that were asked for, None for no such."""
        times = (self._limits[key].opens_at(self._now) for key in self._asked)
        return min((at for at in times if at > self._now), default=None)


def earliest(*times: int | None) -> int | None:
    """Return the first of these times, None if there is none."""
    return min((at for at in times if at is not None), default=None)
