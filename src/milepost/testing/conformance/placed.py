"""The rows of `Placement` that no list shows: who keeps whom company, who holds a key, whose last moment comes."""

from __future__ import annotations

import json

from milepost.core import lifecycle as plans
from milepost.core.change import Change
from milepost.testing.conformance.cells import fail
from milepost.testing.conformance.harness import (
    LONG,
    Scenarios,
    World,
    caller_job,
    engine_job,
    token_of,
    track_job,
    worker_job,
)
from milepost.testing.conformance.language import made, told


class Placed(Scenarios):
    """Leases, keys, deadlines."""

    async def test_company_is_counted_by_worker(self, world: World) -> None:
        for name in "abcd":
            await world.create(name, worker_job())
        for name, worker in (("a", "w1"), ("b", "w1"), ("c", "w2"), ("d", "w1")):
            await world.start(name, lease=0, worker=worker)
        await world.do("d", plans.plan_cancel(world.op()))
        await world.tick()
        due = (await world.store.sweep(lease=60, interval=0)).due
        assert {d.job_id: (d.kind, d.company) for d in due if d.kind == "lease"} == {
            "a": ("lease", 2), "b": ("lease", 2), "c": ("lease", 1),
        }  # fmt: skip

    async def test_the_newest_record_holds_a_unique_key(self, world: World) -> None:
        await world.create("a", worker_job(unique_key="k"))
        await world.do("a", plans.plan_cancel(world.op()))
        await world.tick()
        await world.create("b", worker_job(unique_key="k"))
        await world.do("b", plans.plan_delete(world.op()))
        await world.create("c", worker_job(unique_key="k"))
        outcome = await world.attempt("d", plans.plan_create(worker_job(unique_key="k"), world.op()))
        assert outcome.holder == "c"
        await world.do("c", plans.plan_cancel(world.op()))
        await world.create("d", worker_job(unique_key="k"))

    async def test_only_the_newest_job_of_a_key_goes_on(self, world: World) -> None:
        await world.create("old", worker_job(unique_key="k"))
        await world.do("old", plans.plan_cancel(world.op()))
        await world.tick()
        await world.create("new", worker_job(unique_key="k"))
        await world.refused("old", plans.plan_retry(world.op()))
        token = token_of(await world.start("new"))
        await world.do("new", plans.plan_complete(world.op(), token, None, {}))
        await world.refused("old", plans.plan_retry(world.op()))
        await world.do("new", plans.plan_delete(world.op()))
        await world.do("old", plans.plan_retry(world.op()))
        outcome = await world.attempt("other", plans.plan_create(worker_job(unique_key="k"), world.op()))
        assert outcome.holder == "old"

    async def test_a_track_job_is_taken_up_by_its_key_and_not_made_anew(self, world: World) -> None:
        job = await world.track("a", track_job(unique_key="k"))
        for end in ("", "failed", "cancelled"):
            if end == "failed":
                await world.do("a", fail(world.op(), token_of(job)))
            elif end == "cancelled":
                await world.do("a", plans.plan_cancel_own(world.op(), token_of(job), {}, by="ana", why=""))
            outcome = await world.attempt("b", _tracked(world))
            assert (outcome.accepted, outcome.holder) == (False, "a")
            if end:
                job = await world.made("a", _reopened(world))
        await world.do("a", plans.plan_complete(world.op(), token_of(job), None, {}))
        await world.refused("a", _reopened(world))
        await world.tick()
        job = await world.made("b", _tracked(world))
        await world.do("b", plans.plan_complete(world.op(), token_of(job), None, {}))

    async def test_an_old_track_job_of_a_key_is_not_taken_up(self, world: World) -> None:
        job = await world.track("old", track_job(unique_key="k"))
        await world.do("old", fail(world.op(), token_of(job)))
        await world.tick()
        await world.create("new", worker_job(unique_key="k"))
        await world.refused("old", _reopened(world))
        await world.do("new", plans.plan_delete(world.op()))
        await world.do("old", _reopened(world))

    async def test_a_take_over_waits_for_a_stop_of_its_key_however_that_came_about(self, world: World) -> None:
        await world.do("x", made(world.op(), unique_key="k"))
        await world.do("x", told(world.op(), ("take", 0, 1), ("stop",), values=("n", str(LONG))))
        stopping = (await world.store.stoppings())[0][1]
        await world.do("x", plans.plan_delete(world.op()))
        for status, leased in (("running", True), ("failed", False)):
            job = await world.made(status, made(world.op(), status, driver="track", unique_key="k", **_times(status)))
            if leased:
                job = await world.made(status, told(world.op(), ("take", 0, 1), values=("n", "0")))
            dead = job.record.get("token", "-")
            for plan in (_reopened(world), _reopened(world, dead)):
                await world.refused(status, plan)
            await world.do(status, plans.plan_delete(world.op()))
        assert ("x", stopping) in [(job_id, token) for job_id, token, _ in await world.store.stoppings()]

    async def test_of_very_many_dossiers_the_newest_are_kept(self, world: World) -> None:
        await world.create("a", worker_job(max_attempts="1000"))
        for number in range(20):
            token = token_of(await world.start("a"))
            failure = f'{{"kind":"error","number":{number},"message":"{"m" * 60_000}"}}'
            change = plans.plan_fail(world.op(), token, error="e", failure=failure, report={}, delay=0)
            await world.do("a", change)
        record = (await world.job("a")).record
        kept = [record.get(name) for name in ("attempts_before", "attempts")]
        found = json.loads("[" + ",".join(text for text in kept if text) + "]")
        assert [one["number"] for one in found] == list(range(20 - len(found), 20))
        assert 128 * 1024 < sum(len(text or "") for text in kept) < 2 * 128 * 1024 + 2 * 61_000

    async def test_a_last_moment_is_kept_until_the_job_starts_or_ends(self, world: World) -> None:
        for driver, fields in (("w", worker_job(not_after="5")), ("e", engine_job(not_after="6"))):
            await world.create(driver, fields)
        later = str(await world.store.now() + 3_600_000_000)
        await world.create("x", engine_job(not_after=later))
        found = await world.store.sweep(lease=3600, interval=0)
        assert [(d.kind, d.job_id) for d in found.due] == [("deadline", "w"), ("deadline", "e")]
        await world.do("w", plans.plan_cancel(world.op()))
        await world.do("e", plans.plan_expire(world.op(), error="late", failure='{"kind":"expired"}'))
        assert (await world.store.sweep(lease=3600, interval=0)).due == []

    async def test_a_callers_job_that_has_started_is_not_looked_at_when_its_last_moment_to_start_comes(
        self, world: World
    ) -> None:
        await world.create("c", caller_job(not_after="5"))
        assert [d.kind for d in (await world.store.sweep(lease=3600, interval=0)).due] == ["deadline"]
        await world.do("c", plans.plan_update(world.op(), "running"))
        assert (await world.store.sweep(lease=3600, interval=0)).due == []
        await world.do("c", plans.plan_update(world.op(), None, progress="0.5"))
        assert (await world.store.sweep(lease=3600, interval=0)).due == []


def _tracked(world: World) -> Change:
    return plans.plan_track(track_job(unique_key="k"), world.op(), nonce=world.nonce(), lease=LONG)


def _reopened(world: World, dead: str | None = None) -> Change:
    return plans.plan_reopen(world.op(), nonce=world.nonce(), lease=LONG, worker="w1", failure="{}", dead=dead)


def _times(status: str) -> dict[str, str]:
    return {"started": "2000000000000000"} if status == "running" else {"completed": "2000000000000000"}
