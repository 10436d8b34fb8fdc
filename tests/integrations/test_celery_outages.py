"""Tracked tasks during an outage of milepost's store: none is failed, revoked or repeated."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.calibration import slowness
from tests.integrations.conftest import PATIENCE, Deployment
from tests.integrations.test_celery_workflows import CANVAS, KINDS
from tests.redis_server import RedisServer

pytest.importorskip("celery")
pytestmark = pytest.mark.timing

TASKS = (("early", False), ("late", False), ("looks", True))
"""One that ends during the outage, one that ends after it, and one that writes checkpoints all the time."""


@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "emptied"])
def test_long_store_outage_revokes_no_running_task(
    make_deployment: Callable[..., Deployment],
    broker: RedisServer,
    start_redis: Callable[..., RedisServer],
    keeps: bool,
) -> None:
    """A task that ran during a store outage longer than a lease was terminated with the result REVOKED."""
    lease = 2.0 * slowness()
    store = start_redis(appendonly="always" if keeps else None)
    deployment = make_deployment("tests.integrations.celery_canvas_app", CANVAS, broker.url)
    deployment.environment |= {"MILEPOST_URL": store.url, "TEST_RESULTS": broker.url, "MILEPOST_LEASE": f"{lease:g}"}
    deployment.environment["MILEPOST_SWEEP"] = "3600"  # so that no sweeper is faster than a heartbeat after the outage
    deployment.start(6)
    sent = {(kind, *task): deployment.app.tasks[kind].waits.delay(*task) for kind in KINDS for task in TASKS}
    for kind in KINDS:
        deployment.wait_for_lines(f"{kind} waits", 3)
    tracked = [sent["tracked", *task].id for task in TASKS]
    before = [deployment.jobs.get_job(job_id) for job_id in tracked]
    store.kill()
    Path(f"{deployment.log}.early").touch()
    over = time.monotonic() + 4 * lease
    deployment.until(lambda: time.monotonic() > over, "the lease and the grace time end twice")
    store.start()

    def is_recorded(job_id: str) -> bool:
        job = deployment.jobs.get_job(job_id)
        return job is not None and job.status != "pending"

    for job_id in tracked:
        deployment.until(lambda job_id=job_id: is_recorded(job_id), f"job {job_id} is recorded")  # type: ignore[misc]
    for gate in ("late", "looks"):
        Path(f"{deployment.log}.{gate}").touch()
    for (_, gate, _), result in sent.items():
        assert result.get(timeout=PATIENCE) == gate
    crashes = 0
    for task, job_id, was in zip(TASKS, tracked, before, strict=True):
        job = deployment.ended(job_id)
        assert was is not None
        assert (job.status, job.result, job.attempt) == ("completed", task[0], 1)
        crashes += job.crashes  # of processes that the machine held back for a lease after the outage
        assert (job.job_type, job.params, job.metadata) == (was.job_type, was.params, was.metadata)
    bare, followed = (
        sum(line.startswith(f"{kind} waits") for line in deployment.lines()) for kind in ("bare", "tracked")
    )
    assert bare == 3
    assert 3 <= followed <= 3 + crashes, "a task ran again although its process was not taken for lost"
