"""`serve`: where it may listen, and what it answers to."""

from __future__ import annotations

import subprocess
import sys
import time

import httpx
import pytest

from milepost.web import serve
from milepost.web.site import server_processes
from tests.web.server import ROOT, free_port


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_a_public_address_without_keys_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="keys"):
        serve("memory://", host, 0)


def test_serve_answers_to_this_machine_only_and_ends_at_a_signal() -> None:
    port = free_port()
    code = f"from milepost.web import serve; serve('memory://', port={port}, log_level='warning')"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        deadline = time.monotonic() + 20
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
        process.wait(10)
    finally:
        process.kill()
        process.wait()


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
def test_how_many_server_processes_were_asked_for(
    arguments: list[str], environment: dict[str, str], count: int
) -> None:
    assert server_processes(arguments, environment) == count


def test_several_processes_on_memory_are_refused_with_the_remedy() -> None:
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
            if "MILEPOST_URL=sqlite:///jobs.db" in line:
                break
        else:
            pytest.fail("the remedy was not named")
    finally:
        process.terminate()
        process.wait(20)
