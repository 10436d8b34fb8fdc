"""A server with a real worker on a store, in a process of its own, and what its pages show of a job."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Locator, Page

from tests.services import free_port

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


def wait_until_served(url: str, within: float) -> None:
    """Wait until a server responds, at most `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        try:
            httpx.get(f"{url}/healthz")
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline, f"{url} did not open"
            time.sleep(0.02)


class WorkerServer:
    """A process of `tests.dashboard.real_worker`."""

    def __init__(self, url: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.store = url
        command = [sys.executable, "-m", "tests.dashboard.real_worker", str(self.port), url]
        self.process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            wait_until_served(self.url, PATIENCE)
        except BaseException:
            self.close()  # no fixture ends it yet
            raise

    @property
    def jobs(self) -> str:
        """The URL of the dashboard."""
        return f"{self.url}/jobs/"

    def submit(self, job_type: str, **params: Any) -> str:
        """Submit a job; return its id."""
        body = {"job_type": job_type, "params": params}
        return str(self.send("POST", "jobs", json=body)["job_id"])

    def send(self, method: str, path: str, **options: Any) -> Any:
        """Send a request to the API; return its answer."""
        answer = httpx.request(method, f"{self.url}/api/{path}", headers=SAME_ORIGIN, timeout=PATIENCE, **options)
        return answer.raise_for_status().json()

    def job(self, job_id: str) -> Any:
        """The record of a job."""
        return self.send("GET", f"jobs/{job_id}")

    def pause(self, job_type: str, paused: bool = True) -> None:
        """Pause a type, or resume it."""
        self.send("PATCH", f"job-types/{job_type}", json={"paused": paused})

    def tidy(self) -> None:
        """Cancel what is active and resume every type, for the next test."""
        for one in self.send("GET", "job-types")["job_types"]:
            if one["paused"]:
                self.pause(one["name"], False)
        self.send("POST", "jobs/bulk", json={"action": "cancel", "q": "is:active"})

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def row(page: Page, job_id: str) -> Locator:
    """The row of a job in the list."""
    return page.locator(f"[id='row-{job_id}']")
