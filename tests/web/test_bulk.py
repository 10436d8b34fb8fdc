"""Bulk calls: the dry run, outcomes, interruptions and retries."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager, AsyncJobs, Job, Run, StoreUnavailableError
from tests.integrations.test_dispatcher import DirectTaskQueue
from tests.web.conftest import client_of


async def test_bulk_dry_run_counts_then_reports_outcomes(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    ids = [(await manager.create_job(job_type="bulk")).job_id for _ in range(3)]
    await manager.update_job(ids[0], "completed")
    dry = (await client.post("/api/jobs/bulk", json={"action": "cancel", "q": "type:bulk", "dry_run": True})).json()
    assert (dry["matching"], dry["eligible"], dry["exact"]) == (3, 2, True)
    assert await manager.count_jobs(status="pending") == 2
    body = {"action": "cancel", "ids": [*ids, "nope"]}
    done = (await client.post("/api/jobs/bulk", json=body)).json()
    assert done["done"] == 2
    outcomes = {one["job_id"]: one["outcome"] for one in done["outcomes"]}
    assert outcomes == {ids[0]: "refused", ids[1]: "done", ids[2]: "done", "nope": "missing"}
    stepwise = (await client.post("/api/jobs/bulk", json={"action": "delete", "q": "type:bulk", "limit": 2})).json()
    assert (stepwise["done"], bool(stepwise["next_cursor"])) == (2, True)
    assert (await client.post("/api/jobs/bulk", json={"action": "delete"})).status_code == 422


async def test_interrupted_bulk_reports_unknown_outcome(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client may repeat only what was certainly not applied."""
    monkeypatch.setattr("milepost.web.api.bulk.BATCH_SIZE", 1)
    ids = [(await memory.create_job()).job_id for _ in range(2)]
    apply, calls = memory.store.apply, list[int]()

    async def once(writes: Any, claim: Any = None) -> Any:
        calls.append(len(writes))
        if len(calls) > 1:
            raise StoreUnavailableError("it went away")
        return await apply(writes, claim)

    monkeypatch.setattr(memory.store, "apply", once)
    async with client_of(memory) as client:
        answer = await client.post("/api/jobs/bulk", json={"action": "cancel", "ids": ids})
    assert (answer.status_code, answer.json()["outcome"]) == (503, "unknown")


async def test_bulk_retry_dispatches_to_the_task_queue(sqlite_url: str) -> None:
    class Noted(DirectTaskQueue):
        def send(self, job: Job) -> None:
            self.sent.append(job.job_id)

    task_queue = Noted()
    jobs = AsyncJobs(sqlite_url, task_queue=task_queue)

    @jobs.job("flaky")
    def flaky(run: Run) -> None: ...

    job = await jobs.submit(flaky)
    await jobs.cancel_job(job.job_id)
    async with client_of(jobs) as client:
        await client.post("/api/jobs/bulk", json={"action": "retry", "ids": [job.job_id]})
    assert task_queue.sent == [job.job_id] * 2
    await jobs.close()
