"""When pending jobs are expected to start, by simulation of the queue."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from milepost import Jobs
from milepost.core.job import Eta, Job
from milepost.core.serialization import to_json
from milepost.core.transitions import plan_create, plan_start
from milepost.manager.validation import submit_fields
from milepost.run.forecast.history import PartProfile, RunHistory, RunProfile
from milepost.stores.ids import new_job_id, new_nonce, new_operation_id
from milepost.stores.protocol import Claim, Write
from milepost.stores.sync_bridge import run_sync
from milepost.worker.registry import WorkerEntry, write_worker
from milepost.worker.start_forecast import Forecast, Queue, forecast, simulate
from tests.worker.conftest import MakeJobs

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
MICROS = int(NOON.timestamp() * 1_000_000)


def waiting(name: str, job_type: str = "slow", priority: int = 0, **more: str) -> Job:
    fields = {"type": job_type, "status": "pending", "run_by": "worker", "ready": job_type, "priority": str(priority)}
    return Job.stored(name, {**fields, "created": str(MICROS - 1000), **more})


def running(name: str, job_type: str = "slow", left: tuple[float, float] | None = None, spent: float = 0, **more: str) -> Job:  # fmt: skip
    fields = {"type": job_type, "status": "running", "run_by": "worker", "started": str(MICROS - int(spent * 1e6))}
    if left is not None:
        ends = [(NOON + timedelta(seconds=end)).isoformat() for end in left]
        fields["eta"] = to_json({"earliest": ends[0], "latest": ends[1]}, "eta")
    return Job.stored(name, {**fields, **more})


def queue(jobs: list[Job], busy: list[Job] = [], **more: Any) -> Queue:  # noqa: B006 - never changed
    known = {"slots": 1, "limits": {}, "paused": frozenset(), "took": {"slow": [20.0], "quick": [1.0]}}
    return Queue(**{"now": MICROS, "waiting": jobs, "running": busy, **known, **more})


def seconds(starts: dict[str, Eta], name: str) -> tuple[float, float]:
    eta = starts[name]
    low, high = ((datetime.fromisoformat(text) - NOON).total_seconds() for text in (eta.earliest, eta.latest))
    return low, high


def test_slot_takes_next_job_when_run_ends() -> None:
    starts = simulate(queue([waiting("a"), waiting("b"), waiting("c")], [running("r", left=(8, 12))]))
    low, high = seconds(starts, "a")
    assert 8 <= low < high <= 12
    assert seconds(starts, "b") == pytest.approx((low + 20, high + 20), abs=0.01)
    assert seconds(starts, "c") == pytest.approx((low + 40, high + 40), abs=0.01)


def test_free_slot_starts_job_at_once() -> None:
    starts = simulate(queue([waiting("a"), waiting("b"), waiting("c")], [running("r", spent=5)], slots=3))
    assert [seconds(starts, name) for name in "ab"] == [(0, 0), (0, 0)]
    assert seconds(starts, "c")[0] == pytest.approx(15, abs=0.01)


def test_priority_and_not_before_are_respected() -> None:
    later = str(MICROS + 300_000_000)
    starts = simulate(queue([waiting("a"), waiting("b", priority=5), waiting("c", not_before=later)]))
    assert (seconds(starts, "b"), seconds(starts, "a"), seconds(starts, "c")) == ((0, 0), (20, 20), (300, 300))


def test_limited_type_leaves_slots_to_others() -> None:
    jobs = [waiting("a"), waiting("b"), waiting("q", "quick")]
    starts = simulate(queue(jobs, slots=3, limits={"slow": 1}))
    assert (seconds(starts, "a"), seconds(starts, "b"), seconds(starts, "q")) == ((0, 0), (20, 20), (0, 0))


def test_no_forecast_if_something_is_unknown() -> None:
    assert set(simulate(queue([waiting("a"), waiting("b"), waiting("q", "quick")], paused=frozenset({"slow"})))) == {
        "q"
    }
    assert set(simulate(queue([waiting("n", "new"), waiting("z")]))) == {"n"}, "how long the new one takes is not known"
    assert simulate(queue([waiting("a")], [running("r", stalled="no progress")])) == {}
    assert simulate(queue([waiting("a")], [running("r", spent=50)])) == {}, "longer than any before"
    assert simulate(queue([waiting("a")], slots=0)) == {}


def submitted(jobs: Jobs) -> Job:
    """Create a job for workers; `submit` with a store in memory would start one."""
    job = run_sync(
        jobs.store.apply([Write(new_job_id(), plan_create(submit_fields("slow", params={}), new_operation_id()))])
    )
    made = job.outcomes[0].job
    assert made is not None
    return made


def record_profile(jobs: Jobs, job_type: str, took: float) -> None:
    history = RunHistory(jobs.store)
    history.record_profile(job_type, RunProfile(took, 0.0, (PartProfile("", None, took, (), took),)))
    run_sync(history.sync(spacing=0))


def known(jobs: Jobs, made: list[Job] | None = None) -> Forecast:
    found = run_sync(forecast(jobs.store, made))
    assert found is not None
    return found


def test_start_forecast_from_store(make_jobs: MakeJobs) -> None:
    jobs = make_jobs()
    made = [submitted(jobs) for _ in range(3)]
    other = jobs.create_job("caller")
    assert known(jobs, [*made, other]).starts == {}, "no worker lives"
    assert run_sync(forecast(jobs.store, [other])) is None, "it waits for no worker"
    now = time.time()
    run_sync(write_worker(jobs.store, WorkerEntry("w", "h", 1, now, now, types=("slow",), concurrency=2), 60))
    assert set(known(jobs, made).starts) == {job.job_id for job in made[:2]}, "the duration is unknown"
    record_profile(jobs, "slow", 40.0)
    found = known(jobs)
    assert set(found.starts) == {job.job_id for job in made}
    third = found.describe(made[2])
    assert third.expected_start is not None
    begins = datetime.fromisoformat(third.expected_start.earliest)
    assert 20 < (begins - made[2].created_at).total_seconds() < 60
    shown = third.to_dict()["expected_start"]
    assert shown == {"earliest": third.expected_start.earliest, "latest": third.expected_start.latest}


def reason(jobs: Jobs, job: Job) -> tuple[str, str]:
    shown = known(jobs, [job]).describe(job)
    return (shown.waiting_for.code if shown.waiting_for is not None else "", shown.activity)


def test_waiting_for_names_the_reason(make_jobs: MakeJobs) -> None:
    jobs = make_jobs()
    first, second = submitted(jobs), submitted(jobs)
    assert reason(jobs, first) == ("no_worker", "No worker serves slow")
    now = time.time()
    run_sync(write_worker(jobs.store, WorkerEntry("w", "h", 1, now, now, types=("slow",), concurrency=1), 60))
    assert reason(jobs, first) == ("", "Waiting for a worker")
    assert reason(jobs, second) == ("jobs_ahead", "1 job ahead")
    run_sync(jobs.store.set_limit("slow", None, True))
    assert reason(jobs, first) == ("paused", "Type slow is paused")
    run_sync(jobs.store.set_limit("slow", None, False))
    jobs.close_gate("slow", 100 * 365 * 86_400)
    code, text = reason(jobs, first)
    assert (code, text[:21], known(jobs).starts) == ("gate_closed", "slow is closed until ", {})
    jobs.open_gate("slow")
    run_sync(jobs.store.set_limit("slow", 1, False))
    run = plan_start(new_operation_id(), nonce=new_nonce(), lease=60_000_000, worker="w")
    run_sync(jobs.store.apply([Write(first.job_id, run)]))
    assert reason(jobs, second) == ("limit_reached", "Concurrency limit of 1 reached for slow")
    jobs.limit("slow", rate="1/h")
    run_sync(jobs.store.apply([], Claim("w", {"slow": None}, (run,), new_operation_id())))
    assert reason(jobs, submitted(jobs)) == ("rate_reached", "Rate of 1/h reached for slow")


def test_waiting_for_names_a_queue_that_no_worker_serves(make_jobs: MakeJobs) -> None:
    """Regression: a job in a queue without workers said that it waits for one, and so did one whose workers serve another."""
    jobs = make_jobs()
    fields = submit_fields("slow", params={}, queue="gpu")
    made = run_sync(jobs.store.apply([Write(new_job_id(), plan_create(fields, new_operation_id()))])).outcomes[0].job
    assert made is not None
    now = time.time()
    entry = WorkerEntry("w", "h", 1, now, now, types=("slow",), queues=("slow",))
    run_sync(write_worker(jobs.store, entry, 60))
    assert reason(jobs, made) == ("queue_not_served", "No worker serves slow in the queue gpu")
    run_sync(write_worker(jobs.store, replace(entry, queues=("slow@gpu",)), 60))
    assert reason(jobs, made) == ("", "Waiting for a worker")
    assert reason(jobs, submitted(jobs)) == ("no_worker", "No worker serves slow")


def test_job_that_no_worker_serves_has_no_expected_start(make_jobs: MakeJobs) -> None:
    """Regression: a worker of another queue of its type gave it one."""
    jobs = make_jobs()
    job, now = submitted(jobs), time.time()
    entry = WorkerEntry("w", "h", 1, now, now, types=("slow",), queues=("slow@gpu",))
    run_sync(write_worker(jobs.store, entry, 60))
    assert known(jobs, [job]).describe(job).expected_start is None
    run_sync(write_worker(jobs.store, replace(entry, queues=("slow",)), 60))
    assert known(jobs, [job]).describe(job).expected_start is not None


def test_waiting_for_names_a_later_start(make_jobs: MakeJobs) -> None:
    jobs = make_jobs()
    fields = submit_fields("slow", params={}, not_before=datetime(2126, 11, 26, 14, 5, tzinfo=UTC))
    made = run_sync(jobs.store.apply([Write(new_job_id(), plan_create(fields, new_operation_id()))])).outcomes[0].job
    assert made is not None
    now = time.time()
    run_sync(write_worker(jobs.store, WorkerEntry("w", "h", 1, now, now, types=("slow",), concurrency=1), 60))
    assert reason(jobs, made) == ("starts_at", "Starts 26 Nov 2126 14:05:00 UTC")


@pytest.mark.parametrize("later", ["not_before", "message_at"])
def test_waiting_for_names_a_later_start_in_a_task_queue(make_jobs: MakeJobs, later: str) -> None:
    """Regression: it said that it waits for a worker."""
    jobs, at = make_jobs(), str(int(datetime(2126, 11, 26, 14, 5, tzinfo=UTC).timestamp()) * 1_000_000)
    fields = {**submit_fields("slow", params={}, task_queue="celery"), later: at}
    made = run_sync(jobs.store.apply([Write(new_job_id(), plan_create(fields, new_operation_id()))])).outcomes[0].job
    assert made is not None
    assert reason(jobs, made) == ("starts_at", "Starts 26 Nov 2126 14:05:00 UTC")
    assert known(jobs, [made]).describe(made).expected_start is None


@pytest.mark.parametrize("task_queue", [None, "celery"])
def test_due_job_no_longer_names_its_start(make_jobs: MakeJobs, task_queue: str | None) -> None:
    """Regression: while its workers were busy, it named a start in the past."""
    jobs, at = make_jobs(), datetime(2126, 11, 26, 14, 5, tzinfo=UTC)
    fields = submit_fields("slow", params={}, not_before=at, task_queue=task_queue)
    made = run_sync(jobs.store.apply([Write(new_job_id(), plan_create(fields, new_operation_id()))])).outcomes[0].job
    assert made is not None
    now = time.time()
    run_sync(write_worker(jobs.store, WorkerEntry("w", "h", 1, now, now, types=("slow",), concurrency=1), 60))
    later = replace(known(jobs, [made]), now=int(at.timestamp() + 1) * 1_000_000)
    shown = later.describe(made)
    assert (shown.waiting_for, shown.activity, shown.corrupt) == (None, "Waiting for a worker", ())
