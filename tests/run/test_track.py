"""`track()` on every store, blocking and async, and the reports of the heartbeat meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from milepost import (
    DuplicateJobError,
    InvalidInputError,
    JobCancelled,
    JobManager,
    LeaseHeldError,
    LeaseLost,
    ResultNotSerialisableError,
    Run,
    Settings,
)
from milepost.stores.factory import open_store
from tests.chaos.calibration import slowness
from tests.waiting import PATIENCE, current, lose_lease, until

pytestmark = pytest.mark.timing


def ticking(run: Run) -> None:
    """Tick until the run is stopped."""
    while True:
        run.check()
        time.sleep(0.002)


def test_track_records_job_until_its_end(manager: JobManager) -> None:
    with manager.track("ingestion", metadata={"folder": "a"}, labels={"owner": "ana"}) as run:
        job = current(manager, run.job_id)
        assert (job.status, job.run_by, job.attempt, job.metadata) == ("running", "track", 1, {"folder": "a"})
        assert (run.labels, run.metadata, run.fence > 0) == ({"owner": "ana"}, {"folder": "a"}, True)
        run.result = {"pages": 2}
    job = current(manager, run.job_id)
    assert (job.status, job.result, job.progress) == ("completed", {"pages": 2}, 1.0)
    assert job.lease_expires_at is None


def test_reports_arrive_during_run_and_last_with_its_end(manager: JobManager) -> None:
    with manager.track() as run:
        run.progress(0.3, "loading")
        run.log("a line")
        until(lambda: current(manager, run.job_id).progress == 0.3)
        assert current(manager, run.job_id).message == "loading"
        until(lambda: [event for event in manager.events(run.job_id) if event.kind == "log"])
        with run.stage("Late", weight=1):
            run.log("the last line")
            run.progress(0.9, "nearly")
    job = current(manager, run.job_id)
    assert (job.message, job.stages[0].name) == ("nearly", "Late")
    lines = [
        line["text"] for event in manager.events(run.job_id) if event.kind == "log" for line in event.data["lines"]
    ]
    assert lines == ["a line", "the last line"]


def test_versions_have_no_gaps_and_progress_never_goes_back(manager: JobManager) -> None:
    seen: list[Any] = []
    with manager.track() as run:
        watcher = threading.Thread(target=lambda: seen.extend(manager.watch(run.job_id, after=0)))
        watcher.start()
        for number in run.each(range(5)):
            until(lambda number=number: current(manager, run.job_id).progress == number / 5)  # type: ignore[misc]
    watcher.join(PATIENCE)
    versions = [event.version for event in seen if event.kind != "skipped"]
    assert versions == sorted(set(versions))
    fractions = [event.progress for event in seen if event.progress is not None]
    assert fractions == sorted(fractions)
    assert len(fractions) > 3
    assert seen[-1].kind == "completed"


def test_exception_fails_job_and_propagates(manager: JobManager) -> None:
    with pytest.raises(ValueError, match="no such page"), manager.track() as run:
        raise ValueError("no such page")
    job = current(manager, run.job_id)
    assert (job.status, job.error) == ("failed", "no such page")
    assert job.failure is not None
    assert job.failure.kind == "error"


def test_ctrl_c_cancels_job(manager: JobManager) -> None:
    with pytest.raises(KeyboardInterrupt), manager.track() as run:
        raise KeyboardInterrupt
    job = current(manager, run.job_id)
    assert job.receipt is not None
    assert (job.status, job.receipt.requested_by, job.receipt.confirmed) == ("cancelled", "Ctrl-C", True)


def test_stop_raised_by_code_cancels_job(manager: JobManager) -> None:
    with pytest.raises(JobCancelled), manager.track() as run:
        raise JobCancelled("my own wish")
    job = current(manager, run.job_id)
    assert job.receipt is not None
    assert (job.status, job.receipt.requested_by, job.receipt.reason) == ("cancelled", "its own code", "my own wish")


def test_cancel_stops_track_block(manager: JobManager) -> None:
    with pytest.raises(JobCancelled, match="cancelled: enough"), manager.track() as run:  # noqa: PT012
        manager.cancel_job(run.job_id, "enough", by="ana")
        ticking(run)
    receipt = current(manager, run.job_id).receipt
    assert receipt is not None
    assert (receipt.how, receipt.confirmed, receipt.requested_by) == ("cooperative", True, "ana")


def test_block_finished_after_cancel_writes_receipt(manager: JobManager) -> None:
    with pytest.raises(JobCancelled), manager.track() as run:  # noqa: PT012
        manager.cancel_job(run.job_id)
        run.result = "too late"
    job = current(manager, run.job_id)
    assert job.receipt is not None
    assert (job.status, job.result) == ("cancelled", None)
    assert (job.receipt.how, job.receipt.late_result) == ("already_finished", "too late")


def test_delete_stops_track_block(manager: JobManager) -> None:
    with pytest.raises(JobCancelled, match="deleted"), manager.track() as run:  # noqa: PT012
        manager.delete_job(run.job_id)
        ticking(run)
    assert manager.get_job(run.job_id) is None


def test_tracked_job_accepts_only_cancel(manager: JobManager) -> None:
    with manager.track() as run, pytest.raises(LeaseHeldError):
        manager.update_job(run.job_id, progress=0.5)


def test_lost_lease_stops_block_without_writes(manager: JobManager) -> None:
    with pytest.raises(LeaseLost), manager.track() as run:  # noqa: PT012
        lose_lease(manager.store, run.job_id, run.token)
        ticking(run)
    job = current(manager, run.job_id)
    assert job.status == "failed"
    assert "gone" in (job.error or "")


def test_block_takes_another_lease_if_its_own_was_lost_before_the_reply(
    manager: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the reply to a repeated request names the lease of now. A block raised KeyError if there was none, and
    used that of another process if there was one.
    """
    store, lost = type(manager.store), list[str]()
    apply = store.apply

    async def reply_late(self: Any, writes: Any, claim: Any = None) -> Any:
        applied = await apply(self, writes, claim)
        if not lost and writes[0].change.transition.name == "create":
            lost.append(writes[0].job_id)
            lose_lease(manager.store, lost[0], applied.outcomes[0].job.record["token"])
            return await apply(self, writes, claim)
        return applied

    monkeypatch.setattr(store, "apply", reply_late)
    with manager.track(unique_key="k") as run:
        assert [run.job_id] == lost
        assert current(manager, run.job_id).record["token"] == run.token
    assert current(manager, run.job_id).status == "completed"


