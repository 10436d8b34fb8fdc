"""SIGTERM of a server with a worker: streams end at once, and the worker drains and releases its jobs."""

from __future__ import annotations

import signal
import socket
import time

import httpx
import pytest

from milepost import JobManager, JobStatus
from tests.waiting import PATIENCE, until
from tests.web.server import Server, messages

pytestmark = pytest.mark.timing


def start(url: str, grace: float = PATIENCE) -> Server:
    """Start the application of `working_app` in its own process."""
    return Server(url, app="tests.web.working_app:app", MILEPOST_GRACE=str(grace))


def running(server: Server, manager: JobManager, job_type: str) -> str:
    """Submit a job, and return its id when the server's worker runs it."""
    job_id: str = httpx.post(f"{server.url}/api/jobs", json={"job_type": job_type}).json()["job_id"]
    until(lambda: (job := manager.get_job(job_id)) is not None and job.message == "waiting")
    return job_id


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drained_worker_releases_its_job_and_streams_end(sqlite_url: str, number: signal.Signals) -> None:
    manager = JobManager(sqlite_url)
    with start(sqlite_url) as server:
        job_id = running(server, manager, "patient")
        with httpx.stream("GET", f"{server.url}/api/jobs/{job_id}/events") as answer:
            stream = messages(answer)
            assert next(stream).kind == "snapshot"
            server.signal(number)
            kinds = [message.kind for message in stream]
        assert "end" not in kinds, "another worker continues the job"
        assert server.wait() in (0, -number)
    job = manager.get_job(job_id)
    assert job is not None
    assert (job.status, job.crashes) == (JobStatus.PENDING, 0)
    assert [event.kind for event in manager.events(job_id) if event.kind == "released"] == ["released"]


def test_worker_drains_while_a_request_is_open(sqlite_url: str) -> None:
    manager = JobManager(sqlite_url)
    with start(sqlite_url) as server:
        job_id = running(server, manager, "patient")
        with socket.create_connection(("127.0.0.1", server.port)) as held:
            held.sendall(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.2)  # until the request has arrived; a later one would only weaken the test
            server.signal(signal.SIGTERM)
            until(lambda: (job := manager.get_job(job_id)) is not None and job.status is JobStatus.PENDING)
            assert server.is_alive, "it waits for the call"
        server.wait()


def test_unresponsive_code_is_abandoned_after_grace(sqlite_url: str) -> None:
    manager = JobManager(sqlite_url)
    with start(sqlite_url, grace=2.0) as server:
        job_id = running(server, manager, "deaf")
        server.signal(signal.SIGTERM)
        until(lambda: (job := manager.get_job(job_id)) is not None and job.status is JobStatus.PENDING)
        server.wait()


def test_second_signal_does_not_wait_for_grace(sqlite_url: str) -> None:
    manager = JobManager(sqlite_url)
    with start(sqlite_url, grace=600) as server:
        job_id = running(server, manager, "deaf")

        def again() -> bool:
            server.signal(signal.SIGTERM)
            time.sleep(0.2)  # simultaneous signals may merge into one
            return not server.is_alive

        until(again)
    job = manager.get_job(job_id)
    assert job is not None
    assert job.status is JobStatus.PENDING


def test_serve_runs_workers_and_drains_them(sqlite_url: str) -> None:
    manager = JobManager(sqlite_url)
    code = "from milepost.web import serve; from tests.web.working_app import jobs; serve(jobs, port={port}, workers=1)"
    with Server(sqlite_url, code=code, TEST_STORE=sqlite_url) as server:
        job_id = running(server, manager, "patient")
        server.signal(signal.SIGTERM)
        server.wait()
    job = manager.get_job(job_id)
    assert job is not None
    assert job.status is JobStatus.PENDING


def test_server_without_workers_ends_its_streams_and_stops(sqlite_url: str) -> None:
    with Server(sqlite_url) as server, httpx.stream("GET", f"{server.url}/api/events") as answer:
        stream = messages(answer)
        assert next(stream).kind == "snapshot"
        server.signal(signal.SIGTERM)
        assert list(stream) == []
        server.wait()
