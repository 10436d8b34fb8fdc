"""The heartbeat of a process: which leases it renews, for how long, and what may delay it."""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from milepost import Job, JobCancelled, JobManager, JobPaused, Run, Settings, StoreUnavailableError
from milepost.core.transitions import plan_create, plan_pause, plan_resume_paused, plan_start
from milepost.core.transitions.change import Change
from milepost.manager.validation import submit_fields
from milepost.run.heartbeat_state import stop_reason
from milepost.run.runtime import Runtime
from milepost.run.sweeper import Sweeper
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import PurgeResult, Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FakeRun
from tests.run.lost_jobs import lose_jobs
from tests.waiting import until

pytestmark = pytest.mark.timing


def expires(manager: JobManager, run: Run) -> int:
    """Return when the lease of a run expires, in microseconds of the store's clock."""
    job = run_sync(manager.store.get(run.job_id))
    assert job is not None
    return int(job.record["lease"])


@pytest.mark.parametrize(("set_to", "expected"), [({}, 0.7), ({"heartbeat": 0.05}, 0.05)])
def test_store_sets_the_pace_unless_the_settings_do(set_to: dict[str, float], expected: float) -> None:
    class SlowStore(MemoryStore):
        report_interval = 0.7

    settings = Settings(**set_to)  # type: ignore[arg-type]
    assert Runtime(SlowStore(), settings, settings.job_ttl).heartbeat.interval == expected


