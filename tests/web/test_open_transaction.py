"""Requests about a job while a run commits its result in a transaction of its own, on PostgreSQL."""

from __future__ import annotations

import asyncio
import threading

import psycopg
import pytest

from milepost import AsyncJobManager, Jobs, Run, Settings
from tests.postgres_server import PostgresServer
from tests.waiting import PATIENCE
from tests.web.conftest import client_of

pytestmark = pytest.mark.service("postgresql")


async def test_cancel_and_delete_are_409_while_the_result_is_being_committed(postgres_server: PostgresServer) -> None:
    options = Settings(namespace=postgres_server.emptied("web"))
    jobs = Jobs(postgres_server.url(), options=options)
    entered, leave = threading.Event(), threading.Event()

    @jobs.job("ship", max_attempts=1)
    def ship(run: Run) -> int:
        with psycopg.connect(postgres_server.url()) as db:
            run.finish(7, using=db)
            entered.set()
            assert leave.wait(PATIENCE)
        return 7

    manager = AsyncJobManager(postgres_server.url(), options=options)
    async with client_of(manager) as client:
        with jobs.run_workers():
            path = f"/api/jobs/{jobs.submit(ship).job_id}"
            assert await asyncio.to_thread(entered.wait, PATIENCE)
            try:
                answers = await asyncio.gather(client.post(f"{path}/cancel"), client.delete(path))
                assert (await client.get(path)).json()["status"] == "running"
            finally:
                leave.set()
            assert jobs.wait(path.rpartition("/")[2], timeout=PATIENCE).result == 7
    for answer in answers:
        assert answer.status_code == 409
        assert (
            "locked by another transaction for more than 2 s, probably by a run that is committing its" in answer.text
        )
    await manager.close()
    jobs.close()
