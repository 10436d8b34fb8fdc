"""Samples of the HTTP workloads: a server process on CPU 1, and clients in this process on CPU 0."""

from __future__ import annotations

import os
import selectors
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from benchmarks.environment import free_port, pin
from benchmarks.install import ROOT, interpreter, variables
from benchmarks.sampler import NotInstalledError, PeerFailedError, Sample

CONNECTIONS = 8
WINDOW = 0.7
"""Seconds of one measurement; a sample is the median of three."""
EVENTS = 100
HEAD = b"GET /api/jobs/x%s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n"


def requests(peer: str, size: int) -> Sample:
    """Return responses/s of GET of one job over persistent connections. `size` is the number of windows."""
    with _server(peer) as (port, pid, secret):
        request = HEAD % (b"", b"Authorization: Bearer " + secret + b"\r\n" if peer.endswith("_keys") else b"")
        length = _length_of_answer(port, request)
        clients = [_connect(port) for _ in range(CONNECTIONS)]
        process = psutil.Process(pid)
        rates, costs = [], []
        for _ in range(size):
            before = sum(process.cpu_times()[:2])
            count, spent = _ask(clients, request, length)
            rates.append(count / spent)
            costs.append((sum(process.cpu_times()[:2]) - before) / count * 1e6)
        for client in clients:
            client.close()
    return Sample(statistics.median(rates), {"server us/request": statistics.median(costs)})


def streams(peer: str, size: int) -> Sample:
    """Return deliveries/s of EVENTS events to `size` streams of one job."""
    with _server(peer) as (port, pid, _), selectors.DefaultSelector() as selector:
        request = HEAD % (b"/events", b"Accept: text/event-stream\r\n")
        clients = []
        for _ in range(size):
            client = _connect(port)
            client.sendall(request)
            clients.append(client)
        for client in clients:
            seen = client.recv(65536)
            while b"\r\n\r\n" not in seen:
                seen += client.recv(65536)
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ)
        time.sleep(1.0)  # what a stream sends at its beginning is over
        _receive(selector, 0)
        process = psutil.Process(pid)
        cpu, begin = sum(process.cpu_times()[:2]), time.perf_counter()
        with _connect(port) as starter:
            starter.sendall(b"POST /go HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
            _receive(selector, EVENTS * size)
            spent = time.perf_counter() - begin
        cpu = sum(process.cpu_times()[:2]) - cpu
        for client in clients:
            client.close()
    return Sample(EVENTS * size / spent, {"server us/delivery": cpu / (EVENTS * size) * 1e6})


def _receive(selector: selectors.BaseSelector, wanted: int) -> None:
    """Read until `wanted` progress events have arrived; with 0, read what is there."""
    count, over = 0, time.monotonic() + 60
    while True:
        ready = selector.select(0.05)
        for key, _ in ready:
            assert isinstance(key.fileobj, socket.socket)
            got = key.fileobj.recv(1 << 18)
            count += got.count(b"event: progress")  # a word cut in two by a read would be missed; frames are sent whole
        if count >= wanted and (wanted or not ready):
            return
        if time.monotonic() > over:
            raise PeerFailedError(f"only {count} of {wanted} events came")


def _ask(clients: list[socket.socket], request: bytes, length: int) -> tuple[int, float]:
    """Let each client request again after its response, for one window."""
    with selectors.DefaultSelector() as selector:
        left = {}
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
            left[client] = length
            client.sendall(request)
        count, begin = 0, time.perf_counter()
        while time.perf_counter() < begin + WINDOW:
            for key, _ in selector.select(1.0):
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                left[ready] -= len(ready.recv(65536))
                if left[ready] <= 0:
                    count += 1
                    left[ready] = length
                    ready.sendall(request)
        spent = time.perf_counter() - begin
        for client in clients:  # the answers that are still on their way
            while left[client] > 0:
                left[client] -= len(client.recv(65536))
    return count, spent


def _length_of_answer(port: int, request: bytes) -> int:
    with _connect(port) as client:
        client.sendall(request)
        got = client.recv(65536)
        head = got.partition(b"\r\n\r\n")[0]
        if b" 200 " not in head[:20]:
            raise PeerFailedError(f"the server answered {head.decode(errors='replace')}")
        body = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return len(head) + 4 + body


def _connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), 20)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


@contextmanager
def _server(peer: str) -> Iterator[tuple[int, int, bytes]]:
    """Run a peer's server, and yield its port, process and key."""
    environment = variables("web") | {"BENCH_PEER": peer, "BENCH_EVENTS": str(EVENTS)}
    with server(interpreter("web"), "benchmarks.peers.web:app", environment) as (port, process):
        secret = process.stdout.readline().strip() if peer.startswith("milepost") and process.stdout else b""
        yield port, process.pid, secret


@contextmanager
def server(
    python: list[str], factory: str, environment: dict[str, str]
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run uvicorn on CPU 1 with an application factory, and yield its port and process. This process moves to CPU 0."""
    port = free_port()
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    options = ["--port", str(port), "--log-level", "error", "--no-access-log", "--factory", factory]
    server = subprocess.Popen(
        [*python, "-m", "uvicorn", *options], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    before = os.sched_getaffinity(0)
    try:
        pin(1, server.pid)
        pin(0)
        _wait(port, server)
        yield port, server
    finally:
        os.sched_setaffinity(0, before)
        server.kill()
        server.communicate()


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    over = time.monotonic() + 60
    while time.monotonic() < over:
        if server.poll() is not None:
            said = server.communicate()[1].decode(errors="replace")
            raise (
                NotInstalledError(said.strip().splitlines()[-1]) if "No module named" in said else PeerFailedError(said)
            )
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise PeerFailedError("the server did not answer within a minute")