def refuse_next_thread(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the next start of a thread with this name fail, as at the limit of the system."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            monkeypatch.setattr(threading.Thread, "start", start)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)


def test_leases_are_renewed_after_a_moment_without_threads(
    manager: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: once the system had refused a thread, no lease was renewed any more, and all runs were lost.

    With another thread, that of the block that had failed would have been renewed for ever.
    """
    refuse_next_thread(monkeypatch, "milepost-heartbeat")
    with pytest.raises(RuntimeError, match="can't start new thread"), manager.track("first"):
        pass
    (first,) = manager.list_jobs("first")
    with manager.track("next") as run:
        began = expires(manager, run)
        until(lambda: expires(manager, run) > began, 20)
    left = manager.get_job(first.job_id)
    assert left is not None
    assert left.lease_expires_at in (first.lease_expires_at, None)


def test_leases_are_watched_after_a_moment_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = "milepost-lease-watch"
    refuse_next_thread(monkeypatch, watched)
    settings = Settings()
    heartbeat = Runtime(MemoryStore(), settings, settings.job_ttl).heartbeat
    run = FakeRun(Job.stored("fake", {"type": "test"}))
    with pytest.raises(RuntimeError, match="can't start new thread"):
        heartbeat.add(run, "stop")
    watching = [thread.name for thread in threading.enumerate()].count(watched)
    heartbeat.add(run, "stop")
    assert [thread.name for thread in threading.enumerate()].count(watched) == watching + 1
    heartbeat.remove(run)


class TestDifferentSettings:
    """Two managers with different settings on one store, in one process."""

    def test_shorter_lease_is_renewed_in_time(self, manager: JobManager, options: Settings) -> None:
        """Regression: a healthy run was lost if an earlier manager in its process had a longer lease."""
        longer = JobManager(manager.store, options=replace(options, lease=3600.0))
        with longer.track("longer"), manager.track("shorter") as run:
            first = expires(manager, run)
            until(lambda: expires(manager, run) > first + options.lease_micros)
            assert expires(manager, run) <= run_sync(manager.store.now()) + options.lease_micros

    def test_longer_lease_keeps_its_length(self, manager: JobManager, options: Settings) -> None:
        """Regression: a run got a shorter lease than its own if an earlier manager in its process had one."""
        longer = JobManager(manager.store, options=replace(options, lease=4.0))
        with manager.track("shorter"), longer.track("longer") as run:
            before = run_sync(manager.store.now())
            first = expires(manager, run)
            until(lambda: expires(manager, run) != first)
            assert expires(manager, run) >= before + 4_000_000

    def test_each_manager_has_its_own_heartbeat(self, manager: JobManager, options: Settings) -> None:
        """A manager shares nothing with another one, not even if their settings are equal."""
        assert JobManager(manager.store, options=options).runtime.heartbeat is not manager.runtime.heartbeat


def test_outage_and_its_end_are_logged_once(
    manager: JobManager, options: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Regression: an idle worker logged the outage every 5 s and never its end."""
    heartbeat = manager.runtime.heartbeat
    store, away, refused = heartbeat.store, threading.Event(), []

    def until_away(real: Callable[..., Any]) -> Callable[..., Any]:
        async def asked(**what: Any) -> Any:
            if away.is_set():
                refused.append(what)
                raise StoreUnavailableError("no answer")
            return await real(**what)

        return asked

    monkeypatch.setattr(store, "sweep", until_away(store.sweep))
    monkeypatch.setattr(store, "purge", until_away(store.purge))
    away.set()
    caplog.set_level("WARNING", "milepost.heartbeat")

    def log_lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "milepost.heartbeat"]

    heartbeat.retain()
    until(lambda: len(refused) > 3)
    assert log_lines() == ["store unavailable; running jobs continue: no answer"]
    away.clear()
    until(lambda: len(log_lines()) > 1)
    heartbeat.release()
    assert re.fullmatch(r"store available again after \d+ s", log_lines()[1])
    assert len(log_lines()) == 2


def test_leases_do_not_wait_for_all_of_a_slow_sweep(manager: JobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a run was released because the requests of one beat together took longer than its lease."""
    store, requests = manager.store, list[str]()

    def noted(name: str, seconds: float) -> None:
        real = getattr(store, name)

        async def request(*args: Any, **what: Any) -> Any:
            requests.append(name)
            threading.Event().wait(seconds)
            return await real(*args, **what)

        monkeypatch.setattr(store, name, request)

    for name, seconds in [("heartbeat", 0.0), ("sweep", manager.runtime.heartbeat.interval), ("kv_scan", 0.0)]:
        noted(name, seconds)
    with manager.track("long"):
        until(lambda: requests.count("kv_scan") > 2)
    after = [following for request, following in itertools.pairwise(requests) if request == "sweep"]
    assert set(after) == {"heartbeat"}, "the schedules were read before the next renewal"


def test_leases_do_not_wait_for_all_kept_results(manager: JobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: runs were released because their process first sent all results of `run.map`, over a slow connection."""
    store, requests = manager.store, list[str]()

    def noted(name: str) -> None:
        real = getattr(store, name)

        async def request(*args: Any, **what: Any) -> Any:
            is_part = name != "heartbeat" and str(args[0]).startswith("results/")
            if is_part:
                threading.Event().wait(manager.runtime.heartbeat.interval)
            if is_part or name == "heartbeat":
                requests.append(name)
            return await real(*args, **what)

        monkeypatch.setattr(store, name, request)

    for name in ("heartbeat", "kv_put", "kv_delete"):
        noted(name)
    with manager.track("long"):
        with contextlib.ExitStack() as stack:
            for run in [stack.enter_context(manager.track("map")) for _ in range(4)]:
                run.map(lambda number: str(number) * 20_000, range(8))
            until(lambda: requests.count("kv_put") >= 4)
        until(lambda: requests.count("kv_delete") >= 4)
    parts = "".join("h" if name == "heartbeat" else "p" for name in requests).split("h")
    assert max(map(len, parts)) <= 2, "one before a renewal, and one after it"


class TestBacklog:
    """The heartbeat thread sweeps and purges in short slices."""

    @pytest.fixture
    def endless(self, manager: JobManager, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
        """Make each purge find a full batch; yield the requested sizes."""
        real, over, asked = manager.store.purge, threading.Event(), []

        async def purge(*, before: int, limit: int = 500) -> PurgeResult:
            found = await real(before=before, limit=limit)
            if over.is_set():
                return found
            asked.append(limit)
            return PurgeResult(limit, more=True)

        monkeypatch.setattr(manager.store, "purge", purge)
        yield asked
        over.set()

    def test_purge_of_backlog_delays_no_renewal_and_no_cancel(self, manager: JobManager, endless: list[int]) -> None:
        """Regression: a healthy run was lost, and its cancel delivered seconds late, while its process purged old
        records.
        """
        with contextlib.suppress(JobCancelled), manager.track("alive") as run:
            until(lambda: len(endless) > 1)
            first = expires(manager, run)
            until(lambda: expires(manager, run) > first)
            manager.cancel_job(run.job_id)
            until(lambda: run._stop_reasons)
        assert [type(stop) for stop in run._stop_reasons] == [JobCancelled]

    def test_backlog_is_purged_over_several_ticks(
        self, manager: JobManager, options: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next ticks remove the rest without waiting for another interval."""
        monkeypatch.setattr("milepost.run.sweeper.MAX_TICK_SECONDS", 0.0)
        for job_id in [manager.create_job(job_type="old").job_id for _ in range(450)]:
            manager.update_job(job_id, status="completed")
        before = run_sync(manager.store.now())
        until(lambda: run_sync(manager.store.now()) > before)
        sweeper = Sweeper(manager.store, replace(options, sweep=3600.0, lease=36000.0), ttl=0.0)
        left = []
        while not left or sweeper.is_behind:
            run_sync(sweeper.tick())
            left.append(manager.count_jobs("old"))
        assert left == [250, 50, 0]


def test_lost_jobs_are_swept_over_several_ticks(
    manager: JobManager, options: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: recovering many lost jobs at once delayed the renewal of live leases."""
    monkeypatch.setattr("milepost.run.sweeper.MAX_TICK_SECONDS", 0.0)
    store = manager.store
    lose_jobs(store, 450)
    sweeper = Sweeper(store, replace(options, sweep=3600.0, lease=36000.0), manager.ttl)
    left = []
    while not left or sweeper.is_behind:
        run_sync(sweeper.tick())
        left.append(manager.count_jobs(status="running"))
    assert left == [250, 50, 0]


def test_stop_reason_of_lost_store_names_no_other_run(manager: JobManager) -> None:
    """Regression: after the database file was deleted, the stop reason claimed that another run had the job."""
    with manager.track("alive") as run:
        job = run_sync(manager.store.get(run.job_id))
        assert str(stop_reason(job, run.token, "lost")) == f"the store no longer has job {run.job_id}"
        assert str(stop_reason(job, "1:other", "lost")) == f"job {run.job_id} is running in another run"


def test_stop_reason_of_retried_job_is_its_cancel(manager: JobManager) -> None:
    """Regression: code whose job was cancelled and retried at once got the reason that its worker was shutting down."""
    store = manager.store
    start = plan_start(new_operation_id(), nonce=new_nonce(), lease=60_000_000, worker="other:1:1")
    create = plan_create(submit_fields("slow", params=None), new_operation_id())
    run_sync(store.apply([Write("slow-1", create), Write("slow-1", start)]))
    started = manager.get_job("slow-1")
    assert started is not None
    manager.cancel_job("slow-1", "wrong file")
    manager.retry_job("slow-1")
    reason = stop_reason(manager.get_job("slow-1"), started.record["token"], "stopping")
    assert repr(reason) == repr(JobCancelled("cancelled: wrong file"))


def test_stop_reason_of_paused_job_that_was_started_again(manager: JobManager, options: Settings) -> None:
    """Regression: code that learned of a pause when another worker had continued its job got the reason of a cancel."""
    store, sweeper = manager.store, Sweeper(manager.store, replace(options, sweep=0.01), manager.ttl)

    def apply(*plans: Change) -> bool:
        return run_sync(store.apply([Write("slow-1", plan) for plan in plans])).outcomes[-1].accepted

    def start(lease: int) -> Change:
        return plan_start(new_operation_id(), nonce=new_nonce(), lease=lease, worker="other:1:1")

    def has_started_again() -> bool:
        run_sync(sweeper.tick())
        return apply(start(60_000_000))

    apply(plan_create(submit_fields("slow", params=None), new_operation_id()), start(1))
    first = manager.get_job("slow-1")
    assert first is not None
    apply(plan_pause(new_operation_id(), by="ana", data="{}"), plan_resume_paused(new_operation_id(), data="{}"))
    resumed = manager.get_job("slow-1")
    until(has_started_again)
    for job in (resumed, manager.get_job("slow-1")):
        assert repr(stop_reason(job, first.record["token"], "lost")) == repr(JobPaused("paused"))


def test_close_ends_the_thread_of_an_idle_manager(manager: JobManager) -> None:
    """Regression: the thread swept once more after the close, and left a connection open."""
    with manager.track("first"):
        manager.close()
        assert manager.runtime.has_heartbeat, "a run continues"
    manager.close()
    assert not manager.runtime.has_heartbeat
    with manager.track("again") as run:
        assert manager.runtime.has_heartbeat
        assert expires(manager, run)
