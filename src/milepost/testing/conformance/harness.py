"""Run scenarios on a new, empty store, once with its blocking and once with its async API.

A scenario is an ``async def test_...(self, fixture)`` of a subclass of `Scenarios`. On a blocking store it is run by
`run_sync`, which detects a store that suspends; on an async store it runs in its own event loop. Scenarios never wait
long: a lease of 0 seconds has expired at once, and `until` watches the store's clock, or moves a `FrozenClock`.
After each change the invariants of the record are checked; their numbers are those of docs/reliability.md.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

import pytest

from milepost.core.job import Job
from milepost.core.transitions import plan_create, plan_start, plan_track
from milepost.core.transitions.change import Branch, Change, Const, Guard, Operation, Record, TransitionType, Value
from milepost.core.transitions.operation_ids import applied_branch, is_superseded
from milepost.stores.protocol import ApplyResult, Claim, Store, Write, WriteResult
from milepost.stores.sync_bridge import run_sync
from milepost.testing.fakes import FrozenClock

LEASED = ("track", "worker", "external")


def check_record(record: Record) -> None:
    """Assert that the fields of a record are consistent."""
    status, run_by = record["status"], record.get("run_by", "manual")
    leased = "token" in record
    assert leased is ("lease" in record), f"a token without a lease, or a lease without: {dict(record)}"
    assert leased is (status == "running" and run_by in LEASED), f"I5, {status} under {run_by}: {dict(record)}"
    assert 0.0 <= float(record["progress"]) <= 1.0, f"I9: {record['progress']}"
    ended = status in ("completed", "failed", "cancelled")
    assert ("completed" in record) is ended, f"I10, completed: {dict(record)}"
    waits_within_attempt = status == "pending" and "started" in record
    assert waits_within_attempt is ("suspended" in record), f"I10, started while pending: {dict(record)}"
    assert status not in ("running", "completed") or "started" in record, f"I10, never started: {dict(record)}"
    times = [int(record[name]) for name in ("created", "started", "completed") if name in record]
    assert times == sorted(times), f"I10, order of times: {dict(record)}"
    assert not record.get("ready") or status == "pending", f"{status} and in the queue: {dict(record)}"
    assert int(record.get("attempt", 0)) >= 0, f"I15: {dict(record)}"
    assert not record.get("lease") or record["token"].partition(":")[0].isdigit(), record["token"]


def check_step(change: Change, before: Job | None, outcome: WriteResult, after: Job | None) -> None:
    """Assert the invariants of one change, given the job before and after it."""
    if not outcome.accepted or outcome.repeated:
        assert _record(after) == _record(before), (
            f"{change.transition.name} was refused or repeated, and changed the record"
        )
        if not outcome.accepted:
            assert _record(outcome.job) == _record(before), "a refusal returns the current record"
        return
    event = change.transition.branches[outcome.branch].event
    if after is None:
        assert outcome.job is None
        return
    assert _record(outcome.job) == _record(after), "the returned job is not the current record"
    record, old = after.record, _record(before)
    step = int(record.get("version", 0)) - int(old.get("version", 0))
    assert step == (1 if event else 0), f"I11: version changed by {step} in {change.transition.name}"
    known = applied_branch(change.operation_id, change.transition.retention, record) == outcome.branch
    assert known or is_superseded(change.operation_id, change.transition.retention, record), (
        f"{change.transition.name} is not known to its record: {dict(record)}"
    )
    if change.transition.name in _OURS:
        check_record(record)
        same_attempt = old.get("status") == record["status"] and old.get("token") == record.get("token")
        if same_attempt:
            assert float(record["progress"]) >= float(old["progress"]), "I9: progress went back"
        if "token" in record and "token" in old and record["token"] != old["token"]:
            assert fence(record["token"]) > fence(old["token"]), "I4: the fence did not increase"


def fence(token: str) -> int:
    """Return the fence number of a token."""
    return int(token.partition(":")[0])


def _record(job: Job | None) -> dict[str, str]:
    return dict(job.record) if job is not None else {}


_OURS = frozenset(
    [
        "create", "start", "deliver", "adopt", "resume", "progress", "stage", "stalled", "log", "checkpoint",
        "keep_step", "output", "complete", "fail", "release", "suspend", "suspend_asking", "ask", "settle_question", "answer",
        "pause", "resume_paused", "stopped_for_pause", "retry", "update", "cancel", "self_cancel", "delete",
        "receipt", "lease_expired", "crash", "expire", "mark_stale", "release_held", "open_batch", "close_batch", "cancel_orphan",
        "retry_child", "flag_cycle", "no_cycle",
    ]
)  # fmt: skip
"""The transitions of the lifecycle; those that tests define are not checked against it."""


Factory = Callable[[], Store | Awaitable[Store]]
"""Opens a new, empty store."""

LONG = 60_000_000
"""Microseconds of a lease that outlasts a scenario."""

API_KINDS = ("blocking", "asynchronous")


class StoreFixture:
    """The store of one scenario, with shortcuts for what scenarios do with it."""

    def __init__(self, store: Store, clock: FrozenClock | None = None) -> None:
        self.store = store
        self.clock = clock
        self._numbers = itertools.count(1)
        self._claims = itertools.count(1)

    def operation_id(self) -> str:
        """Return a new operation id."""
        return f"op{next(self._numbers):06d}"

    def nonce(self) -> str:
        """Return the random part of a new token."""
        return f"nonce{next(self._numbers):06d}"

    # --- time ---

    async def until(self, micros: int) -> None:
        """Wait until the store's clock is past a time."""
        while (now := await self.store.now()) <= micros:
            await self.rest((micros - now + 100) / 1_000_000)

    async def rest(self, seconds: float) -> None:
        """Sleep, or move a frozen clock."""
        if self.clock is not None:
            self.clock.advance(seconds)
        elif self.store.blocking:
            time.sleep(seconds)  # noqa: ASYNC251 - the blocking API never suspends
        else:
            await asyncio.sleep(seconds)

    async def tick(self) -> int:
        """Let the store's clock advance by at least a microsecond, and return the time before."""
        now = await self.store.now()
        await self.until(now)
        return now

    # --- changes ---

    async def attempt(self, job_id: str, change: Change) -> WriteResult:
        """Apply one change, check the invariants, and return the result."""
        before = await self.store.get(job_id)
        outcome = (await self.store.apply([Write(job_id, change)])).outcomes[0]
        check_step(change, before, outcome, await self.store.get(job_id))
        return outcome

    async def do(self, job_id: str, change: Change) -> Job | None:
        """Apply one change, which must be accepted, and return the job."""
        outcome = await self.attempt(job_id, change)
        assert outcome.accepted, f"{change.transition.name} of {job_id} was refused: {_shown(outcome.job)}"
        return outcome.job

    async def made(self, job_id: str, change: Change) -> Job:
        """Apply one change like `do`, for changes that keep the record."""
        job = await self.do(job_id, change)
        assert job is not None
        return job

    async def refused(self, job_id: str, change: Change) -> Job | None:
        """Apply one change, which must be refused, change nothing and return the current record."""
        outcome = await self.attempt(job_id, change)
        assert not outcome.accepted, f"{change.transition.name} of {job_id} was accepted: {_shown(outcome.job)}"
        return outcome.job

    async def create(self, job_id: str, fields: Mapping[str, str]) -> Job:
        """Create a pending job."""
        return await self.made(job_id, plan_create(fields, self.operation_id()))

    async def track(self, job_id: str, fields: Mapping[str, str], lease: int = LONG) -> Job:
        """Create a running job under a lease."""
        return await self.made(job_id, plan_track(fields, self.operation_id(), nonce=self.nonce(), lease=lease))

    def starts(self, most: int, worker: str = "w1", lease: int = LONG) -> tuple[Change, ...]:
        """Return the starts of a claim of up to `most` jobs."""
        return tuple(
            plan_start(self.operation_id(), nonce=self.nonce(), lease=lease, worker=worker) for _ in range(most)
        )

    async def claim(
        self,
        queues: Mapping[str, int | None] | Sequence[str] = ("q",),
        most: int = 1,
        *,
        worker: str = "w1",
        lease: int = LONG,
        job_id: str | None = None,
        writes: Sequence[Write] = (),
    ) -> list[Job]:
        """Claim up to `most` jobs, with `writes` in the same request, and return them."""
        return (await self.claiming(queues, most, worker=worker, lease=lease, job_id=job_id, writes=writes)).claimed

    async def claiming(
        self,
        queues: Mapping[str, int | None] | Sequence[str] = ("q",),
        most: int = 1,
        *,
        worker: str = "w1",
        lease: int = LONG,
        job_id: str | None = None,
        writes: Sequence[Write] = (),
    ) -> ApplyResult:
        """Claim like `claim` and return the whole result."""
        served = queues if isinstance(queues, Mapping) else dict.fromkeys(queues)
        starts = self.starts(most, worker, lease)
        return await self.store.apply(
            writes, Claim(worker, served, starts, self.operation_id(), job_id, next(self._claims))
        )

    async def start(self, job_id: str, lease: int = LONG, worker: str = "w1") -> Job:
        """Start one pending job, regardless of the order."""
        return await self.made(job_id, plan_start(self.operation_id(), nonce=self.nonce(), lease=lease, worker=worker))

    async def job(self, job_id: str) -> Job:
        """Return the job of an existing id."""
        job = await self.store.get(job_id)
        assert job is not None, f"{job_id} is gone"
        return job


