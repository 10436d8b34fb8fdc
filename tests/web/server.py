"""A uvicorn process on a free port for tests of streams and signals, and a reader of its streams."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.services import free_port

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0


class Server:
    """`tests.web.driven_app`, another application, or any `code` that serves on `{port}`, in its own process."""

    def __init__(
        self,
        url: str = "memory://",
        *,
        port: int | None = None,
        app: str = "tests.web.driven_app:app",
        code: str | None = None,
        **environment: str,
    ) -> None:
        self.port = port or free_port()
        uvicorn = [sys.executable, "-m", "uvicorn", app, "--port", str(self.port), "--log-level", "warning"]
        self._command = uvicorn if code is None else [sys.executable, "-c", code.format(port=self.port)]
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {**os.environ, "TEST_STORE": url, "PYTHONPATH": str(ROOT), **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        """Start the server, and wait until it responds."""
        self.process = subprocess.Popen(self._command, env=self._environment, cwd=ROOT)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "the server ended while it started"
            try:
                if httpx.get(self.url + "/healthz").status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.02)
        raise AssertionError("the server did not start")

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def end(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Send a signal, and return how many seconds the process took to end."""
        started = time.monotonic()
        self.signal(number)
        self.wait()
        return time.monotonic() - started

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait until the process has ended, and return its exit code."""
        assert self.process is not None
        return self.process.wait(PATIENCE)

    @property
    def is_alive(self) -> bool:
        """Return whether the process is running."""
        return self.process is not None and self.process.poll() is None

    def drive(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the manager in the server."""
        answer = httpx.post(self.url + "/drive", json={"method": method, "args": args, "kwargs": kwargs})
        assert answer.status_code == 200, answer.text
        return answer.json()


@dataclass(frozen=True, slots=True)
class Message:
    """A server-sent event as a client sees it."""

    kind: str
    data: Any
    id: str | None

    @property
    def version(self) -> int | None:
        """The version in the id of a job's message, or None without an id."""
        return int(self.id.partition("-")[0]) if self.id is not None else None


def messages(response: httpx.Response) -> Iterator[Message]:
    """Yield a stream's messages until it ends."""
    kind, data, event_id = "message", "", None
    for line in response.iter_lines():
        if not line:
            if data:
                yield Message(kind, json.loads(data), event_id)
            kind, data, event_id = "message", "", None
        elif line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            data += line[6:]
        elif line.startswith("id: "):
            event_id = line[4:]
