"""What the tracker does: it tracks blocks of code under two keys, one after another, and resumes one that was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.core.errors import MilepostError, RunStop
from tests.simulation.world import Process

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

STEPS = 4
QUIET_SECONDS = 6.0
"""Seconds for which a block asks the store for nothing in runs with rare orders: outages end while it continues."""


def track(simulation: Simulation, process: Process) -> None:
    """Track blocks until the faults end."""
    world, rules = simulation.world, simulation.rules
    jobs, turn = simulation.jobs(process), 0
    while world.now < simulation.work_until:
        turn += 1
        world.sleep(0.5)
        key = world.choose(f"track:{process.name}@{turn}", 2)
        try:
            with jobs.track("tracked", unique_key=f"tracked {key}") as run:
                rules.on_begin(run, process)
                returned = False
                try:
                    kept = run.last_checkpoint
                    if simulation.has_rare_orders and turn % 2:
                        world.sleep(QUIET_SECONDS)
                    for step in range(0 if kept is None else kept + 1, STEPS):
                        world.sleep(0.8)
                        run.progress(step / STEPS)
                        run.checkpoint(step)
                        rules.on_checkpoint(run, step)
                    returned = True
                finally:
                    rules.on_end(run, process, returned=returned)
        except (MilepostError, RunStop) as error:
            world.note(f"{process.name}: {type(error).__name__}: {str(error)[:80]}")
