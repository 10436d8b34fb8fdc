"""Jobs that wait for themselves although no submit saw it, on every store: a sweep flags them, and only them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from milepost import AsyncJobs, Jobs, Run
from milepost.core.errors import InvalidInputError
from milepost.core.job import Job
from milepost.core.transitions import create
from milepost.run import sweeper as sweeper_module
from milepost.run.sweeper import Sweeper
from milepost.settings import Settings
from milepost.stores import cycles
from milepost.stores.protocol import Store
from milepost.stores.sync_bridge import run_sync
from tests.waiting import PATIENCE, current, until
from tests.web.conftest import client_of


@pytest.fixture
def jobs(every_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """Jobs that a sweep checks at once, and again in each later one."""
    monkeypatch.setattr(create, "CYCLE_CHECK", "0")
    monkeypatch.setattr(sweeper_module, "SOON", 0)
    monkeypatch.setattr(sweeper_module, "MIN_PAUSE", 0)
    jobs = Jobs(every_store)

    @jobs.job("load")
    def load(run: Run) -> None:
        """Do nothing."""

    jobs.worker()  # so that a store in memory starts no worker by itself
    yield jobs
    jobs.close()


def warnings(jobs: Jobs) -> list[str]:
    """Return what `milepost doctor` warns of, over HTTP."""

    async def read() -> list[str]:
        apart = AsyncJobs(jobs.store.with_blocking(blocking=False))
        async with client_of(apart) as web:
            found = (await web.get("/api/doctor")).json()["warnings"]
        await apart.close()
        return [text for text in found if "themselves" in text]

    return asyncio.run(read())


def sweep(jobs: Jobs) -> None:
    run_sync(Sweeper(jobs.store, Settings(sweep=0.001), jobs.ttl).sweep())


def at_once(jobs: Jobs, first: Callable[[], Job], second: Callable[[], Job]) -> tuple[Job, Job]:
    """Submit two jobs; both submits look for cycles before one of them writes, `second` first."""
    submitted: list[Job] = []
    with pytest.MonkeyPatch.context() as patch:
        real = jobs.store.apply

        async def apply(*args: Any) -> Any:
            patch.setattr(jobs.store, "apply", real)
            submitted.append(second())
            return await real(*args)

        patch.setattr(jobs.store, "apply", apply)
        return first(), submitted[0]


def submit(jobs: Jobs, name: str, group: str, *after: str) -> Callable[[], Job]:
    return lambda: jobs.submit("load", {}, job_id=name, group=group, after=after)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_cycle_of_two_submits_is_flagged(jobs: Jobs, order: str) -> None:
    makes = {"a": submit(jobs, "a", "one", "group:two"), "b": submit(jobs, "b", "two", "group:one")}
    with jobs.batch("one") as one, jobs.batch("two"):
        at_once(jobs, *(makes[name] for name in order))
    free = jobs.submit("load", {}, group="free", after=["group:one"])
    sweep(jobs)
    assert jobs.count_jobs(stalled=True) == 2
    job = current(jobs, "a")
    text = (
        "'group:two' would never close: job b waits for group:one, and the job itself is a member of it; "
        "cancel one of these jobs"
    )
    assert job.stalled == text
    assert job.waiting_for is not None
    assert job.waiting_for.params == {"group": "group:two", "stalled": text}
    assert job.activity == f"Waiting for group two, which is stalled: {text}"
    assert [event.kind for event in jobs.events("a")] == ["created", "stalled"]
    assert current(jobs, free.job_id).stalled is None
    (warning,) = warnings(jobs)
    newest, oldest = order
    text = f"jobs that wait for themselves and will never start: 2 ({newest}, {oldest}); {newest}: "
    assert warning == f"{text}{current(jobs, newest).stalled}"
    version = job.version
    sweep(jobs)
    assert current(jobs, "a").version == version, "the flag is written once"
    jobs.cancel_job("b")
    assert [current(jobs, name).status for name in ("a", "b", "one", "two")] == [
        "cancelled",
        "cancelled",
        "failed",
        "failed",
    ]
    assert jobs.count_jobs(stalled=True) == 0
    assert warnings(jobs) == []
    assert one.counts().cancelled == 1


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_cycle_through_a_long_chain_is_flagged(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    """Also one that a submit alone does not see, and that takes several sweeps."""
    monkeypatch.setattr(cycles, "LOOKED_AT", 6)
    monkeypatch.setattr(sweeper_module, "READS", 6)
    jobs.submit("load", {}, job_id="open", group="one")
    last = "group:one"
    for number in range(20):
        last = f"job:{jobs.submit('load', {}, job_id=f'{order}{number}', after=[last]).job_id}"
    jobs.submit("load", {}, job_id="x", group="one", after=[last])
    sweeper = Sweeper(jobs.store, Settings(sweep=0.001), jobs.ttl)

    def flagged() -> str | None:
        run_sync(sweeper.sweep())
        return current(jobs, "x").stalled

    assert not flagged()
    assert until(flagged) == (
        f"'{last}' would never close: job {order}0 waits for group:one, and the job itself is a member of it; "
        "cancel one of these jobs"
    )
    assert jobs.count_jobs(stalled=True) == 1


def test_job_that_waits_for_others_is_not_flagged(jobs: Jobs) -> None:
    last = "job:" + jobs.submit("load", {}, job_id="first", group="chain").job_id
    for number in range(5):
        last = f"job:{jobs.submit('load', {}, job_id=f'next-{number}', group='chain', after=[last]).job_id}"
    jobs.submit("load", {}, job_id="then", group="other", after=["group:chain"])
    for _ in range(3):
        sweep(jobs)
    assert jobs.count_jobs(stalled=True) == 0
    with jobs.run_workers():
        assert jobs.wait("then", PATIENCE).status == "completed"
    assert current(jobs, "next-4").status == "completed"


def test_released_job_is_not_checked(jobs: Jobs) -> None:
    jobs.submit("load", {}, job_id="first")
    jobs.submit("load", {}, job_id="then", group="g", after=["job:first"])
    jobs.pause("then")
    jobs.cancel_job("first")
    jobs.submit("load", {}, job_id="runs", group="g", after=["job:first"], on_failure="run")
    jobs.resume("then")
    for _ in range(3):
        sweep(jobs)
    assert jobs.count_jobs(stalled=True) == 0
    assert current(jobs, "runs").status == "pending"
    assert "stale" not in current(jobs, "runs").record


def test_member_of_a_batch_cannot_wait_for_its_record(jobs: Jobs) -> None:
    with jobs.batch("one") as batch:
        for entry in ("job:one", "group:one"):
            with pytest.raises(InvalidInputError, match="would never close"):
                batch.submit(jobs.handlers["load"].options(after=[entry]))
        other = jobs.submit("load", {}, after=["job:one"])
        with pytest.raises(
            InvalidInputError, match=f"job one waits for group:one|job {other.job_id} waits for job:one"
        ):
            batch.submit(jobs.handlers["load"].options(after=[other]))
        assert jobs.count_jobs() == 2


async def test_batch_of_another_store_is_refused(jobs: Jobs, tmp_path: Path) -> None:
    jobs.submit("load", {}, group="import")
    other = Jobs(f"sqlite:///{tmp_path}/other.db", handlers=jobs.handlers)
    other.worker()
    apart = AsyncJobs(other.store.with_blocking(blocking=False))
    with jobs.batch("one") as own, other.batch("one") as foreign, other.batch("two") as missing:
        load = jobs.handlers["load"]
        for batch in (foreign, missing, apart.batch("one")):
            for submit in (
                lambda batch=batch: jobs.submit("load", {}, after=["group:import", batch]),
                lambda batch=batch: jobs.submit(load.options(after=[batch])),
                lambda batch=batch: jobs.submit_many("load", [{}, {}], after=[batch]),
                lambda batch=batch: jobs.create_job("x", after=[batch]),
                lambda batch=batch: jobs.batch("one").submit("load", {}, after=[batch]),
            ):
                with pytest.raises(
                    InvalidInputError, match=r"^after: batch '\w+' is in the store sqlite:.*, not in .*; submit the"
                ):
                    submit()
        here = AsyncJobs(jobs.store.with_blocking(blocking=False), handlers=jobs.handlers)
        with pytest.raises(InvalidInputError, match="is in the store"):
            await here.submit("load", {}, after=[foreign])
        assert (await here.submit("load", {}, after=[own, here.batch("one")])).after == ("group:one",)
        assert jobs.count_jobs() == 3
        assert other.count_jobs() == 2
    for one in (apart, here):
        await one.close()
    other.close()


def test_batch_of_the_same_store_by_another_url_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    first, second = Jobs(f"sqlite:///{tmp_path}/jobs.db"), Jobs(f"sqlite:///{tmp_path}/link/jobs.db")

    @first.job("load")
    def load(run: Run) -> None:
        """Do nothing."""

    first.submit(load)
    with second.batch("one") as batch:
        assert first.submit(load.options(after=[batch])).after == ("group:one",)
    first.close()
    second.close()
