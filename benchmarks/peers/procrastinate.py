"""Procrastinate on PostgreSQL, with 100 jobs at a time and LISTEN."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.job_ticks import tick


def application(url: str) -> Any:
    """Return the application and its job."""
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=url))

    @app.task(name="noop")
    async def noop() -> int:
        return tick()

    return app, noop


class Connected:
    """Submits by `defer_async` and `batch_defer_async`."""

    def __init__(self, job: Any) -> None:
        self._job = job

    async def submit(self) -> None:
        """Submit one job."""
        await self._job.defer_async()

    async def submit_many(self, count: int) -> None:
        """Submit the jobs in one statement."""
        await self._job.batch_defer_async(*[{}] * count)


async def connect(url: str) -> Connected:
    """Connect, and create the schema unless it exists."""
    app, job = application(url)
    await app.open_async()
    if not await app.check_connection_async():
        await app.schema_manager.apply_schema_async()
    return Connected(job)


def work(url: str) -> None:
    """Run one worker."""
    app, _ = application(url)

    async def serve() -> None:
        async with app.open_async():
            await app.run_worker_async(concurrency=100)

    asyncio.run(serve())