def test_lease_is_renewed_while_block_runs(manager: JobManager, options: Settings) -> None:
    lease = slowness()
    manager = JobManager(manager.store, options=replace(options, lease=lease))
    with manager.track() as run:
        first = int(current(manager, run.job_id).record["lease"])
        until(lambda: int(current(manager, run.job_id).record["lease"]) > first + lease * 500_000)
    assert current(manager, run.job_id).status == "completed"


def test_result_that_is_not_json_completes_block_with_text(manager: JobManager) -> None:
    with manager.track() as run:
        run.result = {"page": object()}
    job = current(manager, run.job_id)
    assert (job.status, job.result) == ("completed", None)
    assert (job.result_error or "").startswith("result.page: object is not JSON-serialisable")
    assert (job.result_text or "").startswith("{'page': <object object at")
    with pytest.raises(ResultNotSerialisableError):
        manager.result(job)


def test_result_of_block_is_converted(manager: JobManager) -> None:
    with manager.track() as run:
        run.result = {"mean": float("nan"), "path": Path("a")}
    assert manager.result(run.job_id) == {"mean": None, "path": "a"}


# --- keys, ids --------------------------------------------------------------------------------------------------------


def test_same_key_resumes_failed_job(manager: JobManager) -> None:
    with pytest.raises(ValueError), manager.track("nightly", unique_key="k") as run:  # noqa: PT012
        for page in run.each(range(5), stage="Pages", resume=True):
            if page == 3:
                raise ValueError
    with manager.track("nightly", unique_key="k") as again:
        assert (again.job_id, again.attempt) == (run.job_id, 2)
        assert list(again.each(range(5), stage="Pages", resume=True)) == [3, 4]
    assert current(manager, run.job_id).status == "completed"
    with manager.track("nightly", unique_key="k") as new:
        assert new.job_id != run.job_id


def test_key_of_live_run_is_rejected(manager: JobManager) -> None:
    with (
        manager.track(unique_key="k") as run,
        pytest.raises(LeaseHeldError, match="is still running on"),
        manager.track(unique_key="k"),
    ):
        pass
    assert current(manager, run.job_id).status == "completed"


