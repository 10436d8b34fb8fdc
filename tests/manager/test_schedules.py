"""Schedules through the public API, on every store: what they make, changes, declarations of several releases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from milepost import AsyncJobs, AsyncRun, InvalidInputError, Jobs, Run, Schedule, ScheduleNotFoundError
from milepost.run.schedules import due_ticks, fire_due
from milepost.run.sweeper import Sweeper
from milepost.settings import Settings
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Select, Store
from milepost.stores.sync_bridge import run_sync
from milepost.web.security.api_keys import ApiKeyStore
from milepost.worker.registry import WorkerRegistration, remove_worker

SETTINGS = Settings()


@pytest.fixture
def jobs(every_store: Store) -> Iterator[Jobs]:
    jobs = application(Jobs(every_store))
    yield jobs
    jobs.close()


def application(jobs: Jobs) -> Jobs:
    @jobs.job("reindex", labels={"team": "search"})
    def reindex(run: Run, index: str = "docs") -> str:
        return f"{index} {run.scheduled_at:%H:%M}"

    jobs.worker()  # so that a store in memory starts no worker by itself
    return jobs


def move(jobs: Jobs, name: str, **changes: object) -> None:
    """Store a schedule with other times, as if it had been made earlier."""
    item = run_sync(jobs.store.kv_get(f"schedule/{name}"))
    assert item is not None
    changed = replace(Schedule.from_text(item.value), **changes)  # type: ignore[arg-type]
    run_sync(jobs.store.kv_put(item.key, changed.to_text()))


def fire(jobs: Jobs) -> int:
    """Fire once, as the sweep of every worker and server does; return how many jobs were made."""
    return run_sync(fire_due(jobs.store, new_operation_id))


AGO = datetime.now(UTC) - timedelta(days=3)


def calls_by_name(jobs: Jobs) -> tuple[Callable[[str], object], ...]:
    """Return the methods that take the name of a schedule, which must exist."""
    return jobs.get_schedule, jobs.pause_schedule, jobs.resume_schedule, jobs.fire_schedule, jobs.remove_schedule


def test_tick_makes_job_with_deterministic_id(jobs: Jobs) -> None:
    made = jobs.add_schedule(
        "nightly", jobs.handlers["reindex"], cron="0 3 * * *", tz="Europe/Berlin", params={"index": "all"}
    )
    assert made.next_at is not None
    assert made.upcoming[0] == made.next_at
    a_day = made.upcoming[1] - made.upcoming[0]
    assert timedelta(hours=23) <= a_day <= timedelta(hours=25), "also when the clocks change"
    assert fire(jobs) == 0, "nothing of the past"
    move(jobs, "nightly", next_at=AGO)
    assert fire(jobs) == 1
    (job,) = jobs.list_jobs()
    assert job.scheduled_at is not None
    assert job.job_id == f"nightly:{job.scheduled_at:%Y%m%dT%H%M%SZ}"
    assert (job.job_type, job.params, job.labels, job.schedule) == (
        "reindex",
        {"index": "all"},
        {"team": "search"},
        "nightly",
    )
    found = jobs.get_schedule("nightly")
    assert (found.last_job_id, found.last_at, found.fired) == (job.job_id, job.scheduled_at, 1)
    assert found.next_at == made.next_at
    assert fire(jobs) == 0
    with jobs.run_workers():
        assert jobs.wait(job).result == f"all {job.scheduled_at:%H:%M}"


def test_sweep_of_any_process_fires(jobs: Jobs) -> None:
    jobs.add_schedule("often", "reindex", every=60)
    move(jobs, "often", next_at=AGO)
    run_sync(Sweeper(jobs.store, replace(SETTINGS, sweep=0.001), jobs.ttl).sweep())
    assert [job.schedule for job in jobs.list_jobs()] == ["often"]


def test_many_due_schedules_are_fired_over_several_ticks(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: at 3:00 the jobs of thousands of schedules were made at once, and live runs lost their leases meanwhile."""
    monkeypatch.setattr("milepost.run.sweeper.MAX_TICK_SECONDS", 0.0)
    names = [f"tenant-{number}" for number in range(4)]
    for name in names:
        jobs.add_schedule(name, jobs.handlers["reindex"], cron="0 3 * * *")
    for days in (3, 2):
        for name in names:
            move(jobs, name, next_at=datetime.now(UTC) - timedelta(days=days))
        jobs.add_schedule("later", jobs.handlers["reindex"], cron="0 3 * * *")
        sweeper = Sweeper(jobs.store, replace(SETTINGS, sweep=3600.0), ttl=36000.0)
        made = []
        while not made or sweeper.is_behind:
            run_sync(sweeper.tick())
            made.append(len(run_sync(jobs.store.select(Select(), 100))))  # listing by `jobs` would fire as well
        assert made == ([1, 2, 3, 4] if days == 3 else [4, 4, 4, 4])
        assert [jobs.get_schedule(name).skipped for name in names] == [0 if days == 3 else 1] * 4
    assert len(jobs.list_jobs()) == 4


