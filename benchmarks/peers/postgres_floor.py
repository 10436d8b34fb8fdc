"""The least that a client of PostgreSQL can spend: one narrow table, from which jobs are deleted when they are done.

A worker takes 100 jobs in a transaction, stores their results in it, and keeps nothing else.
"""

from __future__ import annotations

from typing import Any

from benchmarks.job_ticks import tick

TABLES = """
CREATE TABLE IF NOT EXISTS queue (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text);
CREATE TABLE IF NOT EXISTS results (id bigint PRIMARY KEY, body text)
"""
ADD = "INSERT INTO queue (body) SELECT '{}' FROM generate_series(1, %s)"
TAKE = "DELETE FROM queue WHERE id IN (SELECT id FROM queue ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED) RETURNING id"
KEEP = "INSERT INTO results SELECT unnest(%s::bigint[]), '1'"


class Connected:
    """Submits by one INSERT, and wakes the worker by a NOTIFY in the same transaction."""

    def __init__(self, url: str) -> None:
        import psycopg

        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute(TABLES)

    async def submit(self) -> None:
        """Submit one job."""
        await self.submit_many(1)

    async def submit_many(self, count: int) -> None:
        """Submit the jobs in one statement."""
        with self._connection.pipeline(), self._connection.transaction():
            self._connection.execute(ADD, (count,))
            self._connection.execute("NOTIFY queue")


connect = Connected


def work(url: str) -> None:
    """Run one worker, which waits for a NOTIFY when the table is empty."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("LISTEN queue")
        while True:
            if not _batch(connection):
                for _ in connection.notifies(stop_after=1):
                    pass


def _batch(connection: Any) -> int:
    """Run the next jobs, and return how many."""
    with connection.transaction():
        taken = [job for (job,) in connection.execute(TAKE).fetchall()]
        if taken:
            for _ in taken:
                tick()
            connection.execute(KEEP, (taken,))
    return len(taken)
