"""How a scenario is run: once on each face of a store, on a fresh and empty place. Owns the running; knows no scenario.

A scenario is an ``async def test_...(self, world)`` of a class below `Scenarios`. On the blocking face the whole of it
is stepped by `drive`, so a store that suspends there is found out; on the asynchronous one it runs in an event loop of
its own. Scenarios never wait for long: a lease of 0 seconds has run out at once, and where time must pass, `until`
watches the store's own clock, or moves it when it is a `FrozenClock`.
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

from milepost.core.change import Change
from milepost.core.job import Job
from milepost.core.lifecycle import plan_create, plan_start, plan_track
from milepost.stores.driving import drive
from milepost.stores.protocol import Applied, Claim, Outcome, Store, Write
from milepost.testing.clock import FrozenClock
from milepost.testing.conformance.invariants import check_step

Factory = Callable[[], Store | Awaitable[Store]]
"""Opens a store on a place that is empty and that no other call has given."""

LONG = 60_000_000
"""Microseconds of a lease that holds for the whole of a scenario."""

FACES = ("blocking", "asynchronous")


class World:
    """The store of one scenario, with short words for what scenarios do with it."""

    def __init__(self, store: Store, clock: FrozenClock | None = None) -> None:
        self.store = store
        self.clock = clock
        self._numbers = itertools.count(1)

    def op(self) -> str:
        """A fresh operation id."""
        return f"op{next(self._numbers):06d}"

    def nonce(self) -> str:
        """The random part of a fresh token."""
        return f"nonce{next(self._numbers):06d}"

    # --- time ---

    async def until(self, micros: int) -> None:
        """Come back when the store's clock is past a moment."""
        while (now := await self.store.now()) <= micros:
            await self.rest((micros - now + 100) / 1_000_000)

    async def rest(self, seconds: float) -> None:
        """Let a little time pass."""
        if self.clock is not None:
            self.clock.advance(seconds)
        elif self.store.blocking:
            time.sleep(seconds)  # noqa: ASYNC251 - the blocking face never suspends
        else:
            await asyncio.sleep(seconds)

    async def tick(self) -> int:
        """Let the store's clock move on by at least a microsecond; the time before."""
        now = await self.store.now()
        await self.until(now)
        return now

    # --- changes ---

    async def attempt(self, job_id: str, change: Change) -> Outcome:
        """Apply one change, whatever becomes of it, and hold it against the invariants."""
        before = await self.store.get(job_id)
        outcome = (await self.store.apply([Write(job_id, change)])).outcomes[0]
        check_step(change, before, outcome, await self.store.get(job_id))
        return outcome

    async def do(self, job_id: str, change: Change) -> Job | None:
        """Apply one change, which must be accepted; the job afterwards."""
        outcome = await self.attempt(job_id, change)
        assert outcome.accepted, f"{change.shape.name} of {job_id} was refused: {_shown(outcome.job)}"
        return outcome.job

    async def made(self, job_id: str, change: Change) -> Job:
        """As `do`, for a change that leaves a record."""
        job = await self.do(job_id, change)
        assert job is not None
        return job

    async def refused(self, job_id: str, change: Change) -> Job | None:
        """Apply one change, which must be refused, change nothing and carry the record as it is."""
        outcome = await self.attempt(job_id, change)
        assert not outcome.accepted, f"{change.shape.name} of {job_id} was accepted: {_shown(outcome.job)}"
        return outcome.job

    async def create(self, job_id: str, fields: Mapping[str, str]) -> Job:
        """A pending job."""
        return await self.made(job_id, plan_create(fields, self.op()))

    async def track(self, job_id: str, fields: Mapping[str, str], lease: int = LONG) -> Job:
        """A running job under a lease."""
        return await self.made(job_id, plan_track(fields, self.op(), nonce=self.nonce(), lease=lease))

    def starts(self, most: int, worker: str = "w1", lease: int = LONG) -> tuple[Change, ...]:
        """What a claim of up to `most` jobs brings."""
        return tuple(plan_start(self.op(), nonce=self.nonce(), lease=lease, worker=worker) for _ in range(most))

    async def claim(
        self,
        queues: Mapping[str, int | None] | Sequence[str] = ("q",),
        most: int = 1,
        *,
        worker: str = "w1",
        lease: int = LONG,
        job_id: str | None = None,
    ) -> list[Job]:
        """Claim up to `most` jobs."""
        return (await self.claiming(queues, most, worker=worker, lease=lease, job_id=job_id)).claimed

    async def claiming(
        self,
        queues: Mapping[str, int | None] | Sequence[str] = ("q",),
        most: int = 1,
        *,
        worker: str = "w1",
        lease: int = LONG,
        job_id: str | None = None,
    ) -> Applied:
        """As `claim`, with the whole answer."""
        served = queues if isinstance(queues, Mapping) else dict.fromkeys(queues)
        return await self.store.apply([], Claim(worker, served, self.starts(most, worker, lease), self.op(), job_id))

    async def start(self, job_id: str, lease: int = LONG, worker: str = "w1") -> Job:
        """Start one pending job of a worker, whatever waits before it."""
        return await self.made(job_id, plan_start(self.op(), nonce=self.nonce(), lease=lease, worker=worker))

    async def job(self, job_id: str) -> Job:
        """The record of an id that exists."""
        job = await self.store.get(job_id)
        assert job is not None, f"{job_id} is gone"
        return job


