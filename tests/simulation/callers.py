"""What the callers do: they submit, cancel, retry and delete jobs by the public API, and read the lists at rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from milepost.core.errors import MilepostError
from milepost.core.values import JobStatus
from tests.simulation.job_types import SUBMITTED
from tests.simulation.world import Process

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

SUBMITS = 4
"""How many of the 9 choices of a caller are a submit."""


def call(simulation: Simulation, process: Process) -> None:
    """Do something by choice, four times per second."""
    world, rules, choose = simulation.world, simulation.rules, simulation.world.choose
    jobs, mine, turn = simulation.jobs(process), list[str](), 0

    def one_of_mine(most: int) -> str:
        return mine[-1 - choose(f"which:{name}", min(most, len(mine)))]

    while world.now < simulation.work_until:
        turn += 1
        name = f"{process.name}@{turn}"  # so that each turn can be left out without changing the others
        world.sleep(0.25)
        action = choose(f"action:{name}", 9, 0.5)
        try:
            if 0 < action <= SUBMITS:
                job_type = SUBMITTED[choose(f"type:{name}", len(SUBMITTED))]
                options: dict[str, Any] = {}
                if key := ("", "", "key-1", "key-2")[choose(f"key:{name}", 4)]:
                    options["unique_key"] = key
                    options["on_duplicate"] = ("return", "supersede")[choose(f"duplicate:{name}", 2)]
                if choose(f"delay:{name}", 4) == 3:
                    options["delay"] = 2.0
                job = jobs.submit(job_type, {"n": choose(f"n:{name}", 6)}, **options)
                rules.acknowledged[job.job_id] = job.job_type
                mine.append(job.job_id)
            elif mine and action == 5:
                jobs.cancel_job(one_of_mine(4))
            elif mine and action in (6, 7):
                jobs.retry_job(one_of_mine(6))
            elif mine and action == 8:
                job_id = one_of_mine(4)
                mine.remove(job_id)
                rules.deleted.add(job_id)
                jobs.delete_job(job_id)
        except MilepostError as error:
            world.note(f"{process.name}: {type(error).__name__}: {str(error)[:80]}")


def inspect(simulation: Simulation, process: Process) -> None:
    """Walk through the list in pages and read the counts."""
    manager = simulation.jobs(process).manager
    page = manager.find(limit=7)
    listed = [job.job_id for job in page.jobs]
    while page.next_cursor:
        page = manager.find(limit=7, cursor=page.next_cursor)
        listed += [job.job_id for job in page.jobs]
    counted = {status: manager.count_jobs(status=status) for status in JobStatus}
    simulation.rules.at_end_of_list(listed, counted)