def token_of(job: Job) -> str:
    """Return the token of the live lease of a job."""
    return job.record["token"]


def needs_moving_clock(fixture: StoreFixture) -> FrozenClock:
    """Return the clock of the store, or skip the test if it cannot be moved."""
    if fixture.clock is None:
        pytest.skip("needs a store whose clock can be moved")
    return fixture.clock


def caller_job(**fields: str) -> dict[str, str]:
    """Return the fields of a manual job."""
    return {"type": "t", "message": "Job created", "metadata": "{}", "run_by": "manual", **fields}


def track_job(**fields: str) -> dict[str, str]:
    """Return the fields of a tracked job."""
    return {"type": "t", "run_by": "track", "worker": "w1", "attempt": "1", **fields}


def worker_job(queue: str = "q", attempts: int = 2, **fields: str) -> dict[str, str]:
    """Return the fields of a worker job."""
    budget = str(attempts)
    base = {"type": "t", "run_by": "worker", "ready": queue, "slot": queue, "max_attempts": budget, "budget": budget}
    return {**base, **fields}


def queue_job(**fields: str) -> dict[str, str]:
    """Return the fields of a job for an external task queue."""
    return {"type": "t", "run_by": "external", "max_attempts": "2", "budget": "2", **fields}


class Scenarios:
    """The base class of scenarios. A test class provides the fixtures `blocking` and `asynchronous`.

    Each is a function without arguments that opens a new, empty store. If the clock of the stores can be moved, the
    class also provides `clock`.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, function in list(vars(cls).items()):
            if name.startswith("test_") and inspect.iscoroutinefunction(function):
                setattr(cls, name, _on_both_apis(function))

    @pytest.fixture
    def clock(self) -> FrozenClock | None:
        """Return the clock of the opened stores, or None if it cannot be moved."""
        return None


def _on_both_apis(scenario: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    _, _, *extra = inspect.signature(scenario).parameters.values()  # after `self` and the store's fixture

    @functools.wraps(scenario)
    def test(self: Scenarios, api: str, request: pytest.FixtureRequest, **values: Any) -> None:
        run_scenario(
            functools.partial(scenario, self, **values),
            request.getfixturevalue(api),
            request.getfixturevalue("clock"),
            blocking=api == "blocking",
        )

    places = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("self", "api", "request")]
    test.__signature__ = inspect.Signature([*places, *extra])  # type: ignore[attr-defined]
    test.scenario = scenario  # type: ignore[attr-defined]
    both: Callable[..., None] = pytest.mark.parametrize("api", API_KINDS)(test)
    return both


def run_scenario(
    scenario: Callable[[StoreFixture], Coroutine[Any, Any, None]],
    factory: Factory,
    clock: FrozenClock | None,
    *,
    blocking: bool,
) -> None:
    """Open a store, run a scenario on it, and close it."""

    async def whole() -> None:
        opened = factory()
        store = await opened if inspect.isawaitable(opened) else opened
        assert store.blocking is blocking, f"the factory returned a store with blocking={store.blocking}"
        try:
            await scenario(StoreFixture(store, clock))
        finally:
            await store.close()

    if blocking:
        run_sync(whole())
    else:
        asyncio.run(whole())


def scenarios_of(
    cls: type[Scenarios],
) -> Iterator[tuple[str, Callable[..., Coroutine[Any, Any, None]], dict[str, Any]]]:
    """Yield every scenario of a class as (name, coroutine function, values of its parameters)."""
    for name in sorted(dir(cls)):
        scenario = getattr(getattr(cls, name), "scenario", None)
        if scenario is None:
            continue
        marks = [mark for mark in getattr(scenario, "pytestmark", ()) if mark.name == "parametrize"]
        choices = [[{mark.args[0]: value} for value in mark.args[1]] for mark in marks]
        for combination in itertools.product(*choices):
            yield name, scenario, {k: v for part in combination for k, v in part.items()}


def _shown(job: Job | None) -> str:
    return "no record" if job is None else str(dict(job.record))


def create_record(operation_id: str, status: str = "pending", **fields: str) -> Change:
    """Return a change that creates a record with these fields."""
    sets = tuple(("set", name, Const(value)) for name, value in fields.items())
    base: tuple[Operation, ...] = (
        ("set", "status", Const(status)),
        ("set", "type", Const("t")),
        ("set", "progress", Const("0")),
    )
    return Change(
        TransitionType("made", (Branch(("",), (), (*base, ("stamp", "created"), *sets), "made", "life"),)),
        (),
        operation_id,
    )


def guarded_change(operation_id: str, guard: Guard, *values: Value, key: str | None = None) -> Change:
    """Return a change that does nothing, if its guard holds."""
    return Change(
        TransitionType("asked", (Branch(("pending", "running"), (guard,), (), "asked"),)), values, operation_id, key
    )


def change_with(
    operation_id: str,
    *ops: Operation,
    values: tuple[Value, ...] = (),
    statuses: tuple[str, ...] = ("pending", "running"),
) -> Change:
    """Return a change of one branch without guards."""
    return Change(TransitionType("noted", (Branch(statuses, (), ops, "noted"),)), values, operation_id)


def apply_blocking(store: Store, write: Write) -> None:
    """Apply a write in this thread, whichever form the store has."""
    other = store.with_blocking(blocking=True)
    run_sync(other.apply([write]))
    if other is not store:
        run_sync(other.close())
