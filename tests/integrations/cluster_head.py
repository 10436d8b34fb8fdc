"""The head of a cluster (a Dask scheduler, a Ray head node) as a process that a test may kill, start and restart."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.integrations.conftest import PATIENCE, ROOT


class ClusterHead:
    """A command that serves a port on 127.0.0.1 and keeps nothing over a restart."""

    def __init__(self, command: tuple[str, ...], port: int, output: Path) -> None:
        self._command = command
        self._port = port
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self._command],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1.0):
                return
            assert self._process.poll() is None, self._output.read_text()[-3000:]
            assert time.monotonic() < deadline, self._output.read_text()[-3000:]
            time.sleep(0.05)

    @property
    def is_running(self) -> bool:
        """Whether it was started and not killed."""
        return self._process is not None

    def kill(self) -> None:
        """End it at once, with all whose command line names its folder."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(PATIENCE)
        folder = str(self._output.parent)
        left = [one for one in psutil.process_iter(["cmdline"]) if folder in " ".join(one.info["cmdline"] or ())]
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(left, PATIENCE)

    def restart(self) -> None:
        """End it and start it."""
        self.kill()
        self.start()
