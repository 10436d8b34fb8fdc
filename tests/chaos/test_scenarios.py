"""Scenarios that went wrong in other systems: cancels, zombies, outages and lost replies in a given order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from milepost import Job, Jobs
from milepost.core.values import WaitingFor
from tests.chaos.calibration import slowness
from tests.chaos.conftest import MakeWorkers, start_app
from tests.chaos.proxy import Proxy
from tests.redis_server import RedisServer
from tests.waiting import PATIENCE, current, freeze, until
from tests.worker.application import lines
from tests.worker.conftest import Workers
from tests.worker.job_assertions import kinds, starts

pytestmark = pytest.mark.timing


def receipt_of(jobs: Jobs, job: Job) -> tuple[str | None, bool | None]:
    """Wait for the receipt and return it."""

    def found() -> tuple[str | None, bool | None] | None:
        receipt = current(jobs, job).receipt
        return (receipt.how, receipt.confirmed) if receipt is not None and receipt.confirmed is not None else None

    receipt: tuple[str | None, bool | None] = until(found)
    return receipt


def test_cancel_stays_unconfirmed_when_worker_is_killed(workers: Workers, jobs: Jobs) -> None:
    worker = workers.start()
    job = jobs.enqueue("deaf")
    workers.noted("deaf")
    assert jobs.cancel_job(job.job_id).status == "cancelled"
    worker.kill()
    worker.wait()
    workers.start()
    assert receipt_of(jobs, job) == ("lease_expired", False)
    assert current(jobs, job).status == "cancelled"
    assert len(workers.noted("deaf")) == 1


def test_frozen_cancelled_run_confirms_late_and_writes_nothing(workers: Workers, jobs: Jobs) -> None:
    zombie = workers.start()
    job = jobs.enqueue("waits")
    workers.noted("waits")
    freeze(zombie.pid, workers.url)
    assert jobs.cancel_job(job.job_id).status == "cancelled"
    workers.start()
    assert receipt_of(jobs, job) == ("lease_expired", False)
    zombie.send_signal(signal.SIGCONT)
    # It stops and sends its receipt: once, late, and now confirmed.
    until(lambda: (receipt := current(jobs, job).receipt) is not None and receipt.confirmed)
    done = current(jobs, job)
    assert (done.status, done.result) == ("cancelled", None)
    assert [kind for kind in kinds(jobs, job) if kind in ("running", "completed")] == ["running"]


def test_uncooperative_thread_is_retried_only_after_lease(workers: Workers, jobs: Jobs) -> None:
    worker = workers.start()
    job = jobs.enqueue("deaf")
    workers.noted("deaf")
    jobs.cancel_job(job.job_id)
    jobs.retry_job(job.job_id)
    other = workers.start()
    waiting = jobs.enqueue("noted", {"text": "after"})
    assert jobs.wait(waiting.job_id, PATIENCE).status == "completed"  # both workers are free to claim
    held = current(jobs, job)
    assert (held.status, held.waiting_for) == ("pending", WaitingFor("previous_run_stopping"))
    assert len(workers.noted("deaf")) == 1
    worker.kill()
    workers.noted("deaf", 2)
    assert current(jobs, job).status == "running"
    assert other.poll() is None


def test_zombie_cannot_write_to_reused_job_id(workers: Workers, jobs: Jobs) -> None:
    zombie = workers.start()
    job = jobs.enqueue("steps", {"count": 2000, "pause": 0.02})
    workers.noted("step", 3)
    freeze(zombie.pid, workers.url)
    jobs.delete_job(job.job_id)
    again = jobs.enqueue("steps", {"count": 3}, job_id=job.job_id)
    workers.start()
    done = jobs.wait(again.job_id, PATIENCE)
    zombie.send_signal(signal.SIGCONT)
    zombie.send_signal(signal.SIGTERM)
    assert zombie.wait(PATIENCE) == 0
    assert (done.status, done.result) == ("completed", 3)
    assert current(jobs, again).version == done.version
    assert workers.noted("began at 0", 2)


@pytest.mark.service("redis-server")
def test_claim_with_lost_reply_is_answered_again(start_redis: Callable[..., RedisServer], make_workers: MakeWorkers) -> None:  # fmt: skip
    server = start_redis(appendonly="always")
    with Proxy(server.port) as proxy:
        workers = make_workers(f"redis://127.0.0.1:{proxy.port}/0")
        with closing(Jobs(server.url, options=workers.jobs().settings)) as direct:
            workers.start()
            first = direct.enqueue("noted")
            assert direct.wait(first.job_id, PATIENCE).status == "completed"
            for number in range(10):
                proxy.lose(2)
                made = [direct.enqueue("noted", {"text": f"{number}-{n}"}) for n in range(3)]
                for job in made:
                    done = direct.wait(job.job_id, PATIENCE)
                    assert (done.status, done.attempt, done.crashes) == ("completed", 1, 0)
            until(lambda: proxy.lost >= 10)
            ran = [line.split()[1] for line in lines(workers.log) if "-" in line]
            assert sorted(ran) == sorted(f"{number}-{n}" for number in range(10) for n in range(3))  # each once


@pytest.mark.service("redis-server")
def test_runs_survive_outage_or_are_released_uncharged(
    start_redis: Callable[..., RedisServer], make_workers: MakeWorkers
) -> None:
    server = start_redis(appendonly="always")
    workers = make_workers(server.url)
    with closing(workers.jobs()) as jobs:
        for _ in range(2):
            workers.start(concurrency=5)
        made = [jobs.enqueue("steps", {"count": 60, "pause": 0.05}) for _ in range(10)]
        workers.noted("began at 0", 10)
        server.kill()
        time.sleep(2 * workers.lease)
        server.start()
        for job in made:
            done = until(lambda job=job: (found := current(jobs, job)).is_terminal and found)
            assert (done.status, done.result, done.attempt, done.crashes) == ("completed", 60, 1, 0)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("leases", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_blocked_event_loop_of_60_leases_runs_once(workers: Workers, jobs: Jobs, leases: int) -> None:
    lease = slowness()  # seconds: a shorter one can run out while a busy machine runs other processes
    workers.environment |= {"MILEPOST_LEASE": str(lease), "MILEPOST_SWEEP": "0.1"}
    start_app(workers, "tests.chaos.blocking")
    start_app(workers, "tests.chaos.blocking")
    job = jobs.enqueue("blocks", {"seconds": leases * lease, "each": 3 * lease}, max_attempts=1)
    done = jobs.wait(job.job_id, 500)
    assert (done.status, done.attempt, done.crashes) == ("completed", 1, 0)
    assert starts(jobs, job) == 1
    assert len(workers.noted("blocks")) == 1
