"""An MCP server in its own process, to kill and to start again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.services import free_port
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
CONFORMANCE = "from tests.mcp.conformance_server import server; server.run('streamable-http', port={port})"


class ServedTools:
    """The tools of `conformance_server`, or any `code` that serves on `{port}`, over the store of a URL."""

    def __init__(self, url: str, code: str = CONFORMANCE, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self._command = [sys.executable, "-c", code.format(port=self.port)]
        self._environment = {**os.environ, "MILEPOST_URL": url, **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServedTools:
        self.process = subprocess.Popen(
            self._command, env=self._environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the server ended while it started"
        try:
            return httpx.get(self.url).status_code > 0
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
