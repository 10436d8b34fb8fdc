"""Faults of the machine and of the store: clock jumps, a held GIL, an emptied store, slow and hung connections."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from milepost import Job, Jobs
from milepost.stores.ids import new_operation_id
from tests.chaos.conftest import MakeWorkers, start_app
from tests.chaos.proxy import Proxy
from tests.redis_server import RedisServer
from tests.services import FakeClock
from tests.waiting import PATIENCE, is_writable, until
from tests.worker.application import lines
from tests.worker.conftest import Workers
from tests.worker.job_assertions import starts

pytestmark = pytest.mark.timing

Start = Callable[..., RedisServer]


def ended(jobs: Jobs, job: Job) -> Job:
    """Return a job that has ended, by reading alone."""

    def found() -> Job | None:
        one = jobs.get_job(job.job_id)
        return one if one is not None and one.is_terminal else None

    read: Job = until(found)
    return read


# --- the interpreter --------------------------------------------------------------------------------------------------


def test_child_holding_gil_keeps_lease(workers: Workers, jobs: Jobs) -> None:
    start_app(workers, "tests.chaos.blocking")
    start_app(workers, "tests.chaos.blocking")
    job = jobs.enqueue("grips-apart", {"seconds": 3 * workers.lease}, max_attempts=1)
    done = jobs.wait(job.job_id, PATIENCE)
    assert (done.status, done.attempt, done.crashes) == ("completed", 1, 0)
    assert starts(jobs, job) == 1


def test_worker_with_held_gil_loses_lease_and_cannot_write(workers: Workers, jobs: Jobs, tmp_path: Path) -> None:
    first = start_app(workers, "tests.chaos.blocking")

    def held() -> tuple[Job, Path] | None:
        end = tmp_path / new_operation_id()
        job = jobs.enqueue("grips", {"until": str(end)})
        workers.noted(f"grips {job.job_id}")
        if is_writable(workers.url):
            return job, end
        end.touch()  # held within a transaction, in which case no worker can take it over
        jobs.wait(job.job_id, PATIENCE)
        return None

    job, end = until(held, 2 * PATIENCE)
    second = start_app(workers, "tests.chaos.blocking")
    done = jobs.wait(job.job_id, PATIENCE)
    end.touch()
    assert (done.status, done.result, done.crashes) == ("completed", f"attempt 1 in {second.pid}", 1)
    workers.noted(f"let go {job.job_id}")
    first.terminate()
    assert first.wait(PATIENCE) == 0  # by then it has sent all its reports
    after = jobs.get_job(job.job_id)
    assert after is not None
    assert (after.version, after.result) == (done.version, done.result)
    assert starts(jobs, job) == 2


# --- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.service("faketime")
@pytest.mark.parametrize("offset", ["+1h", "-1h"])
def test_worker_with_wrong_clock_follows_store_clock(
    offset: str, start_redis: Start, make_workers: MakeWorkers, tmp_path: Path
) -> None:
    server = start_redis()
    workers = make_workers(server.url)
    clock = FakeClock(tmp_path / "clock")
    clock.jump(offset)
    with closing(workers.jobs()) as jobs, server.client() as client:
        workers.start(**clock.environment)
        first = jobs.enqueue("noted")
        assert jobs.wait(first.job_id, PATIENCE).status == "completed"
        due = datetime.now(UTC) + timedelta(seconds=3)
        later = jobs.enqueue("noted", not_before=due)
        client.config_resetstat()
        time.sleep(2.0)
        asked = client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
        assert asked < 100, "it asks again and again for a job that is not due"
        done = jobs.wait(later.job_id, PATIENCE)
        assert done.status == "completed"
        assert done.started_at is not None
        assert done.started_at >= due
        long = jobs.enqueue("steps", {"count": 60, "pause": workers.lease / 20})
        done = jobs.wait(long.job_id, PATIENCE)
        assert (done.status, done.result, done.attempt, done.crashes, starts(jobs, long)) == ("completed", 60, 1, 0, 1)


@pytest.mark.service("faketime")
@pytest.mark.parametrize("offset", ["+1h", "-1h"])
def test_clock_change_takes_no_job_from_live_worker(
    offset: str, sqlite_url: str, make_workers: MakeWorkers, tmp_path: Path
) -> None:
    """The clock of a SQLite store is that of its machine, here of the two workers.

    The test only reads: to wait for a job it would sweep, by the clock that the workers no longer have.
    """
    clock = FakeClock(tmp_path / "clock")
    workers = make_workers(sqlite_url, lease=60.0)  # far longer than a busy disk stands still
    with closing(workers.jobs()) as jobs:
        workers.start(**clock.environment)
        workers.start(**clock.environment)
        made = [jobs.enqueue("steps", {"count": 60, "pause": 0.05}) for _ in range(4)]
        workers.noted("began at 0", 4)
        workers.noted("step 5")
        clock.jump(offset)
        for job in made:
            done = ended(jobs, job)
            assert (done.status, done.result, done.crashes, starts(jobs, job)) == ("completed", 60, 0, 1)
            assert done.completed_at is not None
            assert done.created_at is not None
            moved = (done.completed_at - done.created_at).total_seconds()
            assert (moved > 3000) if offset == "+1h" else (moved < -3000), "each process goes by its own clock"
        after = jobs.enqueue("noted")
        assert ended(jobs, after).status == "completed"


# --- a store that forgets, is slow, or has hung up --------------------------------------------------------------------


@pytest.mark.service("redis-server")
@pytest.mark.parametrize("how", ["FLUSHALL", "killed without persistence"])
def test_emptied_store_stops_runs_and_continues(how: str, start_redis: Start, make_workers: MakeWorkers) -> None:
    server = start_redis()
    workers = make_workers(server.url)
    with closing(workers.jobs()) as jobs:
        worker = workers.start()
        awaiting = jobs.enqueue("waits")
        stepping = jobs.enqueue("steps", {"count": 5000})
        workers.noted("waits")
        workers.noted("step 3")
        if how == "FLUSHALL":
            with server.client() as client:
                client.flushall()
        else:
            server.kill()
            server.start()
        workers.noted("waits ended")
        before = len(lines(workers.log))
        until(lambda: jobs.get_job(awaiting.job_id) is None and jobs.get_job(stepping.job_id) is None)
        assert jobs.list_jobs() == []
        again = jobs.enqueue("noted", {"text": "again"})
        assert jobs.wait(again.job_id, PATIENCE).status == "completed"
        assert [job.job_id for job in jobs.list_jobs()] == [again.job_id], "a run that was forgotten writes nothing"
        assert worker.poll() is None
        assert len(lines(workers.log)) < before + 1000, "the lost run continued to its end"


@pytest.mark.service("redis-server")
def test_slow_store_loses_no_run(start_redis: Start, make_workers: MakeWorkers) -> None:
    server = start_redis(appendonly="everysec")
    with Proxy(server.port) as proxy:
        workers = make_workers(f"redis://127.0.0.1:{proxy.port}/0", lease=10.0)  # a pause of the machine stops no run
        with closing(Jobs(server.url, options=workers.jobs().settings)) as direct:
            workers.start()
            job = direct.enqueue("steps", {"count": 30})
            workers.noted("step 2")
            proxy.delay(0.1 * workers.lease, 20)
            done = direct.wait(job.job_id, PATIENCE)
            assert (done.status, done.result, done.attempt, done.crashes) == ("completed", 30, 1, 0)
            assert starts(direct, job) == 1
            until(lambda: proxy.delayed == 20)


@pytest.mark.service("redis-server")
def test_hung_connections_are_replaced_without_duplicates(start_redis: Start, make_workers: MakeWorkers) -> None:
    server = start_redis()
    with Proxy(server.port) as proxy:
        workers = make_workers(f"redis://127.0.0.1:{proxy.port}/0")
        workers.environment["MILEPOST_LEASE"] = "60"
        with closing(Jobs(server.url, options=workers.jobs().settings)) as direct:
            workers.start()
            job = direct.enqueue("steps", {"count": 40, "pause": 0.02})
            workers.noted("step 5")
            proxy.hang()
            after = direct.enqueue("noted")
            for one, result in ((job, 40), (after, None)):
                done = direct.wait(one.job_id, PATIENCE)
                assert (done.status, done.attempt, done.crashes, starts(direct, one)) == ("completed", 1, 0, 1)
                assert result in (None, done.result)
            assert [line for line in lines(workers.log) if line.startswith("step")] == [f"step {n}" for n in range(40)]
