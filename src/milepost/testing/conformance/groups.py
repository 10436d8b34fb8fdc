"""Jobs that wait: for members of groups, or suspended until a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from milepost.core.errors import StoreUnavailableError
from milepost.core.job import JobStatus
from milepost.core.transitions import (
    plan_cancel,
    plan_complete,
    plan_create,
    plan_delete,
    plan_dispatch,
    plan_expire,
    plan_fail,
    plan_receipt,
    plan_release_held,
    plan_retry,
)
from milepost.core.transitions.change import Change, Const
from milepost.core.values import WaitingFor
from milepost.stores import held_jobs
from milepost.stores.protocol import Select, Store, Write
from milepost.stores.retention import purge_older
from milepost.testing.conformance.harness import (
    Scenarios,
    StoreFixture,
    caller_job,
    change_with,
    queue_job,
    token_of,
    worker_job,
)

SHORT = 60_000
"""Microseconds until a suspended job wakes."""
HOUR = 3_600_000_000


def _wait(fixture: StoreFixture, **fields: str) -> Change:
    """Return a change that writes what a suspension writes."""
    sets = tuple(("set", name, Const(value)) for name, value in fields.items())
    return change_with(fixture.operation_id(), *sets)


class Waits(Scenarios):
    """The placement of suspended jobs."""

    async def test_suspended_job_starts_when_it_wakes(self, fixture: StoreFixture) -> None:
        later = await fixture.store.now() + HOUR
        await fixture.create("a", worker_job(not_before="1"))
        await fixture.do("a", _wait(fixture, wake_at=str(later)))
        answer = await fixture.claiming()
        assert (answer.claimed, answer.next_due) == ([], later)
        await fixture.refused("a", fixture.starts(1)[0])
        wakes = await fixture.store.now() + SHORT
        await fixture.do("a", _wait(fixture, wake_at=str(wakes)))
        await fixture.until(wakes)
        (job,) = await fixture.claim() or [await fixture.job("a")]
        assert not job.record.keys() & {"held", "wait_groups", "wake_at"}

    async def test_held_job_is_neither_claimed_nor_due(self, fixture: StoreFixture) -> None:
        await fixture.create("x", caller_job())
        for name, at in (("a", "0"), ("b", "1"), ("c", str(1 << 52))):
            await fixture.create(name, worker_job(not_before=at))
            await fixture.do(name, _wait(fixture, held="job:x"))
            assert await fixture.claim(job_id=name) == []
        answer = await fixture.claiming(most=5)
        assert (answer.claimed, answer.next_due) == ([], None)
        await fixture.do("b", change_with(fixture.operation_id(), ("clear", "held")))
        assert [job.job_id for job in await fixture.claim(most=5)] == ["b"]

    async def test_held_job_with_wake_time_starts_then(self, fixture: StoreFixture) -> None:
        later = str(await fixture.store.now() + HOUR)
        await fixture.create("x", caller_job())
        await fixture.create("a", worker_job())
        await fixture.do("a", _wait(fixture, held="job:x", wait_groups="job:x", wake_at=later))
        assert (await fixture.claiming()).next_due == int(later)
        await fixture.do("a", _wait(fixture, wake_at="1"))
        assert [job.job_id for job in await fixture.claim()] == ["a"]

    async def test_suspended_job_starts_at_once_when_no_group_holds_it(self, fixture: StoreFixture) -> None:
        later = str(await fixture.store.now() + HOUR)
        await fixture.create("a", worker_job())
        await fixture.do("a", _wait(fixture, wait_groups="job:x", wake_at=later))
        assert [job.job_id for job in await fixture.claim()] == ["a"]


def after(*job_ids: str, **fields: str) -> dict[str, str]:
    """Return the fields of a worker job that follows jobs."""
    return {**worker_job(labels="\x1f".join(f":after=job:{job_id}" for job_id in job_ids)), **fields}


async def complete(fixture: StoreFixture, job_id: str) -> None:
    job = await fixture.start(job_id)
    await fixture.do(job_id, plan_complete(fixture.operation_id(), token_of(job), None, {}))


async def fail(fixture: StoreFixture, job_id: str) -> None:
    job = await fixture.start(job_id)
    plan = plan_fail(fixture.operation_id(), token_of(job), error="no", failure='{"kind":"error"}', report={})
    await fixture.do(job_id, plan)


async def is_held(fixture: StoreFixture, job_id: str, by: str) -> None:
    job = await fixture.job(job_id)
    assert job.waiting_for == WaitingFor("after", {"group": by if ":" in by else f"job:{by}"})
    assert await fixture.claim(job_id=job_id) == []
    await fixture.refused(job_id, fixture.starts(1)[0])


async def is_ready(fixture: StoreFixture, job_id: str) -> None:
    assert (await fixture.job(job_id)).waiting_for is None
    assert [job.job_id for job in await fixture.claim(job_id=job_id)] == [job_id]


async def is_cancelled(fixture: StoreFixture, job_id: str, by: str) -> None:
    job = await fixture.job(job_id)
    assert (job.status, job.record.get("failed_member")) == (JobStatus.CANCELLED, by)
    assert job.receipt is not None
    assert (job.receipt.reason, job.receipt.how, job.receipt.confirmed) == ("dependency_failed", "never_started", True)
    assert await fixture.claim(job_id=job_id) == []


class After(Scenarios):
    """Jobs that follow other jobs: held while one is open, and released or cancelled at the instant when none is."""

    async def test_job_starts_when_the_one_it_follows_has_completed(self, fixture: StoreFixture) -> None:
        uuid = "0199f3a2-7c1e-7d41-b2a0-5b1f0d6f9c11"  # Redis stores it as 16 bytes
        for number, first in enumerate(("a", "sixteen letters!", "=b", uuid)):
            await fixture.create(first, worker_job())
            job = await fixture.create(f"then{number}", after(first, priority="9"))
            assert job.waiting_for == WaitingFor("after", {"group": f"job:{first}"})
            await is_held(fixture, job.job_id, first)
            assert [job.job_id for job in await fixture.claim(most=2)] == [first], "a higher priority does not help"
            token = token_of(await fixture.job(first))
            await is_held(fixture, job.job_id, first)
            await fixture.do(first, plan_complete(fixture.operation_id(), token, None, {}))
            assert [event.kind for event in await fixture.store.events(job.job_id)] == ["created", "ready"]
            await is_ready(fixture, job.job_id)

    async def test_release_waits_until_the_code_has_stopped(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.create("b", after("a", on_failure="run"))
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plan_cancel(fixture.operation_id()))
        await is_held(fixture, "b", "a")
        await fixture.create("c", after("a", on_failure="run"))
        await is_held(fixture, "c", "a")
        await fixture.do("a", plan_receipt(fixture.operation_id(), token, "cooperative", confirmed=True))
        await is_ready(fixture, "b")
        await is_ready(fixture, "c")

    async def test_release_waits_until_the_code_of_a_deleted_job_has_stopped(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.create("b", after("a"))
        token = token_of(await fixture.start("a"))
        await fixture.store.apply([Write("a", plan_delete(fixture.operation_id()))])
        await is_held(fixture, "b", "a")
        await fixture.store.apply(
            [Write("a", plan_receipt(fixture.operation_id(), token, "cooperative", confirmed=True))]
        )
        await is_cancelled(fixture, "b", "a")

    @pytest.mark.parametrize("end", ["failed", "cancelled", "deleted"])
    async def test_failure_cancels_what_follows(self, fixture: StoreFixture, end: str) -> None:
        await fixture.create("a", worker_job())
        await fixture.create("b", after("a"))
        await fixture.create("c", after("b"))
        await fixture.create("d", after("a", on_failure="run"))
        await fixture.create("e", after("c", on_failure="run"))
        if end == "failed":
            await fail(fixture, "a")
        else:
            change = plan_cancel if end == "cancelled" else plan_delete
            await fixture.store.apply([Write("a", change(fixture.operation_id()))])
        await is_cancelled(fixture, "b", "a")
        await is_cancelled(fixture, "c", "b")
        await is_ready(fixture, "d")
        await is_ready(fixture, "e")

    async def test_error_says_which_job_did_not_complete_and_why(self, fixture: StoreFixture) -> None:
        """It said `dependency_failed: ID`."""
        long = "é" * 150
        for name, error in (("short", "no such file"), ("long", long), ("odd", "x" + long), ("none", "")):
            await fixture.create(name, worker_job(type="load"))
            await fixture.create(f"after {name}".replace(" ", "-"), after(name))
            job = await fixture.start(name)
            failure = '{"kind":"error"}'
            await fixture.do(
                name, plan_fail(fixture.operation_id(), token_of(job), error=error, failure=failure, report={})
            )
        for name in ("cancelled", "deleted"):
            await fixture.create(name, worker_job(type="load"))
            await fixture.create(f"after-{name}", after(name))
            await fixture.create(f"last-{name}", after(f"after-{name}"))
            change = plan_cancel if name == "cancelled" else plan_delete
            await fixture.store.apply([Write(name, change(fixture.operation_id()))])
        texts = {
            "after-short": "load failed: no such file (job short)",
            "after-long": f"load failed: {'é' * 100}… (job long)",
            "after-odd": f"load failed: x{'é' * 99}… (job odd)",
            "after-none": "load failed (job none)",
            "after-cancelled": "load was cancelled (job cancelled)",
            "after-deleted": "job deleted was deleted",
            "last-cancelled": "load was cancelled (job cancelled)",
        }
        assert {name: (await fixture.job(name)).error for name in texts} == texts
        job = await fixture.job("after-short")
        assert job.activity == "Cancelled: load failed: no such file (job short)"
        assert [event.data.get("error") for event in await fixture.store.events("after-short")][-1] == texts[
            "after-short"
        ]
        again = await fixture.made("after-short", plan_retry(fixture.operation_id()))
        assert (again.error, again.record.get("failed_member")) == (None, None)

    async def test_failure_is_decided_when_no_job_is_open(self, fixture: StoreFixture) -> None:
        for name in ("a", "b", "gone", "kept"):
            await fixture.create(name, worker_job())
        await fixture.create("then", after("a", "b", "gone", "kept"))
        await complete(fixture, "gone")
        await fixture.store.apply([Write("gone", plan_delete(fixture.operation_id()))])
        await fail(fixture, "a")
        await is_held(fixture, "then", "b")
        await complete(fixture, "b")
        await is_held(fixture, "then", "kept")
        await fixture.do("a", plan_retry(fixture.operation_id()))
        await complete(fixture, "kept")
        await is_held(fixture, "then", "a")
        await complete(fixture, "a")
        await is_ready(fixture, "then")

    async def test_failure_outlives_a_delete(self, fixture: StoreFixture) -> None:
        for name in ("a", "b", "c"):
            await fixture.create(name, worker_job())
        await fixture.create("by hand", after("a", "b"))
        await fixture.create("by purge", after("c", "b"))
        for name in ("a", "c"):
            await fail(fixture, name)
        await fixture.store.apply([Write("a", plan_delete(fixture.operation_id()))])
        await fixture.tick()
        assert await purge_older(fixture.store, ttl=0) == 0  # an open job waits for it
        await is_held(fixture, "by hand", "b")
        await complete(fixture, "b")
        await is_cancelled(fixture, "by hand", "a")
        await is_cancelled(fixture, "by purge", "c")
        await fixture.store.apply([Write("by hand", plan_delete(fixture.operation_id()))])
        await fixture.create("a", worker_job())
        await complete(fixture, "a")
        await fixture.create("again", after("a"))
        await is_ready(fixture, "again")

    async def test_release_is_final(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.create("b", after("a", on_failure="run"))
        await fixture.create("c", after("a"))
        await fail(fixture, "a")
        await fixture.do("c", plan_retry(fixture.operation_id()))
        await fixture.refused("c", plan_release_held(fixture.operation_id()))
        await fixture.do("a", plan_retry(fixture.operation_id()))
        await fixture.refused("b", plan_release_held(fixture.operation_id()))
        await is_ready(fixture, "b")
        await is_ready(fixture, "c")
        await fixture.start("a")
        await fixture.do("a", plan_cancel(fixture.operation_id()))
        for name in ("b", "c"):
            await fixture.refused(name, plan_release_held(fixture.operation_id()))

    async def test_ended_job_decides_at_submit(self, fixture: StoreFixture) -> None:
        for name in ("good", "bad"):
            await fixture.create(name, worker_job())
        await complete(fixture, "good")
        await fail(fixture, "bad")
        await fixture.create("b", after("good"))
        await is_ready(fixture, "b")
        await fixture.create("c", after("good", "bad", on_failure="run"))
        await is_ready(fixture, "c")
        await fixture.store.apply([Write("d", plan_create(after("good", "bad"), fixture.operation_id()))])
        await is_cancelled(fixture, "d", "bad")

    async def test_unknown_job_is_refused(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        for unknown in ("missing", "me", "0199f3a2-7c1e-7d41-b2a0-5b1f0d6f9c11"):
            await fixture.refused("me", plan_create(after("a", unknown), fixture.operation_id()))
        assert await fixture.store.count(Select()) == 1

    async def test_held_job_can_be_cancelled_deleted_and_expire(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        for name in ("b", "c", "d"):
            await fixture.create(name, after("a", not_after="1"))
        await fixture.do("b", plan_cancel(fixture.operation_id()))
        await fixture.store.apply([Write("c", plan_delete(fixture.operation_id()))])
        await fixture.do("d", plan_expire(fixture.operation_id(), error="late", failure='{"kind":"expired"}'))
        assert await fixture.store.held_by("job:a", 9) == []
        await complete(fixture, "a")
        assert [(await fixture.job(name)).status.value for name in ("b", "d")] == ["cancelled", "failed"]

    async def test_job_of_a_task_queue_is_dispatched_after_its_release(self, fixture: StoreFixture) -> None:
        async def due() -> list[str]:
            return [one.job_id for one in (await fixture.store.sweep(lease=30, interval=0, task_queue="x")).due]

        await fixture.create("a", worker_job())
        fields = queue_job(task_queue="x", dispatch_after="0", labels=":after=job:a")
        for name, again in (("b", None), ("c", 1_000)):
            await fixture.do(name, plan_create(fields, fixture.operation_id(), again))
            await fixture.refused(name, plan_dispatch(fixture.operation_id(), 1_000))
            assert "stale" not in (await fixture.job(name)).record
        await fixture.rest(0.002)
        assert await due() == []
        await complete(fixture, "a")
        await fixture.tick()
        assert sorted(await due()) == ["b", "c"]
        for name in ("b", "c"):
            outcome = await fixture.attempt(name, plan_dispatch(fixture.operation_id(), 1_000))
            assert outcome.branch == 0

    async def test_sweep_releases_what_a_dead_process_left(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        for number in range(3):
            await fixture.create(f"b{number}", after("a"))
        with dying(fixture.store):
            await complete(fixture, "a")
        await is_held(fixture, "b1", "a")
        await fixture.store.sweep(lease=30, interval=0)
        for number in range(3):
            await is_ready(fixture, f"b{number}")
        assert (await fixture.store.sweep(lease=30, interval=0)).closing == ()

    async def test_sweep_keeps_what_waits_for_a_retried_job(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.create("b", after("a"))
        with dying(fixture.store):
            await fail(fixture, "a")
        await fixture.do("a", plan_retry(fixture.operation_id()))
        assert (await fixture.store.sweep(lease=30, interval=0)).closing == ()
        await is_held(fixture, "b", "a")
        await complete(fixture, "a")
        await is_ready(fixture, "b")

    async def test_many_jobs_are_released_in_slices(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        for number in range(5):
            await fixture.create(f"b{number}", after("a"))
            await fixture.tick()
        assert await fixture.store.held_by("job:a", 3) == ["b0", "b1", "b2"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(held_jobs, "SLICE", 2)
            await complete(fixture, "a")
        assert sorted(job.job_id for job in await fixture.claim(most=9)) == [f"b{number}" for number in range(5)]


@contextmanager
def dying(store: Store) -> Iterator[None]:
    """Let the process of a store die between the end of a job and what follows from it for other jobs."""

    async def dies(group: str, limit: int) -> list[str]:
        raise StoreUnavailableError("killed")

    store.held_by = store.open_members = dies  # type: ignore[method-assign]
    try:
        yield
    finally:
        del store.held_by, store.open_members
