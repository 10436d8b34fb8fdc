"""Start, kill, freeze and replace the worker processes of a soak."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

import psutil

from tests.chaos.ledger import now
from tests.waiting import freeze


class Workers:
    """A number of worker processes that is kept up. `frozen` are those under SIGSTOP."""

    def __init__(self, environment: Mapping[str, str], count: int) -> None:
        self._environment = dict(environment)
        self._count = count
        self._lock = threading.Lock()
        self.alive: list[subprocess.Popen[bytes]] = []
        self.frozen: list[subprocess.Popen[bytes]] = []
        self.started = 0

    def start_all(self) -> None:
        """Start the processes."""
        self.replace_dead()

    def replace_dead(self) -> int:
        """Start a process for each that has ended, and return how many had."""
        with self._lock:
            dead = [process for process in self.alive if process.poll() is not None]
            for process in dead:
                self.alive.remove(process)
            while len(self.alive) < self._count:
                command = [sys.executable, "-m", "tests.chaos.failpoint_worker"]
                self.alive.append(subprocess.Popen(command, env=self._environment, start_new_session=True))
                self.started += 1
            return len(dead)

    def kill(self, process: subprocess.Popen[bytes]) -> tuple[int, int]:
        """Kill one process with SIGKILL and start another; return its pid, and when."""
        process.kill()
        process.wait()
        killed = (process.pid, now())
        self.replace_dead()
        return killed

    def freeze(self, process: subprocess.Popen[bytes]) -> None:
        """Freeze one process with SIGSTOP, and start another in its place."""
        freeze(process.pid, self._environment["MILEPOST_URL"])
        with self._lock:
            self.alive.remove(process)
            self.frozen.append(process)

    def thaw(self, process: subprocess.Popen[bytes]) -> None:
        """Continue a process with SIGCONT: one more than the number runs for a while."""
        process.send_signal(signal.SIGCONT)
        with self._lock:
            self.frozen.remove(process)
            self.alive.append(process)

    def drain(self, within: float) -> None:
        """Send SIGTERM to all, and wait until they have ended."""
        deadline = time.monotonic() + within
        for process in self.alive:
            process.terminate()
        for process in self.alive:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue

    def kill_all(self) -> None:
        """Kill all processes that are left."""
        for process in (*self.alive, *self.frozen):
            if process.poll() is None:
                process.kill()
                process.wait()

    def left(self) -> list[str]:
        """Return the processes of this soak that still exist a second after the workers have ended."""
        deadline = time.monotonic() + 10
        while (found := self._found()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _found(self) -> list[str]:
        ledger = self._environment["CHAOS_LEDGER"]
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.pid != os.getpid() and process.environ().get("CHAOS_LEDGER") == ledger
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
            except psutil.Error:
                continue
        return found
