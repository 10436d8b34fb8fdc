"""The stream of one job on a real server: snapshot, resume, end of the job, and shutdown."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import httpx
import pytest

from tests.web.server import Message, Server, messages


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def read(server: Server, job_id: str, until: int = 1000, headers: dict[str, str] | None = None) -> list[Message]:
    """Return the messages of a stream until its end, or the first `until`."""
    found: list[Message] = []
    with httpx.stream("GET", f"{server.url}/api/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        for message in messages(answer):
            found.append(message)
            if len(found) == until:
                break
    return found


def test_new_client_gets_snapshot_events_and_end(server: Server) -> None:
    job_id = server.drive("create_job", None, "ingestion")["job_id"]
    with httpx.stream("GET", f"{server.url}/api/jobs/{job_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        stream = messages(answer)
        first = next(stream)
        assert (first.kind, first.version, first.data["status"]) == ("snapshot", 1, "pending")
        server.drive("update_job", job_id, "running", message="Loading")
        server.drive("update_job", job_id, progress=0.5)
        server.drive("update_job", job_id, "completed", result={"n": 1})
        rest = list(stream)
    assert [(m.kind, m.version) for m in rest] == [("running", 2), ("progress", 3), ("completed", 4), ("end", None)]
    assert rest[1].data["progress"] == 0.5


def test_resumed_client_gets_no_snapshot_and_declared_gaps(server: Server) -> None:
    job_id = server.drive("create_job", None, "ingestion")["job_id"]
    server.drive("update_job", job_id, "running")
    for step in range(1, 4):
        server.drive("update_job", job_id, progress=step / 10)
    server.drive("update_job", job_id, "failed", error="no")

    found = read(server, job_id, headers={"Last-Event-ID": "1"})

    assert [(m.kind, m.version) for m in found] == [("running", 2), ("skipped", 5), ("failed", 6), ("end", None)]
    assert found[1].data["data"] == {"after": 2, "before": 6}


def test_a_reconnect_after_the_end_is_204(server: Server) -> None:
    job_id = server.drive("create_job")["job_id"]
    server.drive("update_job", job_id, "completed")
    last = read(server, job_id)[0]
    answer = httpx.get(f"{server.url}/api/jobs/{job_id}/events", headers={"Last-Event-ID": str(last.id)})
    assert answer.status_code == 204


def test_a_deleted_job_ends_its_stream(server: Server) -> None:
    job_id = server.drive("create_job")["job_id"]
    with httpx.stream("GET", f"{server.url}/api/jobs/{job_id}/events") as answer:
        stream = messages(answer)
        next(stream)
        server.drive("delete_job", job_id)
        assert [m.kind for m in stream] == ["deleted", "end"]


def test_unknown_version_begins_with_a_snapshot(server: Server) -> None:
    job_id = server.drive("create_job")["job_id"]
    assert read(server, job_id, 1, headers={"Last-Event-ID": "999"})[0].kind == "snapshot"


def test_json_when_asked_for_json(server: Server) -> None:
    job_id = server.drive("create_job")["job_id"]
    answer = httpx.get(f"{server.url}/api/jobs/{job_id}/events", headers={"Accept": "application/json"})
    assert [event["kind"] for event in answer.json()] == ["created"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_open_streams_and_the_server(number: signal.Signals) -> None:
    with Server() as server:
        job_id = server.drive("create_job")["job_id"]
        with (
            httpx.stream("GET", f"{server.url}/api/jobs/{job_id}/events") as one,
            httpx.stream("GET", f"{server.url}/api/events") as all_jobs,
        ):
            stream, listing = messages(one), messages(all_jobs)
            assert next(stream).kind == "snapshot"
            assert next(listing).kind == "snapshot"
            server.signal(number)
            assert list(stream) == []
            assert list(listing) == []
        server.wait()


MOUNTED = """
import uvicorn
from fastapi import FastAPI
from milepost import AsyncJobs
from milepost.web import auth, create_app
app = FastAPI()
app.mount("/mounted", create_app(AsyncJobs("memory://"), auth=auth.none()))
app.get("/healthz")(lambda: None)
uvicorn.run(app, port={port}, log_level="warning")
"""


def test_signal_ends_streams_of_a_mounted_application() -> None:
    """The outer application does not run its lifespan, and the server waits for open streams."""
    with (
        Server(code=MOUNTED) as server,
        httpx.Client() as client,
        client.stream("GET", f"{server.url}/mounted/api/events") as answer,
    ):
        assert next(messages(answer)).kind == "snapshot"
        server.end(signal.SIGTERM)
