"""DBOS on PostgreSQL with the default of a queue, any number of workflows at a time, but ten polls a second instead of one."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from benchmarks.job_ticks import tick


class Connected:
    """Submits by `enqueue`; DBOS has no call for many."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def submit(self) -> None:
        """Submit one workflow."""
        self._client.enqueue({"workflow_name": "noop", "queue_name": "bench"})


def start(url: str) -> Any:
    """Start DBOS in this process, which creates the schema."""
    from dbos import DBOS

    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "WARNING", "application_version": "1"})

    @DBOS.workflow(name="noop")
    def noop() -> int:
        return tick()

    DBOS.launch()
    return DBOS


async def connect(url: str) -> Connected:
    """Connect, and create the schema unless it exists."""
    from dbos import DBOSClient

    await asyncio.to_thread(lambda: start(url).destroy())
    return Connected(DBOSClient(system_database_url=url))


def work(url: str) -> None:
    """Run one executor."""
    start(url).register_queue("bench", polling_interval_sec=0.1)
    threading.Event().wait()
