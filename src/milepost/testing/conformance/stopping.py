"""Stopping leases and receipts: what waits for code that was told to stop, and what the record says of it."""

from __future__ import annotations

import pytest

from milepost.core import lifecycle as plans
from milepost.stores.protocol import Select, Write
from milepost.testing.conformance.cells import fail
from milepost.testing.conformance.harness import LONG, Scenarios, World, caller_job, token_of, track_job, worker_job

HOWS = ("cooperative", "task cancelled", "terminated", "killed", "already finished")


class Stopping(Scenarios):
    """Cancelled with a receipt."""

    async def test_a_pending_job_never_starts_after_its_cancel(self, world: World) -> None:
        await world.create("a", worker_job())
        job = await world.made("a", plans.plan_cancel(world.op(), by="ana", why="wrong file", message="m"))
        assert job.receipt is not None
        assert (job.receipt.requested_by, job.receipt.reason) == ("ana", "wrong file")
        assert (job.receipt.how, job.receipt.confirmed) == ("never started", True)
        assert job.receipt.stopped_at == job.receipt.requested_at == job.completed_at
        assert (job.message, job.started_at) == ("m", None)
        assert await world.claim() == []
        assert await world.store.stoppings() == []

    async def test_a_callers_running_job_is_not_supervised(self, world: World) -> None:
        await world.create("a", caller_job())
        await world.do("a", plans.plan_update(world.op(), "running"))
        job = await world.made("a", plans.plan_cancel(world.op()))
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed, job.receipt.stopped_at) == ("not supervised", False, None)
        assert (job.receipt.requested_by, job.receipt.reason) == (None, None)
        await world.refused("a", plans.plan_update(world.op(), None, progress="0.9"))
        assert await world.store.stoppings() == []

    @pytest.mark.parametrize("how", HOWS)
    async def test_a_running_job_is_cancelled_at_once_and_its_receipt_comes_later(self, world: World, how: str) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        job = await world.made("a", plans.plan_cancel(world.op(), by="ana"))
        assert job.status.value == "cancelled"
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed, job.receipt.stopped_at) == (None, None, None)
        assert [(i, t) for i, t, _ in await world.store.stoppings()] == [("a", token)]
        for late in (
            plans.plan_complete(world.op(), token, "1", {}),
            fail(world.op(), token),
            plans.plan_report(world.op(), token, {"progress": "0.9"}),
            plans.plan_checkpoint(world.op(), token, "1", {}),
            plans.plan_release(world.op(), token, {}),
            plans.plan_run_out(world.op(), token),
        ):
            await world.refused("a", late)
        await world.do("a", plans.plan_log(world.op(), token, '{"lines":[]}'))
        late_result = '{"n":[]}' if how == "already finished" else None
        receipt = plans.plan_receipt(world.op(), token, how, confirmed=True, late_result=late_result)
        job = await world.made("a", receipt)
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed) == (how, True)
        assert job.receipt.late_result == ({"n": []} if late_result else None)
        assert job.receipt.stopped_at is not None
        assert job.result is None
        assert await world.store.stoppings() == []
        await world.refused("a", plans.plan_receipt(world.op(), token, "killed", confirmed=True))
        await world.refused("a", plans.plan_log(world.op(), token, '{"lines":[]}'))

    async def test_a_stop_that_nobody_confirms_is_never_reported_as_confirmed(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a", lease=0))
        await world.do("a", plans.plan_cancel(world.op()))
        await world.refused("a", plans.plan_run_out(world.op(), "1:forged"))
        job = await world.made("a", plans.plan_run_out(world.op(), token))
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed, job.receipt.stopped_at) == ("lease ran out", False, None)
        await world.refused("a", plans.plan_receipt(world.op(), "1:forged", "cooperative", confirmed=True))
        await world.refused("a", plans.plan_receipt(world.op(), token, "forgotten", confirmed=False))
        job = await world.made("a", plans.plan_receipt(world.op(), token, "cooperative", confirmed=True))
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed) == ("cooperative", True)
        await world.refused("a", plans.plan_receipt(world.op(), token, "killed", confirmed=True))

    async def test_an_admin_can_drop_a_stopping_lease_and_the_receipt_says_so(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_cancel(world.op()))
        await world.do("a", plans.plan_retry(world.op()))
        assert await world.claim() == []
        job = await world.made("a", plans.plan_receipt(world.op(), token, "forgotten", confirmed=False))
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed, job.receipt.stopped_at) == ("forgotten", False, None)
        assert [j.job_id for j in await world.claim()] == ["a"]
        assert await world.store.renew([("a", token)], LONG) == ["lost"]
        await world.refused("a", plans.plan_receipt(world.op(), token, "cooperative", confirmed=True))

    async def test_a_run_that_cancels_itself_leaves_no_stopping_lease(self, world: World) -> None:
        token = token_of(await world.track("a", track_job()))
        job = await world.made(
            "a", plans.plan_cancel_own(world.op(), token, {"progress": "0.3"}, by="ana", why="Ctrl-C")
        )
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed, job.receipt.reason) == ("cooperative", True, "Ctrl-C")
        assert await world.store.stoppings() == []

    async def test_a_stopping_lease_outlives_a_delete(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_delete(world.op()))
        assert await world.store.get("a") is None
        assert await world.store.renew([("a", token)], LONG) == ["stopping"]
        await world.refused("a", plans.plan_complete(world.op(), token, "1", {}))
        job = await world.create("a", worker_job())
        assert (job.status.value, (await world.job("a")).waiting_for) == ("pending", "the previous run to stop")
        await world.refused("a", plans.plan_start(world.op(), nonce="n", lease=LONG, worker="w"))
        assert await world.claim() == []
        job = await world.made("a", plans.plan_receipt(world.op(), token, "cooperative", confirmed=True))
        assert job.receipt is None, "the receipt of a deleted job belongs to nobody"
        assert (await world.job("a")).waiting_for is None
        assert [j.job_id for j in await world.claim()] == ["a"]

    async def test_a_retried_job_waits_for_its_own_stop(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_cancel(world.op()))
        await world.do("a", plans.plan_retry(world.op()))
        job = await world.job("a")
        assert job.waiting_for == "the previous run to stop"
        assert [j.waiting_for for j in await world.store.select(Select(), 10)] == ["the previous run to stop"]
        assert (await world.claiming()).next_due is None
        await world.do("a", plans.plan_receipt(world.op(), token, "terminated", confirmed=True))
        job = await world.job("a")
        assert job.receipt is not None
        assert job.receipt.how == "terminated"
        fresh = (await world.claim())[0]
        assert fresh.waiting_for is None
        assert token_of(fresh) != token

    async def test_a_job_waits_for_the_stop_of_its_unique_key(self, world: World) -> None:
        await world.create("a", worker_job(unique_key="k"))
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_cancel(world.op()))
        await world.create("b", worker_job(unique_key="k"))
        await world.create("c", worker_job(unique_key="other"))
        assert (await world.job("b")).waiting_for == "the previous run to stop"
        assert [j.job_id for j in await world.claim(most=3)] == ["c"]
        await world.refused("b", plans.plan_start(world.op(), nonce="n", lease=LONG, worker="w"))
        track = plans.plan_track(track_job(unique_key="k"), world.op(), nonce="n", lease=LONG)
        await world.do("b", plans.plan_cancel(world.op()))
        await world.refused("d", track)
        await world.create("e", worker_job(unique_key="k"))
        await world.do("a", plans.plan_receipt(world.op(), token, "killed", confirmed=True))
        assert [j.job_id for j in await world.claim(most=3)] == ["e"]

    async def test_a_scheduled_job_that_waits_for_a_stop_is_scheduled_again_afterwards(self, world: World) -> None:
        await world.create("a", worker_job(unique_key="k"))
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_cancel(world.op()))
        due = await world.store.now() + LONG
        await world.create("b", worker_job(unique_key="k", not_before=str(due)))
        assert (await world.claiming()).next_due is None
        await world.do("a", plans.plan_receipt(world.op(), token, "killed", confirmed=True))
        assert (await world.claiming()).next_due == due

    async def test_a_fail_whose_code_goes_on_keeps_the_next_attempt_waiting(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        late = plans.plan_fail(
            world.op(),
            token,
            error="too long",
            failure='{"kind":"timeout"}',
            report={},
            delay=0,
            stopping=True,
            why="timeout",
        )
        job = await world.made("a", late)
        assert (job.status.value, job.attempt) == ("pending", 1)
        assert job.receipt is not None
        assert (job.receipt.requested_by, job.receipt.reason, job.receipt.confirmed) == ("milepost", "timeout", None)
        assert await world.claim() == []
        await world.do("a", plans.plan_receipt(world.op(), token, "killed", confirmed=True))
        assert [j.attempt for j in await world.claim()] == [2]

    async def test_a_release_whose_code_goes_on_keeps_the_job_waiting(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_release(world.op(), token, {}, stopping=True))
        assert await world.claim() == []
        assert await world.store.renew([("a", token)], 0) == ["stopping"]
        await world.do("a", plans.plan_run_out(world.op(), token))
        assert [j.attempt for j in await world.claim()] == [1]

    @pytest.mark.parametrize("end", ["killed", "forgotten", "lease ran out"])
    async def test_a_second_cancel_has_a_receipt_of_its_own(self, world: World, end: str) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a", lease=0))
        await world.do("a", plans.plan_cancel(world.op(), by="ana", why="first"))
        await world.do("a", plans.plan_retry(world.op()))
        job = await world.made("a", plans.plan_cancel(world.op()))
        assert job.receipt is not None
        assert (job.receipt.requested_by, job.receipt.reason) == (None, None)
        assert (job.receipt.how, job.receipt.confirmed, job.receipt.stopped_at) == (None, None, None), "its run goes on"
        if end == "lease ran out":
            job = await world.made("a", plans.plan_run_out(world.op(), token))
        else:
            job = await world.made("a", plans.plan_receipt(world.op(), token, end, confirmed=end == "killed"))
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed) == (end, end == "killed")
        assert await world.store.stoppings() == []
        await world.do("a", plans.plan_retry(world.op()))
        job = await world.made("a", plans.plan_cancel(world.op()))
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed) == ("never started", True), "no run of it goes on now"

    async def test_a_cancel_of_a_job_whose_released_run_goes_on_is_confirmed_by_that_run(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_release(world.op(), token, {}, stopping=True))
        job = await world.made("a", plans.plan_cancel(world.op(), by="ana"))
        assert job.receipt is not None
        assert (job.receipt.requested_by, job.receipt.how, job.receipt.confirmed) == ("ana", None, None)
        job = await world.made("a", plans.plan_receipt(world.op(), token, "cooperative", confirmed=True))
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed) == ("cooperative", True)

    @pytest.mark.parametrize("end", ["killed", "forgotten", "lease ran out"])
    async def test_a_job_that_took_over_an_id_has_nothing_to_do_with_the_run_before_it(
        self, world: World, end: str
    ) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a", lease=0))
        await world.do("a", plans.plan_delete(world.op()))
        await world.create("a", worker_job())
        job = await world.made("a", plans.plan_cancel(world.op()))
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed) == ("never started", True)
        assert len(await world.store.stoppings()) == 1
        if end == "lease ran out":
            job = await world.made("a", plans.plan_run_out(world.op(), token))
        else:
            job = await world.made("a", plans.plan_receipt(world.op(), token, end, confirmed=end == "killed"))
        assert job.receipt is not None
        assert job.receipt.how == "never started"
        assert await world.store.stoppings() == []

    async def test_an_old_run_cannot_confirm_the_stop_of_a_newer_one(self, world: World) -> None:
        await world.create("a", worker_job())
        old = token_of(await world.start("a", lease=0))
        await world.do("a", plans.plan_cancel(world.op()))
        await world.do("a", plans.plan_run_out(world.op(), old))
        await world.do("a", plans.plan_retry(world.op()))
        new = token_of(await world.start("a"))
        await world.do("a", plans.plan_cancel(world.op()))
        await world.refused("a", plans.plan_receipt(world.op(), old, "cooperative", confirmed=True))
        await world.do("a", plans.plan_receipt(world.op(), new, "cooperative", confirmed=True))

    async def test_a_stopping_lease_keeps_its_slot(self, world: World) -> None:
        for name in "abc":
            await world.create(name, worker_job())
        token = token_of((await world.claim({"q": 2}, 1))[0])
        await world.do("a", plans.plan_cancel(world.op()))
        assert [j.job_id for j in await world.claim({"q": 2}, 2)] == ["b"]
        await world.do("a", plans.plan_receipt(world.op(), token, "killed", confirmed=True))
        assert [j.job_id for j in await world.claim({"q": 2}, 2)] == ["c"]


