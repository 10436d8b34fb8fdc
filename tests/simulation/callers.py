"""What the callers do: they submit, cancel, retry, pause and delete jobs by the public API, and read the lists at rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from milepost import Jobs
from milepost.core.errors import (
    InvalidInputError,
    MilepostError,
    OutcomeUnknownError,
    StoreUnavailableError,
    WaitTimeoutError,
)
from milepost.core.values import JobStatus
from tests.simulation.faults import GLITCH_SECONDS, Faults
from tests.simulation.job_types import IN_CHILD, LIMITED_BY_KEY, QUEUED, SUBMITTED, WITH_DEPENDENCIES
from tests.simulation.network import DELAYS
from tests.simulation.world import Process, World

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

ACTIONS = (
    "none",
    *["submit"] * 4,
    "cancel",
    "retry",
    "retry",
    "delete",
    "pause",
    "resume",
    "submit and delete",
    "cancel suspect",
)
MORE_ACTIONS = (*ACTIONS, "delete tick", "cancel tracked")
"""The actions in runs with dependencies."""
RARE_ACTIONS = ("late submit", "late submit", "cancel awaited", "cancel awaited", "submit beside chatty")
"""The actions that only some runs have, since they take their time."""
REASONS = (None, "timeout", "shutdown")
"""The reasons of a cancel: none, and words that milepost itself writes."""
LATE_SECONDS = 4.0
"""Seconds after which no request comes late."""
SCHEDULE = "ticks"
TICK_SECONDS = 5


LIMIT_KEY, RUNNING = "api", 3
"""The limit key of jobs of some types, which are in two partitions; a caller changes its limits now and then."""


def call(simulation: Simulation, process: Process) -> None:
    """Do something by choice, four times per second."""
    world, rules, choose = simulation.world, simulation.rules, simulation.world.choose
    jobs, mine, turn = simulation.jobs(process), list[str](), 0
    types, actions = (WITH_DEPENDENCIES, MORE_ACTIONS) if simulation.has_dependencies else (SUBMITTED, ACTIONS)
    queue_jobs = simulation.queue_jobs(process) if simulation.broker is not None else jobs
    if simulation.broker is not None:
        types = (*types, *QUEUED[:4], *QUEUED)
    if simulation.children is not None:
        types = (*types, *IN_CHILD[:-1] * 4, *IN_CHILD)
    if simulation.has_rare_orders:
        actions = (*actions, *RARE_ACTIONS)
    paused = set[str]()
    has_schedule = simulation.has_dependencies and process.name == "caller-0"
    if has_schedule:
        catch_up = ("last", "none", "all")[choose("catch up", 3)]
        _until_answered(world, lambda: jobs.add_schedule(SCHEDULE, "quick", every=TICK_SECONDS, catch_up=catch_up))

    def one_of_mine(most: int) -> str:
        return mine[-1 - choose(f"which:{name}", min(most, len(mine)))]

    def newest(is_wanted: Callable[[Mapping[str, str]], bool]) -> list[str]:
        records = simulation.server.memory.records.items()
        return [job_id for job_id, record in records if is_wanted(record)][-1:]

    while world.now < simulation.work_until:
        if turn % 32 == 0 and process.name == "caller-0":
            most = 1 + turn // 32 % 2
            _until_answered(world, lambda most=most: jobs.limit(LIMIT_KEY, running=RUNNING, per_partition=most))  # type: ignore[misc]
        turn += 1
        name = f"{process.name}@{turn}"  # so that each turn can be left out without changing the others
        world.sleep(0.25)
        action = actions[choose(f"action:{name}", len(actions), 0.5)]
        try:
            if action == "submit":
                job_type = types[choose(f"type:{name}", len(types))]
                options: dict[str, Any] = {}
                if key := ("", "", "key-1", "key-2")[choose(f"key:{name}", 4)]:
                    options["unique_key"] = key
                    options["on_duplicate"] = ("return", "supersede")[choose(f"duplicate:{name}", 2)]
                match choose(f"option:{name}", 12):
                    case 7:
                        options["expires_in"] = 1.5
                    case 8:
                        options["timeout"] = 2.0
                    case 9:
                        options["on_lost"] = "fail"
                    case 10:
                        options["priority"] = 5
                    case 11:
                        options["delay"] = 2.0
                if simulation.has_dependencies and mine and choose(f"after:{name}", 3) == 2:
                    options["after"] = [f"job:{one_of_mine(4)}"]
                    options["on_failure"] = ("cancel", "run")[choose(f"on failure:{name}", 2)]
                number = choose(f"n:{name}", 6)
                if job_type in LIMITED_BY_KEY:
                    options |= {"limit_key": LIMIT_KEY, "partition": "ab"[number % 2]}
                job = (queue_jobs if job_type in QUEUED else jobs).submit(job_type, {"n": number}, **options)
                rules.acknowledged[job.job_id] = job.job_type
                mine.append(job.job_id)
            elif mine and action == "cancel":
                jobs.cancel_job(one_of_mine(4), REASONS[turn % len(REASONS)])
            elif mine and action == "retry":
                job_id = one_of_mine(6)
                (queue_jobs if turn % 2 else jobs).retry_job(job_id)  # with and without a dispatch by this process
            elif mine and action == "delete":
                job_id = one_of_mine(4)
                mine.remove(job_id)
                rules.deleted.add(job_id)
                jobs.delete_job(job_id)
            elif mine and action == "pause":
                paused.add(job_id := one_of_mine(4))
                jobs.pause(job_id)
            elif paused and action == "resume":
                jobs.resume(sorted(paused)[choose(f"which:{name}", len(paused))])
            elif action == "delete tick" and (tick := jobs.get_schedule(SCHEDULE).last_job_id):
                jobs.delete_job(tick)
            elif action == "submit and delete":
                job_id = jobs.submit("quick", {"n": 0}).job_id
                rules.deleted.add(job_id)
                jobs.delete_job(job_id)
            elif action == "late submit":
                _delete_before_late_copy(simulation, jobs)
            elif action == "cancel awaited":
                awaited = jobs.submit("deaf", {"n": 1}, limit_key=LIMIT_KEY, partition="b").job_id
                mine.append(jobs.submit("quick", {"n": 0}, after=[f"job:{awaited}"], on_failure="run").job_id)
                world.sleep(1.0)
                jobs.cancel_job(awaited)
            elif action == "submit beside chatty":
                mine += [jobs.submit(one, {"n": 0}).job_id for one in ("chatty", "patient", "chatty", "patient")]
            elif action == "cancel suspect":
                for job_id in newest(lambda record: "suspect" in record and record["status"] == "running"):
                    jobs.cancel_job(job_id)
            elif action == "cancel tracked":
                for job_id in newest(lambda record: record["run_by"] == "track"):
                    (jobs.cancel_job, jobs.retry_job)[choose(f"retry:{name}", 2)](job_id)
        except MilepostError as error:
            if isinstance(error, InvalidInputError) and "there is no job" not in str(error):
                raise  # the simulation itself is wrong
            world.note(f"{process.name}: {type(error).__name__}: {str(error)[:80]}")
    if has_schedule:
        _until_answered(world, lambda: jobs.remove_schedule(SCHEDULE))
    world.sleep(LATE_SECONDS)
    for job_id in sorted(paused):
        _until_answered(world, lambda: jobs.resume(job_id))  # noqa: B023


def _delete_before_late_copy(simulation: Simulation, jobs: Jobs) -> None:
    """Submit and delete a job, and let the clock step ahead; a copy of the submit arrives after that."""
    world, server = simulation.world, simulation.server
    if world.current is not None and isinstance(simulation.conditions, Faults):
        simulation.conditions.late_once.add(world.current.name)
    job_id = jobs.submit("quick", {"n": 0}).job_id
    simulation.rules.deleted.add(job_id)
    jobs.delete_job(job_id)
    server.step_clock(GLITCH_SECONDS)
    world.sleep(DELAYS[-1])
    server.step_clock(-GLITCH_SECONDS)
    server.fail_over(0.2)


def _until_answered(world: World, request: Callable[[], object]) -> None:
    """Repeat a request until the store has answered."""
    while True:
        try:
            request()
            return
        except (StoreUnavailableError, OutcomeUnknownError):
            world.sleep(0.5)
        except MilepostError:
            return  # done by a request whose answer was lost, or no longer possible


def inspect(simulation: Simulation, process: Process) -> None:
    """Submit a job, walk through the list in pages, and read the counts."""
    jobs = simulation.jobs(process)
    manager, probes = jobs.manager, [jobs.submit("quick", {"n": 0})]
    if simulation.broker is not None:
        probes.append(simulation.queue_jobs(process).submit("queued", {"n": 0}))
    simulation.world.sleep(1.0)
    for probe in probes:
        try:
            status = jobs.wait(probe, timeout=0.5).status.value
        except WaitTimeoutError:
            status = "not ended"
        simulation.rules.rest.at_end_of_probe(status)
    rest, before, statuses = simulation.rules.rest, None, simulation.rules.rest.statuses()
    while statuses != before:  # else jobs were removed meanwhile
        before = statuses
        page = manager.find(limit=7)
        listed = [job.job_id for job in page.jobs]
        while page.next_cursor:
            page = manager.find(limit=7, cursor=page.next_cursor)
            listed += [job.job_id for job in page.jobs]
        counted = {status: manager.count_jobs(status=status) for status in JobStatus}
        statuses = rest.statuses()
    rest.at_end_of_list(listed, counted)
