"""A `milepost serve` process to attack, with its own state folder, on SQLite or Redis."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from milepost import JobManager
from milepost.settings import Settings
from milepost.stores.sync_bridge import run_sync
from milepost.web.security.api_keys import ApiKeyStore
from tests.services import free_port

PATIENCE = 120.0
MILEPOST = [sys.executable, "-c", "import sys; from milepost.cli import main; sys.exit(main())"]


class LiveServer:
    """A server and its store, as a context manager."""

    def __init__(self, url: str, namespace: str, *arguments: str, host: str = "127.0.0.1", **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="live-"))
        self.store_url, self.namespace = url, namespace
        self.manager = JobManager(url, options=Settings(namespace=namespace))
        self.keys = ApiKeyStore(self.manager.store)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MILEPOST_", "REDIS_"))},
            "MILEPOST_URL": url,
            "MILEPOST_NAMESPACE": namespace,
            "XDG_STATE_HOME": str(self.folder / "state"),
            **environment,
        }
        self.arguments = ["serve", "--host", host, "--port", str(self.port), *arguments]
        self.log = self.folder / "stderr"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LiveServer:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*MILEPOST, *self.arguments], env=self.environment, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while "Uvicorn running" not in self.stderr_text or not self.answers:
            assert self.process.poll() is None, self.stderr_text
            assert time.monotonic() < deadline, self.stderr_text
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.manager.close()

    def end(self) -> None:
        """Stop the server gracefully."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)

    @property
    def stderr_text(self) -> str:
        """The server's stderr."""
        return self.log.read_text() if self.log.exists() else ""

    @property
    def answers(self) -> bool:
        """Whether the server accepts requests and has printed its address."""
        try:
            return httpx.get(f"{self.url}/healthz").status_code == 200 and "Dashboard: " in self.stderr_text
        except httpx.TransportError:
            return False

    @property
    def link(self) -> str:
        """The token of the printed sign-in link."""
        return self.stderr_text.split("#signin=")[1].split()[0]

    def key(self, *scopes: str, **options: Any) -> str:
        """Create a key in the store, as `milepost keys create` does, and return its secret."""
        return run_sync(self.keys.create("test", scopes, **options))[1]

    def call(self, method: str, path: str, key: str | None = None, **options: Any) -> httpx.Response:
        """Send a request, with a key if given."""
        headers = dict(options.pop("headers", None) or {})
        if key is not None:
            headers.setdefault("Authorization", f"Bearer {key}")
        return httpx.request(method, self.url + path, headers=headers, timeout=PATIENCE, **options)

    def cli(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command line as the user who started the server."""
        return subprocess.run(
            [*MILEPOST, *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )


def cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with a clean environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MILEPOST_", "REDIS_"))}
    return subprocess.run(
        [*MILEPOST, *arguments],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
