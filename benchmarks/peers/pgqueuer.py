"""PgQueuer on PostgreSQL by asyncpg and uvloop, with 100 jobs at a time and its own LISTEN."""

from __future__ import annotations

from typing import Any

from benchmarks.job_ticks import tick


class Connected:
    """Submits by `enqueue`, one or many."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def submit(self) -> None:
        """Submit one job."""
        await self._queries.enqueue("noop", None)

    async def submit_many(self, count: int) -> None:
        """Submit the jobs in one statement."""
        await self._queries.enqueue(["noop"] * count, [None] * count, [0] * count)


async def driver(url: str) -> Any:
    """Return a connection."""
    import asyncpg
    from pgqueuer.db import AsyncpgDriver

    return AsyncpgDriver(await asyncpg.connect(url))


async def connect(url: str) -> Connected:
    """Connect, and create the schema unless it exists."""
    from pgqueuer.queries import Queries

    queries = Queries(await driver(url))
    if not await queries.schema_is_installed():
        await queries.install()
    return Connected(queries)


def work(url: str) -> None:
    """Run one worker."""
    import uvloop
    from pgqueuer import PgQueuer

    async def serve() -> None:
        pgq = PgQueuer(await driver(url))

        @pgq.entrypoint("noop")
        async def noop(_: Any) -> None:
            tick()

        await pgq.run(batch_size=100)

    uvloop.run(serve())