def test_process_fires_although_another_has_swept(jobs: Jobs) -> None:
    """The other process may be of an older release, or without the package for cron expressions."""
    jobs.add_schedule("often", "reindex", every=60)
    first, second = (Sweeper(jobs.store, SETTINGS, jobs.ttl) for _ in range(2))
    run_sync(first.tick())
    move(jobs, "often", next_at=AGO)
    run_sync(second.tick())
    assert [job.schedule for job in jobs.list_jobs()] == ["often"]


def test_missed_ticks_follow_catch_up(jobs: Jobs) -> None:
    handler = jobs.handlers["reindex"]
    cron = (
        f"0 {(datetime.now(UTC).hour + 12) % 24} * * *"  # 11 to 13 hours ago, so that the last tick was missed as well
    )
    for catch_up, overlap in (("last", "skip"), ("none", "skip"), ("all", "allow")):
        jobs.add_schedule(catch_up, handler, cron=cron, catch_up=catch_up, overlap=overlap)  # type: ignore[arg-type]
        move(jobs, catch_up, next_at=AGO - timedelta(days=300))
    assert fire(jobs) == 101
    ticks = {
        name: sorted(job.job_id for job in jobs.list_jobs(limit=1000) if job.schedule == name)
        for name in ("last", "none", "all")
    }
    assert {name: len(found) for name, found in ticks.items()} == {"last": 1, "none": 0, "all": 100}
    assert ticks["last"][0].partition(":")[2] == ticks["all"][-1].partition(":")[2], "the newest"
    now = datetime.now(UTC)
    assert all(found.next_at is not None and found.next_at > now for found in jobs.list_schedules())


def test_ten_thousand_missed_ticks_make_one_job_at_once(jobs: Jobs) -> None:
    jobs.add_schedule("often", jobs.handlers["reindex"], every="1m")
    move(jobs, "often", next_at=datetime.now(UTC) - timedelta(minutes=10_000))
    assert (fire(jobs), fire(jobs)) == (1, 0)


def test_late_tick_within_a_minute_is_not_missed(jobs: Jobs) -> None:
    jobs.add_schedule("often", jobs.handlers["reindex"], every="1s", catch_up="none")
    move(jobs, "often", next_at=datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=9))
    assert fire(jobs) == 1


def test_pause_resume_fire_and_remove(jobs: Jobs) -> None:
    jobs.add_schedule("nightly", jobs.handlers["reindex"], cron="0 3 * * *")
    assert jobs.pause_schedule("nightly").paused == "user"
    move(jobs, "nightly", next_at=AGO)
    assert fire(jobs) == 0
    resumed = jobs.resume_schedule("nightly")
    assert resumed.paused is None
    assert resumed.next_at is not None
    assert resumed.next_at > datetime.now(UTC)
    assert fire(jobs) == 0, "ticks during the pause make no jobs"
    job = jobs.fire_schedule("nightly")
    assert (job.schedule, jobs.get_schedule("nightly").fired) == ("nightly", 0)
    jobs.remove_schedule("nightly")
    assert jobs.list_schedules() == []
    assert jobs.get_job(job.job_id) is not None
    for call in calls_by_name(jobs):
        with pytest.raises(ScheduleNotFoundError, match="Schedule nightly not found"):
            call("nightly")


