"""The job types of the simulated application. Each tells the rules when its code begins and ends."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from milepost.run.run import Run
from milepost.worker.handlers import Handlers

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation
    from tests.simulation.task_queue import Broker

_ALONE = ("quick", "long", "flaky", "threaded", "deaf", "limited", "patient", "poison")
JOB_TYPES = (*_ALONE, "sleeper", "parent", "chatty")
SUBMITTED = (*_ALONE[:-1], *_ALONE)
"""The types by frequency: few jobs kill their worker."""
WITH_DEPENDENCIES = (*SUBMITTED, "sleeper", "sleeper", "parent", "parent", "parent")
"""The types in runs with children, suspensions, `after` and a schedule."""
MAX_ATTEMPTS = {"long": 2, "patient": 2, "flaky": 3, "parent": 2, "queued_flaky": 3, "queued_long": 2}
QUEUED = ("queued", "queued_long", "queued_flaky", "queued_deaf", "queued_sleeper", "queued_poison", "queued_refused")
"""The types that a task queue runs."""
IN_CHILD = ("child_quick", "child_long", "child_async", "child_deaf", "child_sleeper", "child_poison")
"""The types whose code runs in child processes."""
LIMITED_BY_KEY = ("threaded", "deaf")
LIMITS = {"limited": 1}
"""The most concurrent runs of a type."""


def register(handlers: Handlers, simulation: Simulation) -> None:
    """Register the handlers. They serve all processes of the simulation."""
    world, rules = simulation.world, simulation.rules

    def brief(seconds: float) -> float:
        """Return how long a step takes: the time given, and a quarter of it when the faults are over.

        What is left to run then takes most of the time of a seed, and nothing happens to it.
        """
        return seconds if world.now < simulation.work_until else seconds / 4

    async def quick(run: Run, n: int = 0) -> int:
        await asyncio.sleep((0.0, 0.02, 0.3)[n % 3])
        return n

    async def long(run: Run, n: int = 0) -> None:
        """Continue from the last checkpoint."""
        start = run.last_checkpoint if run.last_checkpoint is not None else -1
        for step in range(start + 1, 5):
            await asyncio.sleep(brief(2.2))
            run.progress(step / 5)
            await run.acheckpoint(step)
            rules.on_checkpoint(run, step)

    async def flaky(run: Run, n: int = 0) -> None:
        """Fail at the first two attempts."""
        await asyncio.sleep(0.05)
        if run.attempt < 3:
            raise ValueError("not yet")

    def threaded(run: Run, n: int = 0) -> None:
        for step in range(8):
            world.sleep(0.4)
            run.progress(step / 8)
            rules.on_progress(run, world.process(), max(0, step - 6) / 8)

    def deaf(run: Run, n: int = 0) -> None:
        """Look for no stop."""
        world.sleep(brief((3.0, 9.0)[n % 2]))

    async def limited(run: Run, n: int = 0) -> None:
        await asyncio.sleep(0.7)

    async def patient(run: Run, n: int = 0) -> None:
        """Report a lot, and ask the store for nothing."""
        for number in range(3):
            with run.stage(f"stage {number}"):
                for step in range(4):
                    await asyncio.sleep(brief(0.8))
                    run.log(f"line {4 * number + step}")
                    rules.runs.on_log(run, world.process(), 4 * number + step)

    async def chatty(run: Run, n: int = 0) -> None:
        """Have something to report at each heartbeat."""
        for step in range(60):
            await asyncio.sleep(brief(0.1))
            run.log(f"step {step}")

    async def poison(run: Run, n: int = 0) -> None:
        """Kill the process."""
        await asyncio.sleep(0.05)
        simulation.kill(world.process())

    def sleeper(run: Run, n: int = 0) -> None:
        """Keep a value before each suspension."""
        for nap in range(1 + n % 2):
            run.progress(nap / 2)
            key = f"value {nap}"
            value = run.step(key, lambda: world.entropy.randrange(1 << 30))
            rules.dependencies.on_step(run, key, value)
            run.sleep(f"nap {nap}", 1.5)

    def parent(run: Run, n: int = 0) -> None:
        """Make children, and wait for them or not."""
        for number in range(1 + n % 3):
            child = handlers[("quick", "flaky", "long")[(n + number) % 3]]
            run.submit_child(f"child {number}", child, n=number)
            world.sleep(1.2)  # longer than children are buffered
        if n % 2:
            run.join(errors="collect")

    watch = watched(lambda: simulation)
    for handler in (quick, long, flaky, threaded, deaf, limited, patient, poison, sleeper, parent, chatty):
        name = handler.__name__
        handlers.job(name, max_attempts=MAX_ATTEMPTS.get(name, 1), concurrency=LIMITS.get(name))(watch(handler))


def register_queued(handlers: Handlers, simulation: Simulation, broker: Broker) -> None:
    """Register the handlers of the task queue. They serve all its processes."""
    world, rules = simulation.world, simulation.rules

    def queued(run: Run, n: int = 0) -> int:
        broker.work((0.02, 0.3, 2.0)[n % 3])
        return n

    def queued_long(run: Run, n: int = 0) -> None:
        """Continue from the last checkpoint."""
        start = run.last_checkpoint if run.last_checkpoint is not None else -1
        for step in range(start + 1, 4):
            broker.work(1.9)
            run.progress(step / 4)
            run.checkpoint(step)
            rules.on_checkpoint(run, step)

    def queued_flaky(run: Run, n: int = 0) -> None:
        """Fail at the first two attempts."""
        broker.work(0.05)
        if run.attempt < 3:
            raise ValueError("not yet")

    def queued_deaf(run: Run, n: int = 0) -> None:
        """Look for no stop. The task queue can end it, or not."""
        (broker.work, world.sleep)[n % 2](9.0)

    def queued_sleeper(run: Run, n: int = 0) -> None:
        """Keep a value before each suspension."""
        for nap in range(1 + n % 2):
            key = f"value {nap}"
            value = run.step(key, lambda: world.entropy.randrange(1 << 30))
            rules.dependencies.on_step(run, key, value)
            run.sleep(f"nap {nap}", 1.5)

    def queued_poison(run: Run, n: int = 0) -> None:
        """Kill the process."""
        broker.work(0.05)
        simulation.kill(world.process())

    def queued_refused(run: Run, n: int = 0) -> None:
        """Never run: the task queue refuses it."""

    watch = watched(lambda: simulation)
    for handler in (queued, queued_long, queued_flaky, queued_deaf, queued_sleeper, queued_poison, queued_refused):
        name = handler.__name__
        handlers.job(name, max_attempts=MAX_ATTEMPTS.get(name, 1))(watch(handler))


def watched(where: Callable[[], Simulation]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator of handlers, which tell the rules when their code begins and ends."""

    @contextmanager
    def watch(run: Run) -> Iterator[None]:
        rules, process, returned = where().rules, where().world.process(), False
        heartbeat = process.memory.get("heartbeat") or process.memory["worker"]._loop.heartbeat
        reported = heartbeat._state.runs.get(run.token)
        rules.on_begin(run, process, None if reported is None else reported.renewed_at)
        try:
            yield
            returned = True
        finally:
            rules.on_end(run, process, returned=returned)

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        if asyncio.iscoroutinefunction(handler):

            @functools.wraps(handler)
            async def run_async(run: Run, n: int = 0) -> Any:
                with watch(run):
                    return await handler(run, n)

            return run_async

        @functools.wraps(handler)
        def run_sync(run: Run, n: int = 0) -> Any:
            with watch(run):
                return handler(run, n)

        return run_sync

    return decorate
