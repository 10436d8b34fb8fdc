"""Every example, run as its first lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from milepost import Jobs
from tests.cli.subprocesses import COMMAND
from tests.services import free_port
from tests.waiting import until
from tests.web.server import Server

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@contextmanager
def started(port: int, *command: str, path: str = "/api/jobs", **environment: str) -> Iterator[httpx.Client]:
    """Start a server by a command and yield a client of it; SIGTERM ends it."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=EXAMPLES)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            until(lambda: answers(client, path, process))
            yield client
        process.terminate()
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def answers(client: httpx.Client, path: str, process: subprocess.Popen[bytes]) -> bool:
    """Return whether a server responds."""
    assert process.poll() is None, "the server ended while it started"
    try:
        return client.get(path).status_code < 500
    except httpx.TransportError:
        return False


@contextmanager
def running(module: str, path: str = "/api/jobs") -> Iterator[httpx.Client]:
    """Run an example's application under uvicorn and yield a client of it."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"{module}:app", "--app-dir", str(EXAMPLES), "--port", str(port)]
    with started(port, *command, "--log-level", "warning", path=path) as client:
        yield client


def ended(client: httpx.Client, job_id: str, prefix: str = "") -> dict[str, object]:
    """Return the job when its stream has ended."""
    assert "event: end" in client.get(f"{prefix}/api/jobs/{job_id}/events").text
    record: dict[str, object] = client.get(f"{prefix}/api/jobs/{job_id}").json()
    return record


def test_plain_script() -> None:
    command = [sys.executable, str(EXAMPLES / "plain_script.py"), "0.001"]
    environment = {"MILEPOST_URL": "memory://", **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "completed, {'pages': 40}" in done.stdout


def test_upload_service() -> None:
    with running("upload_service") as client:
        made = client.put("/documents/report.txt", content=b"one two\nthree\n").json()
        record = ended(client, made["job_id"])
        assert (record["status"], record["result"]) == ("completed", {"words": 3, "lines": 2})
        assert "watchJob" in client.get(made["watch"]).text
        assert "export function watchJob" in client.get("/api/milepost-watch.js").text


def test_library_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBRARY", str(tmp_path))
    with running("library_service") as client:
        made = client.put("/library/notes.txt", content=b"Ada Lovelace wrote notes on the Analytical Engine.").json()
        assert "event: end" in client.get(made["progress"]).text
        record = ended(client, made["job_id"])
        assert record["message"] == "Ingested 1 document, 1 chunk", record["error"]
        [hit] = client.get("/api/documents/search", params={"q": "Who wrote about the engine?"}).json()["hits"]
        assert (hit["uri"], "Ada Lovelace" in hit["text"]) == ("notes.txt", True)


def test_background_tasks() -> None:
    with running("background_tasks") as client:
        made = client.post("/letters?count=5").json()
        assert ended(client, made["job_id"])["status"] == "completed"


def test_starlette_app() -> None:
    with running("starlette_app", "/background/api/jobs") as client:
        job_id = client.post("/begin").text
        assert client.post(f"/background/api/jobs/{job_id}/cancel").status_code == 200
        assert ended(client, job_id, "/background")["status"] == "cancelled"
        assert "../api" in client.get("/background/jobs/").text


def test_remote_client() -> None:
    with Server() as server:
        command = [sys.executable, str(EXAMPLES / "remote_client.py"), server.url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("['created', 'running', 'skipped', 'completed']")


def test_django_app() -> None:
    with running("django_app", "/background/api/jobs") as client:
        made = client.post("/reports/2026").json()
        record = ended(client, made["job_id"], "/background")
        assert (record["status"], record["result"]) == ("completed", {"year": 2026, "months": 12})
        assert "event: end" in client.get(made["events"]).text
        assert "../api" in client.get("/background/jobs/").text
        assert client.get("/reports/2026").status_code == 405, "Django's own answer"


def test_flask_app_with_server_and_worker(sqlite_url: str) -> None:
    here, there = free_port(), free_port()
    flask = [sys.executable, "-m", "flask", "--app", "flask_app", "run", "--port", str(here)]
    milepost = [sys.executable, "-c", "import sys; from milepost.cli import main; sys.exit(main())"]
    serve = [*milepost, "serve", "--port", str(there)]
    worker = [*milepost, "worker", "flask_app:jobs"]
    with (
        started(here, *flask, path="/words/none", MILEPOST_URL=sqlite_url) as client,
        started(there, *serve, MILEPOST_URL=sqlite_url) as beside,
    ):
        process = subprocess.Popen(worker, cwd=EXAMPLES, env={**os.environ, "MILEPOST_URL": sqlite_url})
        try:
            job_id = client.post("/words", content="one two three").json()["job_id"]
            assert ended(beside, job_id)["result"] == {"words": 3}
            assert client.get(f"/words/{job_id}").json()["status"] == "completed"
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_gunicorn_with_preload(request: pytest.FixtureRequest, kind: str) -> None:
    environment = {"MILEPOST_URL": request.getfixturevalue(f"{kind}_url")}
    if kind == "redis":
        environment["MILEPOST_NAMESPACE"] = request.getfixturevalue("redis_namespace")
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "gunicorn_app:app", "--preload", "-w", "3", "-b", f"127.0.0.1:{port}"]
    with started(
        port, *command, "-k", "uvicorn_worker.UvicornWorker", "--log-level", "warning", **environment
    ) as client:
        seen: set[int] = set()
        while len(seen) < 2:  # until a second process takes part; pytest's own limit ends it
            with httpx.Client(
                base_url=client.base_url, timeout=60
            ) as anew:  # each connection may reach another process
                made = anew.post("/where").json()
                record = ended(anew, made["job_id"])
                assert record["status"] == "completed", record
                result = record["result"]
                assert isinstance(result, dict)
                seen |= {made["pid"], result["pid"]}


def test_scheduled_reports_are_written_while_workers_are_killed(tmp_path: Path) -> None:
    """Two workers, killed one after the other: each tick makes one job and its report."""
    url, folder = f"sqlite:///{tmp_path}/jobs.db", tmp_path / "reports"
    environment = {
        **os.environ,
        "MILEPOST_URL": url,
        "REPORTS": str(folder),
        "EVERY": "1s",
        "MILEPOST_LEASE": "5",
        "MILEPOST_SWEEP": "0.3",
    }
    command = [*COMMAND, "worker", "nightly_schedule:jobs"]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=EXAMPLES, env=environment, stdout=subprocess.DEVNULL)

    jobs, workers = Jobs(url), [start(), start()]
    try:
        for kills in range(3):
            until(lambda kills=kills: len(list(folder.glob("*.txt"))) > 2 * kills)
            workers[kills % 2].kill()
            workers[kills % 2].wait()
            workers[kills % 2] = start()
        jobs.pause_schedule("frequent-report")
        until(lambda: all(job.is_terminal for job in jobs.list_jobs(limit=1000)))
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    made = jobs.get_schedule("frequent-report")
    found = [job for job in jobs.list_jobs(limit=1000) if job.schedule == "frequent-report"]
    assert len(found) == made.fired >= 5
    assert {Path(str(job.result)) for job in found} == set(folder.glob("*.txt"))
    assert jobs.get_schedule("nightly-report").tz == "Europe/Berlin"
