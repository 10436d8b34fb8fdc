"""The store of a soak, with its faults: an SQLite file, or its own Redis or PostgreSQL behind the proxy."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.chaos.proxy import Proxy
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


class SoakStore:
    """A store and the faults that it can have. `url` goes through the proxy, where there is one; `direct_url` does not.

    `kind` is "sqlite", "redis", "postgres", or the service of a version of PostgreSQL: "postgresql-15".
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.failpoints = folder / "failpoints"
        self.failpoints.mkdir()
        self.file = folder / "jobs.db"
        self.server: RedisServer | PostgresServer | None = None
        self.proxy: Proxy | None = None

    def __enter__(self) -> Self:
        if self.kind == "redis":
            server = self.server = RedisServer(appendonly="always").start()
            self.proxy = Proxy(server.port).__enter__()
            self.url = f"redis://127.0.0.1:{self.proxy.port}/0"
            self.direct_url = server.url
            with server.client() as client:
                self.version = f"Redis {client.info('server')['redis_version']}"
        elif self.kind.startswith("postgres"):
            service = "postgresql" if self.kind == "postgres" else self.kind
            database = self.server = PostgresServer(service=service, fsync=True).__enter__()
            self.proxy = Proxy(database.port).__enter__()
            self.direct_url = database.url()
            self.url = self.direct_url.replace(f":{database.port}", f":{self.proxy.port}")
            self.version = f"PostgreSQL {database.fetch('SHOW server_version')[0][0].split()[0]}"
        else:
            self.url = self.direct_url = f"sqlite:///{self.file}"
            self.version = f"SQLite {sqlite3.sqlite_version}"
        return self

    def __exit__(self, *_: object) -> None:
        if self.proxy is not None:
            self.proxy.__exit__()
        if self.server is not None:
            self.server.__exit__()

    def crash(self) -> None:
        """End the server as in a crash."""
        if isinstance(self.server, PostgresServer):
            self.server.stop("immediate")
        elif self.server is not None:
            self.server.kill()

    def lose(self, number: int) -> None:
        """Lose one reply."""
        if self.proxy is not None:
            self.proxy.lose()
        else:
            (self.failpoints / f"lost-{number}").touch()

    def kill_in_commit(self, number: int) -> None:
        """Let the next worker that commits die, by turns before its COMMIT or after it."""
        (self.failpoints / f"{'commit' if number % 2 else 'committed'}-{number}").touch()

    @property
    def lost(self) -> int:
        """The replies that were lost so far."""
        return self.proxy.lost if self.proxy is not None else self.taken("lost")

    def taken(self, kind: str) -> int:
        """Return the failpoints of a kind that were met so far."""
        return len(list(self.failpoints.glob(f"taken-{kind}-*")))

    def hold_lock(self) -> subprocess.Popen[str]:
        """Start a process that holds the write lock of the file until it reads a line."""
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(self.file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        holder.stdout.readline()
        return holder
