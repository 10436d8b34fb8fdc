"""`serve`: addresses, authentication and settings."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from milepost import InMemoryJobManager
from milepost.settings import Settings, settings
from milepost.web import auth, create_app, serve
from milepost.web.context import server_processes
from tests.services import free_port
from tests.waiting import PATIENCE
from tests.web.server import ROOT

pytestmark = pytest.mark.timing


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_public_address_without_keys_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="keys"):
        serve("memory://", host, 0)


def test_serve_accepts_local_hosts_only_and_ends_at_signal() -> None:
    port = free_port()
    code = f"from milepost.web import serve; serve('memory://', port={port}, log_level='warning')"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/api/jobs")
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        assert answer.json() == {"jobs": [], "total": 0}
        rebound = httpx.get(f"http://127.0.0.1:{port}/api/jobs", headers={"Host": "evil.example"})
        assert rebound.status_code == 421
        loud = httpx.get(f"http://127.0.0.1:{port}/api/jobs", headers={"Host": f"LocalHost:{port}"})
        assert loud.status_code == 200, "a name means the same in capitals"
        process.terminate()
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("own", "environment", "status"), [("keys", "none", 401), ("none", "keys", 200)])
def test_serve_takes_auth_from_the_settings_of_its_jobs(
    monkeypatch: pytest.MonkeyPatch, own: str, environment: str, status: int
) -> None:
    served: list[Any] = []
    monkeypatch.setattr("uvicorn.Server.run", lambda server: served.append(server.config.app))
    monkeypatch.setenv("MILEPOST_AUTH", environment)
    settings.reload()
    try:
        serve(InMemoryJobManager(options=Settings(auth=own)))
        assert TestClient(served[0]).get("/api/jobs").status_code == status
    finally:
        settings.reload()


def test_request_timeout_is_taken_from_the_settings_of_the_jobs() -> None:
    app = create_app(InMemoryJobManager(options=Settings(request_timeout=0.05)), auth=auth.none())

    async def send_no_body() -> list[Message]:
        sent: list[Message] = []

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        async def send(message: Message) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json"), (b"content-length", b"9")]
        scope = {"type": "http", "method": "POST", "path": "/api/jobs", "headers": headers, "query_string": b""}
        await app({**scope, "http_version": "1.1", "scheme": "http", "raw_path": b"/api/jobs"}, receive, send)
        return sent

    assert asyncio.run(asyncio.wait_for(send_no_body(), PATIENCE))[0]["status"] == 408


@pytest.mark.parametrize(
    ("arguments", "environment", "count"),
    [
        (["uvicorn", "app:app", "--workers", "4"], {}, 4),
        (["gunicorn", "-w4", "app:app"], {}, 4),
        (["gunicorn", "app:app"], {"GUNICORN_CMD_ARGS": "--workers=3"}, 3),
        (["uvicorn", "app:app"], {"WEB_CONCURRENCY": "2"}, 2),
        (["uvicorn", "app:app"], {}, 1),
    ],
)
def test_server_process_count_is_detected(arguments: list[str], environment: dict[str, str], count: int) -> None:
    assert server_processes(arguments, environment) == count


def test_several_processes_on_memory_are_refused() -> None:
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "tests.web.driven_app:app",
        "--port",
        str(free_port()),
        "--workers",
        "2",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "MILEPOST_URL: memory:// cannot be shared" in line:
                break
        else:
            pytest.fail("the remedy was not named")
    finally:
        process.terminate()
        process.wait(PATIENCE)
