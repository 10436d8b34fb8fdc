"""Ten thousand clients of the streams of a thousand jobs, and five hundred of the list, on one server process: memory per
client, latency from write to read, CPU. One client in a hundred never reads.

The server's jobs are in memory and report the time 100 times per second in total, on a clock shared by both processes.
The clients run in this process, on the other CPU.
"""

from __future__ import annotations

import asyncio
import os
import re
import selectors
import socket
import sys
import time
from typing import Any

import psutil

from benchmarks.http_load import server
from benchmarks.sampler import PeerFailedError
from benchmarks.surveys import Table, figure

EVENTS = 100.0
"""Events per second over all jobs."""
SECONDS = 10.0
REQUEST = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
SAID = re.compile(rb'"at (\d+\.\d+)"')


def survey(size: int) -> Table:
    """Connect `size` clients to a tenth as many jobs, and a twentieth as many clients to the list."""
    jobs, seconds = max(size // 10, 1), SECONDS if size > 1000 else 1.0
    paths = [f"/api/jobs/job{number % jobs}/events".encode() for number in range(size)]
    lists = [b"/api/events"] * max(size // 20, 1)
    rows = [
        [f"{len(paths):,} on {jobs:,} jobs, 1 in 100 never reads", *_measure(jobs, paths, seconds)],
        [f"{len(lists):,} on the list of all jobs", *_measure(jobs, lists, seconds, deaf=0)],
    ]
    columns = ["clients", "messages/s", "kB a client", "delivery p50 ms", "p99 ms", "server CPU"]
    notes = [
        f"{EVENTS:g} changes a second in all. Lists receive changes in batches, at most ten per second and client; "
        "the delay is that of the newest change in each batch."
    ]
    return Table("streams", columns, rows, notes)


def _measure(jobs: int, paths: list[bytes], seconds: float, deaf: int = 100) -> list[str]:
    environment = os.environ | {"BENCH_JOBS": str(jobs)}
    with (
        server([sys.executable], f"{__name__}:served", environment) as (port, started),
        selectors.DefaultSelector() as selector,
    ):
        process = psutil.Process(started.pid)
        _connect(port, paths[0]).close()  # what the first client brings into memory is no client's
        time.sleep(0.5)
        idle = process.memory_info().rss
        clients = []
        for number, path in enumerate(paths):
            reads = not deaf or number % deaf
            client = _connect(port, path, reads=bool(reads))
            clients.append(client)
            if reads:
                client.setblocking(False)
                selector.register(client, selectors.EVENT_READ)
        while max(_receive(selector, 2.0), default=0.0) > 1.0:
            pass  # what a stream sends at its beginning is older
        cpu, begin = sum(process.cpu_times()[:2]), time.perf_counter()
        delays = _receive(selector, seconds)
        spent = time.perf_counter() - begin
        cpu = (sum(process.cpu_times()[:2]) - cpu) / spent
        memory = (process.memory_info().rss - idle) / len(paths) / 1000
        for client in clients:
            client.close()
    if not delays:
        raise PeerFailedError("no event came")
    delays.sort()
    middle, late = delays[len(delays) // 2], delays[int(len(delays) * 0.99)]
    return [figure(len(delays) / spent), figure(memory), figure(middle * 1e3), figure(late * 1e3), f"{cpu:.0%}"]


def _receive(selector: selectors.BaseSelector, seconds: float) -> list[float]:
    """Read for `seconds`. Return the age of each message when it was read, of a batch the newest."""
    delays, over = [], time.monotonic() + seconds
    while time.monotonic() < over:
        for key, _ in selector.select(0.05):
            assert isinstance(key.fileobj, socket.socket)
            said = SAID.findall(key.fileobj.recv(1 << 18))
            if said:
                delays.append(time.monotonic() - max(map(float, said)))
    return delays


def _connect(port: int, path: bytes, *, reads: bool = True) -> socket.socket:
    """Return a client with an open stream."""
    client = socket.socket()
    if not reads:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(60)
    client.connect(("127.0.0.1", port))
    client.sendall(REQUEST % path)
    seen = client.recv(4096)
    if b" 200 " not in seen[:20]:
        raise PeerFailedError(f"the server answered {seen[:200].decode(errors='replace')}")
    return client


def served() -> Any:
    """Return the application: jobs in memory that report the time, one after the other."""
    from milepost import AsyncJobManager
    from milepost.web import auth, create_app

    manager = AsyncJobManager("memory://")
    names = [f"job{number}" for number in range(int(os.environ["BENCH_JOBS"]))]

    async def say() -> None:
        for name in names:
            await manager.create_job(name, "ingestion", {"filename": f"{name}.pdf"})
            await manager.update_job(name, "running", progress=0.5)
        due, number = time.monotonic(), 0
        while True:
            due += 1 / EVENTS
            await asyncio.sleep(max(due - time.monotonic(), 0))
            await manager.update_job(names[number % len(names)], message=f"at {time.monotonic():.6f}")
            number += 1

    app = create_app(manager, auth=auth.none())
    app.state.milepost.background.append(lambda _: _Task(say))
    return app


class _Task:
    """A background task for the life of the server."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._call())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