def test_changed_schedule_fires_nothing_of_the_past(jobs: Jobs) -> None:
    handler = jobs.handlers["reindex"]
    jobs.add_schedule("nightly", handler, cron="0 3 * * *", catch_up="all", overlap="allow")
    move(jobs, "nightly", next_at=AGO)
    jobs.add_schedule("nightly", handler, every="1h", catch_up="all", overlap="allow")
    assert fire(jobs) == 0
    (found,) = jobs.list_schedules()
    assert (found.cron, found.every) == (None, 3600.0)


def test_due_tick_survives_a_change_that_keeps_the_times(jobs: Jobs) -> None:
    handler = jobs.handlers["reindex"]
    for params in ({"index": "a"}, {"index": "a"}, {"index": "b"}):
        jobs.add_schedule("nightly", handler, cron="0 3 * * *", params=params)
        move(jobs, "nightly", next_at=AGO)
    jobs.add_schedule("nightly", handler, cron="0 3 * * *", params={"index": "b"})
    assert fire(jobs) == 1
    assert [job.params for job in jobs.list_jobs()] == [{"index": "b"}]


def test_taken_id_and_unique_key_skip_tick(jobs: Jobs) -> None:
    handler = jobs.handlers["reindex"]
    jobs.add_schedule("nightly", handler, cron="0 3 * * *")
    jobs.add_schedule("keyed", handler.options(unique_key="k"), cron="0 3 * * *", overlap="allow")
    for name in ("nightly", "keyed"):
        move(jobs, name, next_at=AGO)
    (tick,) = due_ticks(replace(jobs.get_schedule("nightly"), next_at=AGO), datetime.now(UTC))
    jobs.create_job(f"nightly:{tick:%Y%m%dT%H%M%SZ}")
    jobs.submit(handler.options(unique_key="k"))
    assert fire(jobs) == 0
    assert [(found.name, found.skipped, found.fired) for found in jobs.list_schedules()] == [
        ("keyed", 1, 0),
        ("nightly", 1, 0),
    ]
    assert fire(jobs) == 0
    assert jobs.count_jobs() == 2


