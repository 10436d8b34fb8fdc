"""A private PostgreSQL with pgvector for tests, on a unix socket and a port of 127.0.0.1.

PostgreSQL refuses to run as root, so as root it runs as the user postgres of Debian's package.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.services import free_port, need

USER = "postgres"
SECONDS = 60

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

    def __init__(self, *, fsync: bool = False, **options: object) -> None:
        self._options = {"fsync": "on" if fsync else "off", "max_connections": 100, **options}
        self._programs = Path(need("postgresql")).resolve().parent
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.port = free_port()
        self._as: dict[str, Any] = {}
        self._connection: Any = None
        if os.geteuid() == 0:
            account = pwd.getpwnam(USER)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def __enter__(self) -> PostgresServer:
        self._run("initdb", "--pgdata", self._data, "--username", USER, "--auth", "trust", "--no-sync")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder}"
        options += "".join(f" -c {name}={value}" for name, value in self._options.items())
        log = str(self.folder / "log")
        self._run("pg_ctl", "start", "--wait", "--silent", "--pgdata", self._data, "--log", log, "--options", options)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` gracefully, `immediate` as in a crash."""
        self._run("pg_ctl", "stop", "--wait", "--silent", "--pgdata", self._data, "--mode", mode)

    def database(self, name: str) -> str:
        """Create an empty database, and return its URL."""
        self._run("createdb", "--host", "127.0.0.1", "--port", str(self.port), "--username", USER, name)
        return self.url(name)

    def url(self, name: str = USER) -> str:
        """Return the URL of a database, by default the one that each server has."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def emptied(self, schema: str) -> str:
        """Delete the rows of a job store's schema, if it exists, and return its name.

        This takes a few milliseconds, and creating a schema fifty times as long.
        """
        import psycopg

        if self._connection is None:
            self._connection = psycopg.connect(self.url(), autocommit=True)
        self._connection.execute(_EMPTY.replace("SCHEMA", schema))
        return schema

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *words], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, check=False, timeout=SECONDS, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}, **self._as,
        )  # fmt: skip
        if done.returncode:
            log = self.folder / "log"
            said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise RuntimeError(f"{program} ended with {done.returncode}: {done.stderr}\n{said}")
