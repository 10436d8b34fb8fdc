"""When pending jobs are expected to start: the queue is played with what is known, and nothing is said beyond that."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from milepost import Jobs
from milepost.core.encoding import to_json
from milepost.core.job import Eta, Job
from milepost.core.lifecycle import plan_create
from milepost.manager.requests import submit_fields
from milepost.stores.driving import drive
from milepost.stores.ids import new_job_id, new_op
from milepost.stores.protocol import Write
from milepost.tracking.digests import Digests
from milepost.tracking.timeline import Lesson, PartLesson
from milepost.worker.expected import Queue, expected_starts, play, told
from milepost.worker.published import WorkerEntry, write_worker
from tests.worker.conftest import MakeJobs

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
MICROS = int(NOON.timestamp() * 1_000_000)


def waiting(name: str, job_type: str = "slow", priority: int = 0, **more: str) -> Job:
    fields = {"type": job_type, "status": "pending", "driver": "worker", "queue": job_type, "priority": str(priority)}
    return Job.stored(name, {**fields, "created": str(MICROS - 1000), **more})


def running(name: str, job_type: str = "slow", left: tuple[float, float] | None = None, spent: float = 0, **more: str) -> Job:  # fmt: skip
    fields = {"type": job_type, "status": "running", "driver": "worker", "started": str(MICROS - int(spent * 1e6))}
    if left is not None:
        ends = [(NOON + timedelta(seconds=end)).isoformat() for end in left]
        fields["eta"] = to_json({"earliest": ends[0], "latest": ends[1]}, "eta")
    return Job.stored(name, {**fields, **more})


def queue(jobs: list[Job], busy: list[Job] = [], **more: Any) -> Queue:  # noqa: B006 - nobody changes it
    known = {"slots": 1, "limits": {}, "paused": frozenset(), "took": {"slow": [20.0], "quick": [1.0]}}
    return Queue(**{"now": MICROS, "waiting": jobs, "running": busy, **known, **more})


def seconds(starts: dict[str, Eta], name: str) -> tuple[float, float]:
    eta = starts[name]
    low, high = ((datetime.fromisoformat(text) - NOON).total_seconds() for text in (eta.earliest, eta.latest))
    return low, high


def test_each_slot_takes_the_next_job_when_its_run_ends() -> None:
    starts = play(queue([waiting("a"), waiting("b"), waiting("c")], [running("r", left=(8, 12))]))
    low, high = seconds(starts, "a")
    assert 8 <= low < high <= 12
    assert seconds(starts, "b") == pytest.approx((low + 20, high + 20), abs=0.01)
    assert seconds(starts, "c") == pytest.approx((low + 40, high + 40), abs=0.01)


def test_a_free_slot_starts_a_job_at_once() -> None:
    starts = play(queue([waiting("a"), waiting("b"), waiting("c")], [running("r", spent=5)], slots=3))
    assert [seconds(starts, name) for name in "ab"] == [(0, 0), (0, 0)]
    assert seconds(starts, "c")[0] == pytest.approx(15, abs=0.01)


def test_a_higher_priority_goes_first_and_a_later_time_is_waited_for() -> None:
    later = str(MICROS + 300_000_000)
    starts = play(queue([waiting("a"), waiting("b", priority=5), waiting("c", not_before=later)]))
    assert (seconds(starts, "b"), seconds(starts, "a"), seconds(starts, "c")) == ((0, 0), (20, 20), (300, 300))


def test_a_limited_type_leaves_the_slots_to_others() -> None:
    jobs = [waiting("a"), waiting("b"), waiting("q", "quick")]
    starts = play(queue(jobs, slots=3, limits={"slow": 1}))
    assert (seconds(starts, "a"), seconds(starts, "b"), seconds(starts, "q")) == ((0, 0), (20, 20), (0, 0))


def test_nothing_is_said_where_something_is_unknown() -> None:
    assert set(play(queue([waiting("a"), waiting("b"), waiting("q", "quick")], paused=frozenset({"slow"})))) == {"q"}
    assert set(play(queue([waiting("n", "new"), waiting("z")]))) == {"n"}, "how long the new one takes is not known"
    assert play(queue([waiting("a")], [running("r", stalled="no progress")])) == {}
    assert play(queue([waiting("a")], [running("r", spent=50)])) == {}, "longer than any before"
    assert play(queue([waiting("a")], slots=0)) == {}


def submitted(jobs: Jobs) -> Job:
    """A job for workers; `submit` of a store in memory would start one."""
    job = drive(jobs.store.apply([Write(new_job_id(), plan_create(submit_fields("slow", params={}), new_op()))]))
    made = job.outcomes[0].job
    assert made is not None
    return made


def learn(jobs: Jobs, job_type: str, took: float) -> None:
    digests = Digests(jobs.store)
    digests.learn(job_type, Lesson(took, 0.0, (PartLesson("", None, took, (), took),)))
    drive(digests.tend(spacing=0))


def test_the_queue_of_a_store(make_jobs: MakeJobs) -> None:
    jobs = make_jobs()
    made = [submitted(jobs) for _ in range(3)]
    other = jobs.create_job("caller")
    assert drive(expected_starts(jobs.store, [*made, other])) == {}, "no worker lives"
    now = time.time()
    drive(write_worker(jobs.store, WorkerEntry("w", "h", 1, now, now, types=("slow",), concurrency=2), 60))
    assert set(drive(expected_starts(jobs.store, made))) == {job.job_id for job in made[:2]}, "nobody knows how long"
    learn(jobs, "slow", 40.0)
    starts = drive(expected_starts(jobs.store))
    assert set(starts) == {job.job_id for job in made}
    third = told(made[2], starts)
    assert third.expected_start is not None
    begins = datetime.fromisoformat(third.expected_start.earliest)
    assert 20 < (begins - made[2].created_at).total_seconds() < 60
    shown = third.to_dict()["expected_start"]
    assert shown == {"earliest": third.expected_start.earliest, "latest": third.expected_start.latest}
