"""A PostgreSQL store with a clock that a test can move: its function `clock` reads the time from a table."""

from __future__ import annotations

import psycopg

from milepost.stores.postgres import PostgresStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FrozenClock
from tests.postgres_server import PostgresServer


class ServerClock(FrozenClock):
    """A frozen clock, written to a table of the server whenever it is moved."""

    def __init__(self, server: PostgresServer, schema: str) -> None:
        super().__init__()
        self.url, self.schema = server.url(), server.emptied(schema)

    def advance(self, seconds: float) -> int:
        super().advance(seconds)
        return self._write()

    def move_to(self, micros: int) -> None:
        super().move_to(micros)
        self._write()

    def install(self) -> None:
        """Make the functions of the schema read this clock."""
        self._run("CREATE TABLE IF NOT EXISTS SCHEMA.moved (micros bigint)")
        self._run(f"INSERT INTO SCHEMA.moved VALUES ({self()})")
        self._run(
            "CREATE OR REPLACE FUNCTION SCHEMA.clock() RETURNS bigint LANGUAGE sql VOLATILE AS "
            "$$ SELECT micros FROM SCHEMA.moved $$"
        )

    def _write(self) -> int:
        self._run(f"UPDATE SCHEMA.moved SET micros = {self()}")
        return self()

    def _run(self, sql: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.replace("SCHEMA", self.schema))


def clocked_store(clock: ServerClock, *, blocking: bool) -> PostgresStore:
    """Return a store that uses a clock."""
    opened = PostgresStore(clock.url, namespace=clock.schema, blocking=True)
    run_sync(opened.check_health())
    run_sync(opened.close())
    clock.install()
    return PostgresStore(clock.url, namespace=clock.schema, blocking=blocking)
