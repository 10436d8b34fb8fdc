"""Take one sample of a workload in separate processes, on a private Redis or PostgreSQL."""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from benchmarks.environment import SERVERS, private_redis
from benchmarks.install import ROOT, interpreter, is_node, variables

DRAIN_EVERY = 100
START_SECONDS = 60.0


class NotInstalledError(Exception):
    """A package of the peer is missing; the message names it."""


class PeerFailedError(Exception):
    """The peer's process failed; the message is its last output."""


@dataclass(frozen=True)
class Sample:
    """The figure in the workload's unit, and other figures by name with unit (`worker us/job`)."""

    figure: float
    more: dict[str, float] = field(default_factory=dict)


def call(peer: str, work: str, size: int, *, redis: bool) -> Sample:
    """Call the peer's function for a workload in its own process."""
    if not redis:
        return Sample(_call(peer, work, 0, size)["figure"])
    with private_redis() as server:
        before = cpu_seconds(server.pid)
        done = _call(peer, work, server.port, size)
        spent = cpu_seconds(server.pid) - before
    return Sample(done["figure"], {"client us/job": done["cpu"] / size * 1e6, "Redis us/job": spent / size * 1e6})


def _call(peer: str, work: str, port: int, size: int) -> Any:
    command = [*interpreter(peer), "-m", "benchmarks.run_sample", work, peer, str(port), str(size)]
    return _json(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=variables(peer), check=False))


def _json(done: subprocess.CompletedProcess[str]) -> Any:
    if "ModuleNotFoundError" in done.stderr or "Cannot find module" in done.stderr:
        lines = [line for line in done.stderr.splitlines() if "ModuleNotFoundError" in line or "Cannot find" in line]
        raise NotInstalledError(lines[-1])
    if done.returncode:
        raise PeerFailedError(done.stderr or done.stdout)
    return json.loads(done.stdout.splitlines()[-1])


# ---- queues: one process submits, another works


def submit(peer: str, size: int, seconds: float, *, bulk: bool = False, on: str = "Redis") -> Sample:
    """Return jobs/s of no-op submits without a running worker."""
    with SERVERS[on]() as server:
        queue_command(peer, "prepare", server.url)
        before = cpu_seconds(server.pid)
        done = queue_command(peer, "bulk" if bulk else "submit", server.url, size, seconds)
        spent = cpu_seconds(server.pid) - before
    return Sample(done["jobs"] / done["seconds"], {f"{on} us/job": spent / done["jobs"] * 1e6})


def drain(peer: str, size: int, seconds: float, *, bulk: bool, on: str = "Redis") -> Sample:
    """Return jobs/s of a backlog of no-op jobs drained by one worker process, from its first job to its last.

    The backlog is what could be submitted in the time, and the drain ends after that time too.
    """
    with SERVERS[on]() as server, fifo() as ticks:
        jobs = queue_command(peer, "bulk" if bulk else "submit", server.url, size, seconds)["jobs"]
        last = max(jobs - jobs % DRAIN_EVERY, 1) if jobs >= DRAIN_EVERY else 1
        with worker_process(peer, server.url, ticks, DRAIN_EVERY) as worker:
            begun, at = ticks.read(worker)
            worker_cpu, server_cpu = worker.cpu(), cpu_seconds(server.pid)
            n, now = begun, at
            while n < last and (now - at) / 1e9 < seconds:
                n, now = ticks.read(worker)
            worker_cpu, server_cpu = worker.cpu() - worker_cpu, cpu_seconds(server.pid) - server_cpu
    done = max(n - begun, 1)
    spent = (now - at) / 1e9 or 1.0
    return Sample(done / spent, {"worker us/job": worker_cpu / done * 1e6, f"{on} us/job": server_cpu / done * 1e6})


def pickup(peer: str, size: int, *, on: str = "Redis") -> Sample:
    """Return the median us from before the submit to the job's first line in an idle worker."""
    with SERVERS[on]() as server, fifo() as ticks:
        queue_command(peer, "prepare", server.url)
        with worker_process(peer, server.url, ticks, 1):
            found = sorted(queue_command(peer, "pickup", server.url, size, ticks=ticks)["latencies"])
    return Sample(statistics.median(found) * 1e6, {"p99 us": found[int(len(found) * 0.99)] * 1e6})


def queue_command(
    peer: str, command: str, url: str, size: int = 0, seconds: float = 0, ticks: Ticks | None = None
) -> Any:
    """Run a command of `queue_peer` in its own process, and return what it prints."""
    line = [*_program(peer), command, url, str(size), str(seconds)]
    environment = variables(peer) | ({"BENCH_TICKS": str(ticks.path)} if ticks else {})
    done = subprocess.run(
        line, cwd=ROOT, capture_output=True, text=True, env=environment, check=False, timeout=seconds + 120
    )
    return _json(done)


def _program(peer: str) -> list[str]:
    return (
        ["taskset", "-c", "1", *interpreter(peer)]
        if is_node(peer)
        else [*interpreter(peer), "-m", "benchmarks.queue_peer", peer]
    )


class Ticks:
    """The FIFO that jobs write to: (count, time in ns) at each read."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._text = b""

    def read(self, worker: WorkerProcess, seconds: float = START_SECONDS) -> tuple[int, int]:
        """Return the next tick. Raises PeerFailedError if the worker has ended or sends none in that time."""
        over = time.monotonic() + seconds
        while b"\n" not in self._text:
            if select.select([self._fd], [], [], 0.2)[0]:
                self._text += os.read(self._fd, 4096)
            elif worker.process.poll() is not None or time.monotonic() > over:
                raise PeerFailedError(
                    f"its worker gave no sign (exit code {worker.process.poll()}):\n{worker.output()}"
                )
        line, _, self._text = self._text.partition(b"\n")
        n, at = line.split()
        return int(n), int(at)

    def close(self) -> None:
        os.close(self._fd)


@contextmanager
def fifo() -> Iterator[Ticks]:
    """Create a FIFO for ticks."""
    with tempfile.TemporaryDirectory(prefix="milepost-bench-") as place:
        ticks = Ticks(Path(place) / "ticks")
        try:
            yield ticks
        finally:
            ticks.close()


@dataclass
class WorkerProcess:
    """A worker process of a peer, with its output."""

    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def cpu(self) -> float:
        return cpu_seconds(self.process.pid)

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-3000:]


@contextmanager
def worker_process(peer: str, url: str, ticks: Ticks, every: int, **more: str) -> Iterator[WorkerProcess]:
    """Run a worker process of a peer, killed at the end; `more` are environment variables."""
    environment = variables(peer) | {"BENCH_TICKS": str(ticks.path), "BENCH_EVERY": str(every)} | more
    command = [*_program(peer), "work", url]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield WorkerProcess(process, log)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and its children, also those that have ended, user and system; 0 for pid 0, no process."""
    found = 0.0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)] if pid else ():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found += times.user + times.system + times.children_user + times.children_system
    return found
