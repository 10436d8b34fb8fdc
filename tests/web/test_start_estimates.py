"""Pending jobs have an expected start over HTTP; ETA ranges and stalls are in the record, the stream and the
statistics.
"""

from __future__ import annotations

import time
from datetime import datetime

import httpx
import pytest

from milepost import AsyncJobManager
from milepost.client.decoding import decode_job
from milepost.core.serialization import to_json
from milepost.core.transitions import plan_create, plan_report, plan_start
from milepost.manager.validation import submit_fields
from milepost.run.forecast.history import PartProfile, RunHistory, RunProfile
from milepost.stores.ids import new_job_id, new_nonce, new_operation_id
from milepost.stores.protocol import Write
from milepost.worker.registry import WorkerEntry, write_worker

pytestmark = pytest.mark.timing


async def submitted(manager: AsyncJobManager) -> str:
    job_id = new_job_id()
    await manager.store.apply([Write(job_id, plan_create(submit_fields("slow", params={}), new_operation_id()))])
    return job_id


async def test_pending_job_has_an_expected_start(manager: AsyncJobManager, client: httpx.AsyncClient) -> None:
    now = time.time()
    await write_worker(manager.store, WorkerEntry("w", "h", 1, now, now, types=("slow",), concurrency=1), 60)
    history = RunHistory(manager.store)
    history.record_profile("slow", RunProfile(40.0, 0.0, (PartProfile("", None, 40.0, (), 40.0),)))
    await history.sync(spacing=0)
    first, second = await submitted(manager), await submitted(manager)
    shown = (await client.get(f"/api/jobs/{second}")).json()
    start = datetime.fromisoformat(shown["expected_start"]["earliest"]).timestamp()
    assert start == pytest.approx(now + 40, abs=20)
    expected = decode_job(shown).expected_start
    assert expected is not None
    assert expected.latest == shown["expected_start"]["latest"]
    started = plan_start(new_operation_id(), nonce=new_nonce(), lease=60_000_000, worker="w")
    await manager.store.apply([Write(first, started)])
    assert (await client.get(f"/api/jobs/{first}")).json()["expected_start"] is None


async def test_eta_range_and_stall_are_in_record_stream_and_list(
    manager: AsyncJobManager, client: httpx.AsyncClient
) -> None:
    job_id = await submitted(manager)
    started = plan_start(new_operation_id(), nonce=new_nonce(), lease=60_000_000, worker="w")
    job = (await manager.store.apply([Write(job_id, started)])).outcomes[0].job
    assert job is not None
    token = job.record["token"]
    eta = {"earliest": "2026-11-25T12:00:00.000+00:00", "latest": "2026-11-25T12:03:00.000+00:00"}

    async def say(kind: str, **report: str) -> None:
        await manager.store.apply([Write(job_id, plan_report(new_operation_id(), token, report, kind))])

    await say("progress", eta=to_json(eta, "eta"), progress="0.5")
    assert (await client.get(f"/api/jobs/{job_id}")).json()["eta"] == eta
    await say("stalled", eta="null", stalled="No progress for 1 min in Embed")
    shown = (await client.get(f"/api/jobs/{job_id}")).json()
    assert (shown["eta"], shown["stalled"]) == (None, "No progress for 1 min in Embed")
    assert "corrupt" not in shown
    found = (await client.get("/api/jobs", params={"q": "is:stalled"})).json()
    assert [one["job_id"] for one in found["jobs"]] == [job_id]
    assert (await client.get("/api/stats")).json()["stalled"] == 1
    assert "milepost_jobs_stalled 1.0" in (await client.get("/metrics")).text
    events = (await client.get(f"/api/jobs/{job_id}/events", headers={"Accept": "application/json"})).json()
    newest = events[-1]
    assert (newest["kind"], newest["data"]["stalled"], newest["data"]["eta"]) == ("stalled", shown["stalled"], None)
    await say("stalled", stalled="")
    assert (await client.get(f"/api/jobs/{job_id}")).json()["stalled"] is None
    assert (await client.get("/api/jobs", params={"q": "is:stalled"})).json()["jobs"] == []
