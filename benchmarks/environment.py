"""The environment of a sample: a private Redis on one CPU, the client on the other.

A client that sends one request at a time runs about three times faster on the CPU of its server than beside it, and the
scheduler flips between the two by itself; so both are pinned.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Environment:
    """The input of a peer: the size of the workload and a private Redis."""

    size: int
    redis_url: str = ""
    port: int = 0


@dataclass(frozen=True)
class Server:
    """A running Redis: its port of 127.0.0.1 and its process."""

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
        yield Server(port, server.pid)
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def private_postgres() -> Iterator[str]:
    """Run a private PostgreSQL with its default settings, and yield the URL of its database, as the superuser."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    binary = str(found[-1]) if found else shutil.which("postgres")
    if binary is None:
        sys.exit("benchmarks: PostgreSQL is not installed; `make test` installs it")
    port, folder, initdb = (
        free_port(),
        tempfile.mkdtemp(prefix="milepost-bench-"),
        str(Path(binary).with_name("initdb")),
    )
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    data = os.path.join(folder, "data")
    words = [initdb, "--pgdata", data, "--username", "postgres", "--auth", "trust", "--encoding", "UTF8"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **user)
    command = [binary, "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder]
    with open(os.path.join(folder, "log"), "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **user)
    try:
        while "ready" not in _last_word(os.path.join(data, "postmaster.pid")):
            if server.poll() is not None:
                sys.exit(f"benchmarks: PostgreSQL ended with code {server.returncode}")
            time.sleep(0.02)
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _last_word(file: str) -> str:
    with suppress(OSError):
        return Path(file).read_text().strip().rpartition("\n")[2]
    return ""


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"benchmarks: redis-server ended with code {server.returncode}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            if connection.recv(7).startswith(b"+PONG"):
                return
        time.sleep(0.02)
    sys.exit("benchmarks: redis-server did not answer within 10 s")
