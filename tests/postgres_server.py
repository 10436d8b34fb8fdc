"""A private PostgreSQL with pgvector for tests, on a unix socket and a port of 127.0.0.1.

PostgreSQL refuses to run as root, so as root it runs as the user postgres of Debian's package. It ends with the process
that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.services import free_port, need

OTHER_POSTGRES = [
    pytest.param("postgresql-15", marks=[pytest.mark.slow, pytest.mark.service("postgresql-15")]),
    pytest.param("postgresql-18", marks=[pytest.mark.slow, pytest.mark.service("postgresql-18")]),
]
"""The oldest supported version, and the newest."""
on_each_postgres = pytest.mark.parametrize(
    "postgres_service",
    [pytest.param("postgresql", marks=pytest.mark.service("postgresql")), *OTHER_POSTGRES],
    indirect=True,
    scope="session",
)
"""Run tests, which use the fixture `postgres_service`, on these as well."""

USER = "postgres"
SECONDS = 60

# The shell ends the server at once when its input ends, as it does when the process that started it has died.
SUPERVISED = 'log=$1; shift; "$@" >>"$log" 2>&1 & read -r _; kill -QUIT $! 2>/dev/null; wait'

_EMPTY = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'SCHEMA' AND tablename <> 'state' LOOP
        EXECUTE format('DELETE FROM %I.%I', 'SCHEMA', name);
    END LOOP;
    IF FOUND THEN
        UPDATE "SCHEMA".state SET value = CASE WHEN state.name LIKE 'trimmed%' THEN 0 END WHERE state.name <> 'layout';
    END IF;
END $$
"""


class PostgresServer:
    """A context manager. `database(name)` creates an empty database and returns its URL.

    Without `fsync` it is faster, and its data survives the end of the server, but not of the machine.
    """

    def __init__(self, *, service: str = "postgresql", fsync: bool = False, **options: object) -> None:
        self._options = {"fsync": "on" if fsync else "off", "max_connections": 100, **options}
        self._service = service
        self._programs = Path(need(service)).resolve().parent
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.port = free_port()
        self._as = owner_of(self.folder)
        self._connection: Any = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PostgresServer:
        self._run("initdb", "--pgdata", self._data, "--username", USER, "--auth", "trust", "--no-sync")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def standby(self) -> PostgresServer:
        """Return a server that follows this one until it is promoted. Commits wait for it once it has started."""
        return _Standby(self, self._service, self._options)

    def promote(self) -> None:
        """Let a standby accept writes."""
        self._run("pg_ctl", "promote", "--wait", "--silent", "--pgdata", self._data)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    @property
    def log(self) -> str:
        """Return what the server has logged."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        words = ["-D", self._data, "-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.folder)]
        words += [word for name, value in self._options.items() for word in ("-c", f"{name}={value}")]
        command = ["sh", "-c", SUPERVISED, "sh", str(self.folder / "log"), str(self._programs / "postgres"), *words]
        self._process = subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.PIPE, env=_environment(), start_new_session=True, **self._as
        )
        deadline = time.monotonic() + SECONDS
        while not self._is_ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL is not ready after {SECONDS} s:\n{self.log[-2000:]}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        """Return whether the server's own file of its state says so."""
        try:
            lines = Path(self._data, "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[7].strip() in {"ready", "standby"}

    def stop(self, mode: str = "fast") -> None:
        """Stop the server, if it runs: `fast` gracefully, `immediate` as in a crash."""
        if self._process is None:
            return
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if mode == "fast":
            self._run("pg_ctl", "stop", "--wait", "--silent", "--pgdata", self._data, "--mode", mode)
        self._process.communicate()
        self._process = None

    def database(self, name: str) -> str:
        """Create an empty database, and return its URL."""
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def url(self, name: str = USER) -> str:
        """Return the URL of a database, by default the one that each server has."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def emptied(self, schema: str) -> str:
        """Delete the rows of a job store's schema, if it exists, and return its name.

        This takes a few milliseconds, and creating a schema fifty times as long. What a process of the test before still
        writes may be in a deadlock with it.
        """
        import psycopg

        for _ in range(10):
            with contextlib.suppress(psycopg.errors.DeadlockDetected):
                self.execute(_EMPTY.replace("SCHEMA", schema))
                return schema
        raise AssertionError(f"the schema {schema} is still in use")

    def execute(self, sql: str) -> None:
        """Run a statement as the superuser."""
        self._connected().execute(sql)

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query as the superuser, and return its rows."""
        rows: list[tuple[Any, ...]] = self._connected().execute(sql).fetchall()
        return rows

    def _connected(self) -> Any:
        import psycopg

        if self._connection is None:
            self._connection = psycopg.connect(self.url(), autocommit=True)
        return self._connection

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *words], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, check=False, timeout=SECONDS, env=_environment(), **self._as,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} ended with {done.returncode}: {done.stderr}\n{self.log[-2000:]}")


class _Standby(PostgresServer):
    """A copy of the primary, which is restarted for it: not every version here has `pg_basebackup`."""

    def __init__(self, primary: PostgresServer, service: str, options: dict[str, object]) -> None:
        conninfo = f"host=127.0.0.1 port={primary.port} user={USER}"
        super().__init__(service=service, **options, primary_conninfo=conninfo)
        self._primary = primary

    def __enter__(self) -> PostgresServer:
        self._primary.stop()
        subprocess.run(["cp", "-a", self._primary._data, self._data], check=True, timeout=SECONDS)
        self._primary.start()
        signal = Path(self._data, "standby.signal")
        signal.touch()
        owner_of(signal)
        self.start()
        for sql in ("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"):
            self._primary.execute(sql)
        return self


def owner_of(path: Path) -> dict[str, Any]:
    """Return how subprocess starts a program that refuses to run as root, and give it this file or folder."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(USER)
    os.chown(path, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
