"""The job types whose code runs in child processes. They are at module level, where a child finds them by name."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from milepost.core.errors import RunStop
from milepost.run.run import Run
from milepost.worker.handlers import Handlers
from tests.simulation.job_types import watched

if TYPE_CHECKING:
    from tests.simulation.children import Children
    from tests.simulation.simulation import Simulation

HANDLERS = Handlers()
_simulations: list[Simulation] = []


def register(handlers: Handlers, simulation: Simulation) -> None:
    """Add the handlers to those of a simulation, and let them run in it from now on."""
    _simulations[:] = [simulation]
    for handler in HANDLERS.values():
        handlers.add(handler)


def _here() -> Simulation:
    return _simulations[0]


def _children() -> Children:
    children = _here().children
    assert children is not None, "a run with child processes"
    return children


@HANDLERS.job("child_quick", isolation="process")
@watched(_here)
def child_quick(run: Run, n: int = 0) -> int:
    _here().world.sleep((0.0, 0.02, 0.3)[n % 3])
    return n


@HANDLERS.job("child_long", isolation="process", max_attempts=2)
@watched(_here)
def child_long(run: Run, n: int = 0) -> None:
    """Continue from the last checkpoint."""
    world, rules = _here().world, _here().rules
    start = run.last_checkpoint if run.last_checkpoint is not None else -1
    for step in range(start + 1, 4):
        for tick in range(3):
            world.sleep(0.5)
            run.progress((step + tick / 3) / 4)
        run.checkpoint(step)
        rules.on_checkpoint(run, step)


@HANDLERS.job("child_async", isolation="process")
@watched(_here)
async def child_async(run: Run, n: int = 0) -> int:
    """Report lines and a checkpoint."""
    for number in range(6):
        await asyncio.sleep(0.4)
        run.log(f"line {number}")
        _here().rules.runs.on_log(run, _here().world.process(), number)
    await run.acheckpoint(n)
    _here().rules.on_checkpoint(run, n)
    return n


@HANDLERS.job("child_deaf", isolation="process")
@watched(_here)
def child_deaf(run: Run, n: int = 0) -> None:
    """Look for no stop, and let a SIGTERM interrupt it or not."""
    world = _here().world
    end = world.now + 6_000_000
    while world.now < end:
        try:
            world.sleep((end - world.now) / 1e6)
        except RunStop:
            if n % 2:
                raise


@HANDLERS.job("child_sleeper", isolation="process")
@watched(_here)
def child_sleeper(run: Run, n: int = 0) -> None:
    """Keep a value before each suspension."""
    world, rules = _here().world, _here().rules
    for nap in range(1 + n % 2):
        key = f"value {nap}"
        value = run.step(key, lambda: world.entropy.randrange(1 << 30))
        rules.dependencies.on_step(run, key, value)
        run.sleep(f"nap {nap}", 1.5)


@HANDLERS.job("child_poison", isolation="process")
@watched(_here)
def child_poison(run: Run, n: int = 0) -> None:
    """End the process: killed, by a fault of its own, or without a word."""
    _here().world.sleep(0.05)
    _children().current().end((-signal.SIGKILL, -signal.SIGSEGV, 0)[n % 3])