def test_refused_tick_is_logged(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    jobs.add_schedule("nightly", jobs.handlers["reindex"], every=60)
    found = jobs.get_schedule("nightly")
    move(jobs, "nightly", next_at=AGO, fields={**found.fields, "labels": ":after=job:removed"})
    assert fire(jobs) == 0
    assert "schedule nightly: no job for 2" in caplog.text


def test_options_of_one_job_are_refused(jobs: Jobs) -> None:
    handler = jobs.handlers["reindex"]
    jobs.create_job("p", group="g")
    for options in (
        {"job_id": "x"}, {"not_before": datetime.now(UTC)}, {"on_duplicate": "refuse"}, {"after": ["job:p"]},
        {"group": "g"}, {"parent_id": "p"},
    ):  # fmt: skip
        with pytest.raises(InvalidInputError, match=next(iter(options))):
            jobs.add_schedule("nightly", handler.options(**options), every=60)  # type: ignore[arg-type]


# --- declarations in code ---


def release(jobs: Jobs, name: str, cron: str, version: str = "1", **params: str) -> WorkerRegistration:
    """Return the registration of a worker whose code declares the schedule `nightly`."""
    other = application(Jobs(jobs.manager))
    declared = other.schedule("nightly", other.handlers["reindex"], cron=cron, params=params)
    return WorkerRegistration(jobs.store, name, [], 1, lambda: ((), False), lambda: None, [declared], version)


def test_worker_writes_declaration_at_its_start(jobs: Jobs) -> None:
    declared = jobs.schedule("nightly", jobs.handlers["reindex"], cron="0 3 * * *", params={"index": "a"})
    assert jobs.list_schedules() == [], "a declaration does no I/O"
    with pytest.raises(InvalidInputError, match="'nightly' is declared twice"):
        jobs.schedule("nightly", jobs.handlers["reindex"], cron="0 4 * * *")
    with jobs.run_workers():
        (found,) = jobs.list_schedules()
    assert (found.name, found.cron, found.params) == ("nightly", declared.cron, {"index": "a"})
    assert found.declared_at is not None


def test_older_release_leaves_newer_declaration(jobs: Jobs) -> None:
    old, new = release(jobs, "w1", "0 3 * * *"), release(jobs, "w2", "0 4 * * *", "2")
    run_sync(old.renew())
    run_sync(new.renew())
    for worker in (old, new, old):
        worker._publish_at = 0.0
        run_sync(worker.renew())
        found = jobs.get_schedule("nightly")
        assert (found.cron, found.release) == ("0 4 * * *", "2")
    run_sync(remove_worker(jobs.store, "w2"))  # rolled back
    old._publish_at = 0.0
    run_sync(old.renew())
    assert jobs.get_schedule("nightly").cron == "0 3 * * *"


def test_call_overrides_declaration_until_it_changes(jobs: Jobs) -> None:
    run_sync(release(jobs, "w1", "0 3 * * *").renew())
    changed = jobs.add_schedule("nightly", jobs.handlers["reindex"], cron="0 5 * * *")
    assert changed.overridden
    run_sync(release(jobs, "w2", "0 3 * * *").renew())
    assert jobs.get_schedule("nightly").cron == "0 5 * * *"
    jobs.pause_schedule("nightly")
    run_sync(release(jobs, "w3", "0 4 * * *").renew())
    found = jobs.get_schedule("nightly")
    assert (found.cron, found.overridden, found.paused) == ("0 4 * * *", False, "user")


def test_undeclared_schedule_is_paused_after_a_day(jobs: Jobs) -> None:
    worker = release(jobs, "w1", "0 3 * * *")
    run_sync(worker.renew())
    move(jobs, "nightly", declared_at=datetime.now(UTC) - timedelta(hours=23))
    assert (fire(jobs), jobs.get_schedule("nightly").paused) == (0, None)
    move(jobs, "nightly", declared_at=datetime.now(UTC) - timedelta(hours=25), next_at=AGO)
    assert (fire(jobs), jobs.get_schedule("nightly").paused) == (0, "undeclared")
    worker._publish_at = 0.0
    run_sync(worker.renew())
    assert jobs.get_schedule("nightly").paused is None
    assert fire(jobs) == 1, "as if the worker had declared it before another process could pause it"


def test_declaration_with_other_parameters_keeps_due_tick(jobs: Jobs) -> None:
    run_sync(release(jobs, "w1", "0 3 * * *").renew())
    move(jobs, "nightly", next_at=AGO)
    run_sync(release(jobs, "w2", "0 3 * * *", "2", index="b").renew())
    assert (fire(jobs), jobs.list_jobs()[0].params) == (1, {"index": "b"})
    move(jobs, "nightly", next_at=AGO)
    run_sync(release(jobs, "w3", "0 4 * * *", "3").renew())
    assert fire(jobs) == 0, "other times: nothing of the past"


def test_schedule_ends_with_the_key_that_made_it(jobs: Jobs) -> None:
    keys = ApiKeyStore(jobs.store)
    key, _ = run_sync(keys.create("ana", ["jobs:write"]))
    jobs.add_schedule("nightly", jobs.handlers["reindex"], cron="0 3 * * *", created_by=f"key:{key.id}")
    move(jobs, "nightly", next_at=AGO)
    assert fire(jobs) == 1
    run_sync(keys.revoke(key.id))
    move(jobs, "nightly", next_at=AGO)
    assert (fire(jobs), jobs.get_schedule("nightly").paused) == (0, "key_ended")
    resumed = jobs.resume_schedule("nightly")
    assert (resumed.paused, resumed.created_by) == (None, None)
    move(jobs, "nightly", paused="key_ended", created_by=f"key:{key.id}", next_at=AGO)
    changed = jobs.add_schedule("nightly", jobs.handlers["reindex"], cron="0 3 * * *")
    assert (changed.paused, changed.created_by) == (None, None)
    assert fire(jobs) == 0, "ticks during the pause make no jobs"


async def test_async_jobs_have_schedules_as_well() -> None:
    jobs = AsyncJobs("memory://")

    @jobs.job("reindex")
    async def reindex(run: AsyncRun, index: str) -> None: ...

    jobs.schedule("declared", reindex, every="1h", params={"index": "a"})
    assert (await jobs.add_schedule("made", "reindex", every="1h", params={"index": "b"})).params == {"index": "b"}
    assert [found.name for found in await jobs.list_schedules()] == ["made"]
    assert (await jobs.pause_schedule("made")).paused == "user"
    assert (await jobs.resume_schedule("made")).paused is None
    assert (await jobs.fire_schedule("made")).schedule == "made"
    await jobs.remove_schedule("made")
    await jobs.close()
