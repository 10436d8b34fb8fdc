"""`milepost worker --metrics-port`: probes and metrics of a worker, through an outage of the store and its end."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from milepost import Jobs, Settings
from tests.cli.subprocesses import CommandRunner
from tests.redis_server import RedisServer
from tests.services import free_port
from tests.waiting import until

pytestmark = pytest.mark.timing
APP = """
import time
from milepost import Jobs, Run

jobs = Jobs()


@jobs.job("page")
def page(run: Run, seconds: float = 0) -> int:
    for _ in run.each(range(int(seconds * 100))):
        time.sleep(0.01)
    return 1
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def is_ready(web: httpx.Client) -> bool:
    """Return whether the worker has started and its store responds."""
    try:
        return web.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_worker_ends_when_idle_with_exit_code_0(app: Path, sqlite_url: str) -> None:
    command = CommandRunner(app, MILEPOST_URL=sqlite_url)
    command.call("worker", "app:jobs", "--exit-when-idle", "0")
    jobs = Jobs(sqlite_url)
    jobs.enqueue("page")
    jobs.enqueue("page")
    command.call("worker", "app:jobs", "--max-jobs", "1")
    assert sorted(job.status for job in jobs.list_jobs()) == ["completed", "pending"]
    wrong = command.error_line("worker", "app:jobs", "--exit-when-idle", "soon", code=2)
    assert wrong.startswith("milepost: --exit-when-idle: 'soon' is not a duration")
    jobs.close()


def test_probes_and_metrics_follow_outage_and_drain(
    app: Path, start_redis: Callable[..., RedisServer], namespace: str
) -> None:
    redis = start_redis(appendonly="always")
    jobs = Jobs(redis.url, options=Settings(namespace=namespace))
    command = CommandRunner(app, MILEPOST_URL=redis.url, MILEPOST_NAMESPACE=namespace, MILEPOST_GRACE="20")
    port = free_port()
    jobs.limit("page", running=1)
    worker = command.start("worker", "app:jobs", "--metrics-port", str(port), "-c", "1")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as web:
        until(lambda: is_ready(web))
        job = jobs.enqueue("page", {"seconds": 600})
        jobs.enqueue("page")
        jobs.enqueue("page", delay="1h")
        until(lambda: "milepost_worker_running 1.0" in web.get("/metrics").text)
        numbers = web.get("/metrics").text
        assert 'milepost_claimable{job_type="page",queue="page"} 1.0' in numbers
        assert 'milepost_scheduled{job_type="page",queue="page"} 1.0' in numbers
        assert 'milepost_limit_running{limit_key="page"} 1.0' in numbers
        assert 'milepost_limit_claimable{limit_key="page"} 1.0' in numbers
        assert float(re.findall(r"milepost_oldest_claimable_seconds\{.*\} (\S+)", numbers)[0]) > 0
        assert "milepost_store_up 1.0" in numbers
        assert "milepost_worker_concurrency 1.0" in numbers
        redis.stop()
        until(lambda: web.get("/readyz").status_code == 503)
        assert web.get("/healthz").status_code == 200, "a restart would not help"
        numbers = web.get("/metrics").text
        assert "milepost_store_up 0.0" in numbers
        assert "milepost_claimable{" not in numbers
        redis.start()
        until(lambda: is_ready(web))
        assert web.get("/other").status_code == 404
        worker.signal(signal.SIGTERM)
        code, _, errors = worker.finish()
        assert code == 0, errors
    found = jobs.get_job(job.job_id)
    assert found is not None
    assert (found.status, found.attempt) == ("pending", 0), "released, uncharged"
    jobs.close()