def token_of(job: Job) -> str:
    """The token of the live lease of a job."""
    return job.record["token"]


def needs_moving_clock(world: World) -> FrozenClock:
    """Skip on a store whose clock cannot be moved."""
    if world.clock is None:
        pytest.skip("needs a store whose clock can be moved")
    return world.clock


def caller_job(**fields: str) -> dict[str, str]:
    """The fields of a job that its caller drives."""
    return {"type": "t", "message": "Job created", "metadata": "{}", "driver": "caller", **fields}


def track_job(**fields: str) -> dict[str, str]:
    """The fields of a job around code."""
    return {"type": "t", "driver": "track", "worker": "w1", "attempt": "1", **fields}


def worker_job(queue: str = "q", attempts: int = 2, **fields: str) -> dict[str, str]:
    """The fields of a job that workers run."""
    budget = str(attempts)
    base = {"type": "t", "driver": "worker", "queue": queue, "slot": queue, "max_attempts": budget, "budget": budget}
    return {**base, **fields}


def engine_job(**fields: str) -> dict[str, str]:
    """The fields of a job that an engine runs."""
    return {"type": "t", "driver": "engine", "max_attempts": "2", "budget": "2", **fields}


class Scenarios:
    """What every class of scenarios is made of. A test class gives the two factories as fixtures:

    `blocking` and `asynchronous`, each a function without arguments that opens a store of that face on a fresh, empty
    place; and, where the store's clock can be moved, `clock`.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, function in list(vars(cls).items()):
            if name.startswith("test_") and inspect.iscoroutinefunction(function):
                setattr(cls, name, _on_both_faces(function))

    @pytest.fixture
    def clock(self) -> FrozenClock | None:
        """The clock of the stores that the factories open, when it can be moved."""
        return None


def _on_both_faces(scenario: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    given = list(inspect.signature(scenario).parameters.values())
    extra = [p for p in given if p.name not in ("self", "world")]

    @functools.wraps(scenario)
    def test(self: Scenarios, face: str, request: pytest.FixtureRequest, **values: Any) -> None:
        run_scenario(
            functools.partial(scenario, self, **values),
            request.getfixturevalue(face),
            request.getfixturevalue("clock"),
            blocking=face == "blocking",
        )

    places = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("self", "face", "request")]
    test.__signature__ = inspect.Signature([*places, *extra])  # type: ignore[attr-defined]
    test.scenario = scenario  # type: ignore[attr-defined]
    both: Callable[..., None] = pytest.mark.parametrize("face", FACES)(test)
    return both


def run_scenario(
    scenario: Callable[[World], Coroutine[Any, Any, None]],
    factory: Factory,
    clock: FrozenClock | None,
    *,
    blocking: bool,
) -> None:
    """Open a store, run a scenario on it to its end, and close it."""

    async def whole() -> None:
        opened = factory()
        store = await opened if inspect.isawaitable(opened) else opened
        assert store.blocking is blocking, f"the factory gave a store whose `blocking` is {store.blocking}"
        try:
            await scenario(World(store, clock))
        finally:
            await store.close()

    if blocking:
        drive(whole())
    else:
        asyncio.run(whole())


def scenarios_of(
    cls: type[Scenarios],
) -> Iterator[tuple[str, Callable[..., Coroutine[Any, Any, None]], dict[str, Any]]]:
    """Every scenario of a class as (name, coroutine function, values of its parameters)."""
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
