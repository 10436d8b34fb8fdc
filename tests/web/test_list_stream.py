"""The stream of a list on a real server: snapshot, batches, jobs that leave, resume and reset."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from milepost.web.live.list_subscriptions import BATCH_SECONDS
from tests.web.server import Message, Server, messages


def open_list(server: Server, query: str = "", **headers: str) -> httpx.Response:
    return httpx.Client().send(
        httpx.Request("GET", f"{server.url}/api/events{query}", headers={"Accept": "text/event-stream", **headers}),
        stream=True,
    )


def until(stream: Iterator[Message], job_id: str, key: str = "jobs") -> Message:
    """Return the first batch that contains a job."""
    for message in stream:
        if message.kind == "jobs" and any(
            job_id in (job["job_id"] if key == "jobs" else job) for job in message.data[key]
        ):
            return message
    raise AssertionError("the stream ended")


def test_list_stream_shows_changes(server: Server) -> None:
    first = server.drive("create_job", None, "ingestion", {"file_path": "/a/report.pdf", "secret": "s3cr3t"})
    answer = open_list(server)
    stream = messages(answer)
    snapshot = next(stream)
    assert (snapshot.kind, snapshot.data["total"]) == ("snapshot", 1)
    assert snapshot.id is not None
    assert snapshot.data["jobs"][0]["title"] == "report.pdf"
    assert snapshot.data["counts"] == {"ingestion": {"pending": 1}}
    server.drive("update_job", first["job_id"], "running", progress=0.25)
    batch = until(stream, first["job_id"])
    assert (batch.data["jobs"][0]["status"], batch.data["jobs"][0]["progress"]) == ("running", 0.25)
    assert "s3cr3t" not in str(batch.data)
    second = server.drive("create_job")
    assert until(stream, second["job_id"]).data["jobs"][0]["version"] == 1
    server.drive("delete_job", second["job_id"])
    assert until(stream, second["job_id"], "gone").data["gone"] == [second["job_id"]]
    answer.close()


def test_job_that_no_longer_matches_leaves_the_list(server: Server) -> None:
    job_id = server.drive("create_job", None, "ingestion")["job_id"]
    answer = open_list(server, "?q=status:pending")
    stream = messages(answer)
    next(stream)
    server.drive("update_job", job_id, "running")
    assert until(stream, job_id, "gone").data["jobs"] == []
    answer.close()


@pytest.mark.parametrize("query", ["?q=status:failed&status=pending", "?q=type:other&job_type=ingestion", "?label=a:"])
def test_list_stream_equals_list_request(server: Server, query: str) -> None:
    server.drive("create_job", None, "ingestion", labels={"a": ""} if "label" in query else {"a": "1"})
    listed = httpx.get(f"{server.url}/api/jobs{query}").json()["jobs"]
    answer = open_list(server, query)
    shown = next(messages(answer)).data["jobs"]
    answer.close()
    assert [job["job_id"] for job in shown] == [job["job_id"] for job in listed]


def test_list_stream_without_jobs_sends_counts_and_changes(server: Server) -> None:
    job_id = server.drive("create_job", None, "ingestion")["job_id"]
    answer = open_list(server, "?jobs=false")
    stream = messages(answer)
    snapshot = next(stream)
    assert (snapshot.data["jobs"], snapshot.data["total"]) == ([], 1)
    assert snapshot.data["counts"] == {"ingestion": {"pending": 1}}
    server.drive("update_job", job_id, "running")
    assert until(stream, job_id).data["jobs"][0]["status"] == "running"
    answer.close()


def counted(stream: Iterator[Message]) -> dict[str, int]:
    """Return the next counts of generic jobs, by status."""
    counts: dict[str, int] = next(message.data for message in stream if message.kind == "counts")["generic"]
    return counts


def test_counts_follow_the_last_change(server: Server) -> None:
    answer = open_list(server)
    stream = messages(answer)
    next(stream)
    job_id = server.drive("create_job")["job_id"]
    assert counted(stream) == {"pending": 1}
    server.drive("update_job", job_id, "running")  # within a second of the last counts, with no event after it
    assert counted(stream) == {"running": 1}
    answer.close()
    server.drive("delete_job", job_id)
    answer = open_list(server)
    stream = messages(answer)
    assert next(stream).data["counts"] == {}
    server.drive("update_job", server.drive("create_job")["job_id"], "running")
    while (counts := counted(stream)) != {"running": 1}:  # equal to the counts last sent to other clients
        assert counts == {"pending": 1}
    answer.close()


def test_resumed_list_gets_changes_or_reset(server: Server) -> None:
    job_id = server.drive("create_job")["job_id"]
    answer = open_list(server)
    position = next(messages(answer)).id
    answer.close()
    assert position is not None
    server.drive("update_job", job_id, "running")
    resumed = open_list(server, **{"Last-Event-ID": position})
    batch = next(messages(resumed))
    assert (batch.kind, batch.data["jobs"][0]["status"]) == ("jobs", "running")
    resumed.close()
    lost = open_list(server, **{"Last-Event-ID": "no such place"})
    stream = messages(lost)
    assert [next(stream).kind, next(stream).kind] == ["reset", "snapshot"]
    lost.close()


def test_burst_is_sent_in_few_batches(server: Server) -> None:
    job_id = server.drive("create_job")["job_id"]
    answer = open_list(server)
    stream = messages(answer)
    next(stream)
    server.drive("update_job", job_id, "running")
    for step in range(1, 60):
        server.drive("update_job", job_id, progress=step / 100)
    server.drive("update_job", job_id, "completed")
    batches = []
    for message in stream:
        if message.kind == "jobs":
            batches.append(message.data["jobs"][0])
            if batches[-1]["status"] == "completed":
                break
    assert len(batches) < 60
    assert [row["version"] for row in batches] == sorted(row["version"] for row in batches)
    assert BATCH_SECONDS >= 0.1
    answer.close()