def test_pending_job_is_adopted_by_id(manager: JobManager) -> None:
    job = manager.create_job(job_type="ingestion", metadata={"a": 1})
    with manager.track("ingestion", job_id=job.job_id) as run:
        assert (run.job_id, run.metadata) == (job.job_id, {"a": 1})
        assert current(manager, job.job_id).run_by == "track"
    with pytest.raises(DuplicateJobError), manager.track(job_id=job.job_id):
        pass
    with manager.track(job_id="named") as named:
        assert named.job_id == "named"


def test_execute_runs_function_as_block(manager: JobManager) -> None:
    async def on_loop(run: Run) -> str:
        await asyncio.sleep(0)
        return f"{run.job_id} in a loop"

    def broken(run: Run) -> None:
        raise ValueError("no pages")

    def cancelled(run: Run) -> None:
        manager.cancel_job(run.job_id, "not needed")
        ticking(run)

    manager.track("pages", job_id="plain").execute(lambda run: {"job": run.job_id})
    manager.track("pages", job_id="coroutine").execute(on_loop)
    with pytest.raises(ValueError, match="no pages"):
        manager.track("pages", job_id="broken").execute(broken)
    with pytest.raises(JobCancelled):
        manager.track("pages", job_id="cancelled").execute(cancelled)
    assert current(manager, "plain").result == {"job": "plain"}
    assert current(manager, "coroutine").result == "coroutine in a loop"
    assert current(manager, "broken").error == "no pages"
    receipt = current(manager, "cancelled").receipt
    assert receipt is not None
    assert (receipt.confirmed, receipt.reason) == (True, "not needed")


def test_track_block_is_entered_once(manager: JobManager) -> None:
    block = manager.track()
    with block:
        pass
    with pytest.raises(InvalidInputError, match="entered before"), block:
        pass


PROGRAM = """
import sys, time
from milepost import JobManager, Settings
from milepost.stores.factory import open_store
url, namespace = sys.argv[1:]
options = Settings(namespace=namespace, lease=0.6, sweep=0.1, heartbeat=0.02)
manager = JobManager(open_store(url, namespace=namespace), options=options)
with manager.track("nightly", unique_key="k") as run:
    run.checkpoint({"page": 7})
    print("ready", flush=True)
    time.sleep(60)
"""


def test_job_of_killed_process_is_lost_and_resumed_by_key(url: str, options: Settings, manager: JobManager) -> None:  # fmt: skip
    if url == "memory://":
        pytest.skip("the memory of a process is gone with it")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url, options.namespace], stdout=subprocess.PIPE, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    with manager.track("nightly", unique_key="k") as run:
        assert run.last_checkpoint == {"page": 7}
    job = current(manager, run.job_id)
    # Its death was seen here (a crash, charged as such), or by a sweep before (a failed job, reopened as an attempt).
    assert (job.status, job.attempt + job.crashes) == ("completed", 2)


# --- the heartbeat --------------------------------------------------------------------------------------------------------


def test_reports_wait_during_outage_and_work_continues(options: Settings, start_redis: Any) -> None:
    server = start_redis(appendonly="always")
    options = replace(options, lease=30.0)  # the outage is short beside it, on any machine
    manager = JobManager(open_store(server.url, namespace=options.namespace), options=options)
    with manager.track() as run:
        run.progress(0.2, "before")
        until(lambda: current(manager, run.job_id).progress == 0.2)
        server.kill()
        for number in range(20):
            run.progress(0.2 + number / 100, f"step {number}")
            run.log(f"line {number}")
            time.sleep(0.05)
        server.start()
        until(lambda: current(manager, run.job_id).message == "step 19")
    assert current(manager, run.job_id).status == "completed"
    lines = [
        line["text"] for event in manager.events(run.job_id) if event.kind == "log" for line in event.data["lines"]
    ]
    assert lines == [f"line {number}" for number in range(20)]
    manager.close()


def test_unchanged_run_makes_no_event(manager: JobManager) -> None:
    with manager.track() as run:
        run.progress(0.4, "same")
        until(lambda: current(manager, run.job_id).progress == 0.4)
        version = current(manager, run.job_id).version
        for _ in range(50):
            run.progress(0.4, "same")
            time.sleep(0.005)
        assert current(manager, run.job_id).version == version