class Leases(Scenarios):
    """Renewing."""

    async def test_a_renewal_changes_neither_version_nor_events(self, world: World) -> None:
        await world.create("a", worker_job())
        job = await world.start("a", lease=1000)
        await world.tick()
        assert await world.store.renew([("a", token_of(job))], LONG) == ["live"]
        after = await world.job("a")
        assert (after.version, after.updated_at) == (job.version, job.updated_at)
        assert len(await world.store.events("a")) == job.version
        now = await world.store.now()
        assert int(job.record["lease"]) < now + LONG - 1000
        assert now < int(after.record["lease"]) <= now + LONG
        assert {**after.record, "lease": ""} == {**job.record, "lease": ""}

    async def test_a_lease_is_renewed_past_its_deadline_while_the_token_holds(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a", lease=0))
        await world.tick()
        assert await world.store.renew([("a", token)], LONG) == ["live"]
        await world.refused("a", plans.plan_lost(world.op(), error="", failure="{}", crash_loop="{}", crashes_left=2))
        await world.do("a", plans.plan_complete(world.op(), token, None, {}))

    async def test_a_beat_writes_and_renews_in_one_round_trip(self, world: World) -> None:
        for name in "abc":
            await world.create(name, worker_job())
        tokens = {name: token_of(await world.start(name, lease=1000)) for name in "abc"}
        await world.do("c", plans.plan_cancel(world.op()))
        writes = [
            Write("a", plans.plan_report(world.op(), tokens["a"], {"progress": "0.5"}), answer=False),
            Write("b", plans.plan_complete(world.op(), tokens["b"], None, {})),
            Write("c", plans.plan_report(world.op(), tokens["c"], {"progress": "0.5"})),
            Write("c", plans.plan_log(world.op(), tokens["c"], '{"lines":[]}')),
        ]
        outcomes, answers = await world.store.beat(writes, list(tokens.items()), LONG)
        assert [o.accepted for o in outcomes] == [True, True, False, True]
        assert [o.job.status.value if o.job is not None else None for o in outcomes] == [
            None, "completed", "cancelled", "cancelled",
        ]  # fmt: skip
        assert answers == ["live", "lost", "stopping"], "the writes come first"
        job = await world.job("a")
        assert job.progress == 0.5
        assert int(job.record["lease"]) > await world.store.now() + LONG // 2
        assert await world.store.beat([], [], LONG) == ([], [])
        again, _ = await world.store.beat(writes[:2], [], LONG)
        assert [(o.accepted, o.repeated) for o in again] == [(True, True)] * 2

    async def test_to_look_is_not_to_renew(self, world: World) -> None:
        await world.create("a", worker_job())
        job = await world.start("a", lease=5_000)
        assert await world.store.renew([("a", token_of(job))], None) == ["live"]
        assert (await world.job("a")).record["lease"] == job.record["lease"]
        await world.do("a", plans.plan_cancel(world.op()))
        before = await world.store.stoppings()
        assert await world.store.renew([("a", token_of(job))], None) == ["stopping"]
        assert await world.store.stoppings() == before

    async def test_each_lease_of_a_process_is_answered_for_itself(self, world: World) -> None:
        tokens = {}
        for name in ("live", "stopping", "ended", "deleted", "retaken"):
            await world.create(name, worker_job())
            tokens[name] = token_of(await world.start(name, lease=0))
        await world.do("stopping", plans.plan_cancel(world.op()))
        await world.do("ended", plans.plan_complete(world.op(), tokens["ended"], None, {}))
        await world.do("deleted", plans.plan_delete(world.op()))
        await world.do("retaken", plans.plan_lost(world.op(), error="", failure="{}", crash_loop="{}", crashes_left=2))
        await world.start("retaken")
        leases = [*tokens.items(), ("nobody", "1:x"), ("live", "1:forged")]
        answer = await world.store.renew(leases, LONG)
        assert answer == ["live", "stopping", "lost", "stopping", "lost", "lost", "lost"]
        now = await world.store.now()
        assert all(now < expires <= now + LONG for _, _, expires in await world.store.stoppings())
        assert await world.store.renew([], LONG) == []
