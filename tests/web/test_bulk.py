"""Bulk calls: the dry run, outcomes, interruptions and retries."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager, AsyncJobs, AsyncRun, Job, Run, StoreUnavailableError
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


async def test_bulk_delete_keeps_the_rules_of_children(manager: AsyncJobManager) -> None:
    jobs = AsyncJobs(manager.store)
    jobs.worker()

    @jobs.job("leaf")
    async def leaf(run: Run) -> None: ...

    @jobs.job("branch")
    async def branch(run: AsyncRun) -> None:
        run.submit_child("leaf", leaf)
        await run.join()

    @jobs.job("root")
    async def root(run: AsyncRun) -> None:
        run.submit_child("branch", branch)
        run.submit_child("later", leaf.options(queue="held"))
        await run.join()

    waiting, other = (await jobs.submit(root)).job_id, (await jobs.submit(root)).job_id
    async with jobs.run_workers(queues=["root", "branch", "leaf"]):
        while await jobs.count_jobs(status="completed") < 4:
            await asyncio.sleep(0.02)
        while await jobs.count_jobs("root", "pending") < 2:
            await asyncio.sleep(0.02)
    below = {job.job_id for job in await jobs.list_jobs("branch") if job.parent_id == waiting}
    async with client_of(jobs) as client:

        async def delete(**chosen: Any) -> dict[str, str]:
            done = (await client.post("/api/jobs/bulk", json={"action": "delete", **chosen})).json()
            return {one["job_id"]: one.get("detail") or one["outcome"] for one in done["outcomes"]}

        (child,) = below
        text = f"Cannot delete job {child}: it is a child of job {waiting}, which is pending; cancel the child, or delete its parent"
        assert await delete(ids=[child]) == {child: text}
        assert await jobs.count_jobs() == 8
        assert await delete(ids=[waiting]) == {waiting: "done"}
        left = await jobs.list_jobs()
        assert len(left) == 4
        found = await delete(q="")  # children are newer than their parents
        assert set(found) == {job.job_id for job in left}
        assert found[other] == "done"
    assert await jobs.count_jobs() == 0
