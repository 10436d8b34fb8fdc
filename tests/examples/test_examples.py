"""Every example, run as its first lines say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.web.server import Server, free_port

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@contextmanager
def running(module: str, path: str = "/api/jobs") -> Iterator[httpx.Client]:
    """An example's application under uvicorn, and a client of it."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"{module}:app", "--app-dir", str(EXAMPLES), "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "warning"])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            deadline = time.monotonic() + 20
            while True:
                try:
                    assert client.get(path).status_code == 200
                    break
                except httpx.TransportError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield client
        process.terminate()
        process.wait(20)
    finally:
        process.kill()
        process.wait()


def ended(client: httpx.Client, job_id: str, prefix: str = "") -> dict[str, object]:
    """The job when its stream has ended."""
    assert "event: end" in client.get(f"{prefix}/api/jobs/{job_id}/events").text
    record: dict[str, object] = client.get(f"{prefix}/api/jobs/{job_id}").json()
    return record


def test_plain_script() -> None:
    command = [sys.executable, str(EXAMPLES / "plain_script.py"), "0.001"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"MILEPOST_URL": "memory://"}
    )
    assert done.returncode == 0, done.stderr
    assert "completed, {'pages': 40}" in done.stdout


def test_upload_service() -> None:
    with running("upload_service") as client:
        made = client.put("/documents/report.txt", content=b"one two\nthree\n").json()
        record = ended(client, made["job_id"])
        assert (record["status"], record["result"]) == ("completed", {"words": 3, "lines": 2})
        assert "watchJob" in client.get(made["watch"]).text
        assert "export function watchJob" in client.get("/api/milepost-watch.js").text


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
