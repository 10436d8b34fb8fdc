"""The environment of a sample: a private Redis or PostgreSQL on one CPU, the client on the other.

A client that sends one request at a time runs about three times faster on the CPU of its server than beside it, and the
scheduler flips between the two by itself; so both are pinned.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """The input of a peer: the size of the workload and a private Redis."""

    size: int
    redis_url: str = ""
    port: int = 0


@dataclass(frozen=True)
class Server:
    """A running server: its URL, its port of 127.0.0.1 and its process."""

    url: str
    port: int
    pid: int


def pin(cpu: int, pid: int = 0) -> None:
    """Pin a process to one CPU, where the system supports it."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        with suppress(OSError):
            os.sched_setaffinity(pid, {cpu})


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def private_redis(*options: str, under: Sequence[str] = ()) -> Iterator[Server]:
    """Run a private Redis on a free port, without persistence, on CPU 0; `options` go to its command line.

    `under`: a command that runs it.
    """
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        sys.exit("benchmarks: redis-server is not installed; `make test` installs it")
    port = free_port()
    folder = tempfile.mkdtemp(prefix="milepost-bench-")
    command = [
        *under,
        binary,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        folder,
    ]
    server = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    try:
        pin(0, server.pid)
        _wait(port, server)
        yield Server(f"redis://127.0.0.1:{port}/0", port, server.pid)
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def private_postgres() -> Iterator[Server]:
    """Run a private PostgreSQL with its default settings on CPU 0. The URL is that of its database, as the superuser."""
    import psutil  # not in the environments of peers
    from tests.postgres_server import PostgresServer
    from tests.services import find

    if find("postgresql") is None:
        sys.exit("benchmarks: PostgreSQL is not installed; `make test` installs it")
    with PostgresServer(fsync=True) as server:
        postmaster = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
        for process in [psutil.Process(postmaster), *psutil.Process(postmaster).children()]:
            pin(0, process.pid)  # and so are the processes of its connections
        yield Server(server.url(), server.port, postmaster)


SERVERS = {"Redis": private_redis, "PostgreSQL": private_postgres}


@contextmanager
def private_store(name: str) -> Iterator[Server]:
    """Create a private store by its name in tables: Redis, PostgreSQL, SQLite or memory. The last two have no server, so pid 0."""
    if name in SERVERS:
        with SERVERS[name]() as server:
            yield server
    elif name == "SQLite":
        with tempfile.TemporaryDirectory(prefix="milepost-bench-") as place:
            yield Server(f"sqlite:///{Path(place) / 'jobs.db'}", 0, 0)
    else:
        yield Server("memory://", 0, 0)


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60  # under callgrind, beside other work
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"benchmarks: redis-server ended with code {server.returncode}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            if connection.recv(7).startswith(b"+PONG"):
                return
        time.sleep(0.02)
    sys.exit("benchmarks: redis-server did not answer within 60 s")
