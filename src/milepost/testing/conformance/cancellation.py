"""Cancels, draining leases, receipts and lease renewals."""

from __future__ import annotations

import pytest

from milepost.core import transitions as plans
from milepost.core.job import WaitingFor
from milepost.stores.protocol import Select, Write
from milepost.testing.conformance.harness import (
    LONG,
    Scenarios,
    StoreFixture,
    caller_job,
    token_of,
    track_job,
    worker_job,
)
from milepost.testing.conformance.transition_matrix import fail

STOP_METHODS = ("cooperative", "task_cancelled", "terminated", "killed", "already_finished")


class Stopping(Scenarios):
    """Cancel, draining lease and receipt."""

    async def test_cancelled_pending_job_never_starts(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        job = await fixture.made(
            "a", plans.plan_cancel(fixture.operation_id(), by="ana", why="wrong file", message="m")
        )
        assert job.receipt is not None
        assert (job.receipt.requested_by, job.receipt.reason) == ("ana", "wrong file")
        assert (job.receipt.how, job.receipt.confirmed) == ("never_started", True)
        assert job.receipt.stopped_at == job.receipt.requested_at == job.completed_at
        assert (job.message, job.started_at) == ("m", None)
        assert await fixture.claim() == []
        assert await fixture.store.draining_leases() == []

    async def test_cancel_of_manual_job_is_unsupervised(self, fixture: StoreFixture) -> None:
        await fixture.create("a", caller_job())
        await fixture.do("a", plans.plan_update(fixture.operation_id(), "running"))
        job = await fixture.made("a", plans.plan_cancel(fixture.operation_id()))
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed, job.receipt.stopped_at) == ("not_supervised", False, None)
        assert (job.receipt.requested_by, job.receipt.reason) == (None, None)
        await fixture.refused("a", plans.plan_update(fixture.operation_id(), None, progress="0.9"))
        assert await fixture.store.draining_leases() == []

    @pytest.mark.parametrize("how", STOP_METHODS)
    async def test_cancel_is_final_and_receipt_follows(self, fixture: StoreFixture, how: str) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        job = await fixture.made("a", plans.plan_cancel(fixture.operation_id(), by="ana"))
        assert job.status.value == "cancelled"
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed, job.receipt.stopped_at) == (None, None, None)
        assert [(i, t) for i, t, _ in await fixture.store.draining_leases()] == [("a", token)]
        for late in (
            plans.plan_complete(fixture.operation_id(), token, "1", {}),
            fail(fixture.operation_id(), token),
            plans.plan_report(fixture.operation_id(), token, {"progress": "0.9"}),
            plans.plan_checkpoint(fixture.operation_id(), token, "1", {}),
            plans.plan_release(fixture.operation_id(), token, {}),
            plans.plan_drain_timeout(fixture.operation_id(), token),
        ):
            await fixture.refused("a", late)
        await fixture.do("a", plans.plan_log(fixture.operation_id(), token, '{"lines":[]}'))
        late_result = '{"n":[]}' if how == "already_finished" else None
        receipt = plans.plan_receipt(
            fixture.operation_id(), token, how, confirmed=True, late_result=late_result, usage='{"usd":7}'
        )
        job = await fixture.made("a", receipt)
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed) == (how, True)
        assert job.receipt.late_result == ({"n": []} if late_result else None)
        assert job.receipt.stopped_at is not None
        assert (job.result, job.record["usage"]) == (None, '{"usd":7}')
        assert await fixture.store.draining_leases() == []
        await fixture.refused("a", plans.plan_receipt(fixture.operation_id(), token, "killed", confirmed=True))
        await fixture.refused("a", plans.plan_log(fixture.operation_id(), token, '{"lines":[]}'))

    async def test_unconfirmed_stop_is_never_confirmed(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a", lease=0))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.refused("a", plans.plan_drain_timeout(fixture.operation_id(), "1:forged"))
        job = await fixture.made("a", plans.plan_drain_timeout(fixture.operation_id(), token))
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed, job.receipt.stopped_at) == ("lease_expired", False, None)
        await fixture.refused(
            "a", plans.plan_receipt(fixture.operation_id(), "1:forged", "cooperative", confirmed=True)
        )
        await fixture.refused(
            "a", plans.plan_receipt(fixture.operation_id(), token, "dropped_by_admin", confirmed=False)
        )
        job = await fixture.made("a", plans.plan_receipt(fixture.operation_id(), token, "cooperative", confirmed=True))
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed) == ("cooperative", True)
        await fixture.refused("a", plans.plan_receipt(fixture.operation_id(), token, "killed", confirmed=True))

    async def test_late_receipt_keeps_operation_ids_of_next_run(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a", lease=0))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.do("a", plans.plan_drain_timeout(fixture.operation_id(), token))
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        lines = plans.plan_log(fixture.operation_id(), token_of(await fixture.start("a")), '{"lines":[]}')
        await fixture.do("a", lines)
        await fixture.do("a", plans.plan_receipt(fixture.operation_id(), token, "cooperative", confirmed=True))
        assert (await fixture.attempt("a", lines)).repeated

    async def test_dropped_draining_lease_has_receipt(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        assert await fixture.claim() == []
        job = await fixture.made(
            "a", plans.plan_receipt(fixture.operation_id(), token, "dropped_by_admin", confirmed=False)
        )
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed, job.receipt.stopped_at) == ("dropped_by_admin", False, None)
        assert [j.job_id for j in await fixture.claim()] == ["a"]
        assert await fixture.store.renew([("a", token)], LONG) == ["lost"]
        await fixture.refused("a", plans.plan_receipt(fixture.operation_id(), token, "cooperative", confirmed=True))

    async def test_self_cancel_leaves_no_draining_lease(self, fixture: StoreFixture) -> None:
        token = token_of(await fixture.track("a", track_job()))
        job = await fixture.made(
            "a", plans.plan_self_cancel(fixture.operation_id(), token, {"progress": "0.3"}, by="ana", why="Ctrl-C")
        )
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed, job.receipt.reason) == ("cooperative", True, "Ctrl-C")
        assert await fixture.store.draining_leases() == []

    async def test_draining_lease_outlives_delete(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_delete(fixture.operation_id()))
        assert await fixture.store.get("a") is None
        assert await fixture.store.renew([("a", token)], LONG) == ["stopping"]
        await fixture.refused("a", plans.plan_complete(fixture.operation_id(), token, "1", {}))
        job = await fixture.create("a", worker_job())
        assert (job.status.value, (await fixture.job("a")).waiting_for) == (
            "pending",
            WaitingFor("previous_run_stopping"),
        )
        await fixture.refused("a", plans.plan_start(fixture.operation_id(), nonce="n", lease=LONG, worker="w"))
        assert await fixture.claim() == []
        job = await fixture.made("a", plans.plan_receipt(fixture.operation_id(), token, "cooperative", confirmed=True))
        assert job.receipt is None, "a deleted job has no receipt"
        assert (await fixture.job("a")).waiting_for is None
        assert [j.job_id for j in await fixture.claim()] == ["a"]

    async def test_retried_job_waits_for_draining_run(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        job = await fixture.job("a")
        assert job.waiting_for == WaitingFor("previous_run_stopping")
        assert [j.waiting_for for j in await fixture.store.select(Select(), 10)] == [
            WaitingFor("previous_run_stopping")
        ]
        assert (await fixture.claiming()).next_due is None
        await fixture.do("a", plans.plan_receipt(fixture.operation_id(), token, "terminated", confirmed=True))
        job = await fixture.job("a")
        assert job.receipt is not None
        assert job.receipt.how == "terminated"
        fresh = (await fixture.claim())[0]
        assert fresh.waiting_for is None
        assert token_of(fresh) != token

    async def test_job_waits_for_draining_unique_key(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(unique_key="k"))
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.create("b", worker_job(unique_key="k"))
        await fixture.create("c", worker_job(unique_key="other"))
        assert (await fixture.job("b")).waiting_for == WaitingFor("previous_run_stopping")
        assert [j.job_id for j in await fixture.claim(most=3)] == ["c"]
        await fixture.refused("b", plans.plan_start(fixture.operation_id(), nonce="n", lease=LONG, worker="w"))
        track = plans.plan_track(track_job(unique_key="k"), fixture.operation_id(), nonce="n", lease=LONG)
        await fixture.do("b", plans.plan_cancel(fixture.operation_id()))
        await fixture.refused("d", track)
        await fixture.create("e", worker_job(unique_key="k"))
        await fixture.do("a", plans.plan_receipt(fixture.operation_id(), token, "killed", confirmed=True))
        assert [j.job_id for j in await fixture.claim(most=3)] == ["e"]

    async def test_scheduled_job_is_rescheduled_after_drain(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(unique_key="k"))
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        due = await fixture.store.now() + LONG
        await fixture.create("b", worker_job(unique_key="k", not_before=str(due)))
        assert (await fixture.claiming()).next_due is None
        await fixture.do("a", plans.plan_receipt(fixture.operation_id(), token, "killed", confirmed=True))
        assert (await fixture.claiming()).next_due == due

    async def test_failed_draining_run_delays_next_attempt(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        late = plans.plan_fail(
            fixture.operation_id(),
            token,
            error="too long",
            failure='{"kind":"timeout"}',
            report={},
            delay=0,
            stopping=True,
            why="timeout",
        )
        job = await fixture.made("a", late)
        assert (job.status.value, job.attempt) == ("pending", 1)
        assert job.receipt is not None
        assert (job.receipt.requested_by, job.receipt.reason, job.receipt.confirmed) == ("milepost", "timeout", None)
        assert await fixture.claim() == []
        await fixture.do("a", plans.plan_receipt(fixture.operation_id(), token, "killed", confirmed=True))
        assert [j.attempt for j in await fixture.claim()] == [2]

    async def test_released_draining_run_delays_job(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_release(fixture.operation_id(), token, {}, stopping=True))
        assert await fixture.claim() == []
        assert await fixture.store.renew([("a", token)], 0) == ["stopping"]
        await fixture.do("a", plans.plan_drain_timeout(fixture.operation_id(), token))
        assert [j.attempt for j in await fixture.claim()] == [1]

    @pytest.mark.parametrize("end", ["killed", "dropped_by_admin", "lease_expired"])
    async def test_second_cancel_has_own_receipt(self, fixture: StoreFixture, end: str) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a", lease=0))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id(), by="ana", why="first"))
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        job = await fixture.made("a", plans.plan_cancel(fixture.operation_id()))
        assert job.receipt is not None
        assert (job.receipt.requested_by, job.receipt.reason) == (None, None)
        assert (job.receipt.how, job.receipt.confirmed, job.receipt.stopped_at) == (None, None, None), (
            "its run continues"
        )
        if end == "lease_expired":
            job = await fixture.made("a", plans.plan_drain_timeout(fixture.operation_id(), token))
        else:
            job = await fixture.made(
                "a", plans.plan_receipt(fixture.operation_id(), token, end, confirmed=end == "killed")
            )
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed) == (end, end == "killed")
        assert await fixture.store.draining_leases() == []
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        job = await fixture.made("a", plans.plan_cancel(fixture.operation_id()))
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed) == ("never_started", True), "no run of it continues"

    async def test_released_draining_run_confirms_cancel(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_release(fixture.operation_id(), token, {}, stopping=True))
        job = await fixture.made("a", plans.plan_cancel(fixture.operation_id(), by="ana"))
        assert job.receipt is not None
        assert (job.receipt.requested_by, job.receipt.how, job.receipt.confirmed) == ("ana", None, None)
        job = await fixture.made("a", plans.plan_receipt(fixture.operation_id(), token, "cooperative", confirmed=True))
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed) == ("cooperative", True)

    @pytest.mark.parametrize("end", ["killed", "dropped_by_admin", "lease_expired"])
    async def test_reused_id_ignores_previous_run(self, fixture: StoreFixture, end: str) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a", lease=0))
        await fixture.do("a", plans.plan_delete(fixture.operation_id()))
        await fixture.create("a", worker_job())
        job = await fixture.made("a", plans.plan_cancel(fixture.operation_id()))
        assert job.receipt is not None
        assert (job.receipt.how, job.receipt.confirmed) == ("never_started", True)
        assert len(await fixture.store.draining_leases()) == 1
        if end == "lease_expired":
            job = await fixture.made("a", plans.plan_drain_timeout(fixture.operation_id(), token))
        else:
            job = await fixture.made(
                "a", plans.plan_receipt(fixture.operation_id(), token, end, confirmed=end == "killed")
            )
        assert job.receipt is not None
        assert job.receipt.how == "never_started"
        assert await fixture.store.draining_leases() == []

    async def test_old_run_cannot_confirm_newer_stop(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        old = token_of(await fixture.start("a", lease=0))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.do("a", plans.plan_drain_timeout(fixture.operation_id(), old))
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        new = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.refused("a", plans.plan_receipt(fixture.operation_id(), old, "cooperative", confirmed=True))
        await fixture.do("a", plans.plan_receipt(fixture.operation_id(), new, "cooperative", confirmed=True))

    async def test_draining_lease_keeps_slot(self, fixture: StoreFixture) -> None:
        for name in "abc":
            await fixture.create(name, worker_job())
        token = token_of((await fixture.claim({"q": 2}, 1))[0])
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        assert [j.job_id for j in await fixture.claim({"q": 2}, 2)] == ["b"]
        await fixture.do("a", plans.plan_receipt(fixture.operation_id(), token, "killed", confirmed=True))
        assert [j.job_id for j in await fixture.claim({"q": 2}, 2)] == ["c"]


class Leases(Scenarios):
    """Renewals and heartbeats."""

    async def test_renewal_changes_no_version(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        job = await fixture.start("a", lease=1000)
        await fixture.tick()
        assert await fixture.store.renew([("a", token_of(job))], LONG) == ["live"]
        after = await fixture.job("a")
        assert (after.version, after.updated_at) == (job.version, job.updated_at)
        assert len(await fixture.store.events("a")) == job.version
        now = await fixture.store.now()
        assert int(job.record["lease"]) < now + LONG - 1000
        assert now < int(after.record["lease"]) <= now + LONG
        assert {**after.record, "lease": ""} == {**job.record, "lease": ""}

    async def test_expired_lease_is_renewed_while_token_holds(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a", lease=0))
        await fixture.tick()
        assert await fixture.store.renew([("a", token)], LONG) == ["live"]
        await fixture.refused(
            "a",
            plans.plan_lease_expired(fixture.operation_id(), error="", failure="{}", crash_loop="{}", crashes_left=2),
        )
        await fixture.do("a", plans.plan_complete(fixture.operation_id(), token, None, {}))

    async def test_heartbeat_writes_and_renews(self, fixture: StoreFixture) -> None:
        for name in "abc":
            await fixture.create(name, worker_job())
        tokens = {name: token_of(await fixture.start(name, lease=1000)) for name in "abc"}
        await fixture.do("c", plans.plan_cancel(fixture.operation_id()))
        writes = [
            Write("a", plans.plan_report(fixture.operation_id(), tokens["a"], {"progress": "0.5"}), answer=False),
            Write("b", plans.plan_complete(fixture.operation_id(), tokens["b"], None, {})),
            Write("c", plans.plan_report(fixture.operation_id(), tokens["c"], {"progress": "0.5"})),
            Write("c", plans.plan_log(fixture.operation_id(), tokens["c"], '{"lines":[]}')),
        ]
        outcomes, answers = await fixture.store.heartbeat(writes, list(tokens.items()), LONG)
        assert [o.accepted for o in outcomes] == [True, True, False, True]
        assert [o.job.status.value if o.job is not None else None for o in outcomes] == [
            None, "completed", "cancelled", "cancelled",
        ]  # fmt: skip
        assert answers == ["live", "lost", "stopping"], "the writes come first"
        job = await fixture.job("a")
        assert job.progress == 0.5
        assert int(job.record["lease"]) > await fixture.store.now() + LONG // 2
        assert await fixture.store.heartbeat([], [], LONG) == ([], [])
        again, _ = await fixture.store.heartbeat(writes[:2], [], LONG)
        assert [(o.accepted, o.repeated) for o in again] == [(True, True)] * 2

    async def test_lease_check_does_not_renew(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        job = await fixture.start("a", lease=5_000)
        assert await fixture.store.renew([("a", token_of(job))], None) == ["live"]
        assert (await fixture.job("a")).record["lease"] == job.record["lease"]
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        before = await fixture.store.draining_leases()
        assert await fixture.store.renew([("a", token_of(job))], None) == ["stopping"]
        assert await fixture.store.draining_leases() == before

    async def test_each_lease_is_answered_separately(self, fixture: StoreFixture) -> None:
        tokens = {}
        for name in ("live", "stopping", "ended", "deleted", "retaken"):
            await fixture.create(name, worker_job())
            tokens[name] = token_of(await fixture.start(name, lease=0))
        await fixture.do("stopping", plans.plan_cancel(fixture.operation_id()))
        await fixture.do("ended", plans.plan_complete(fixture.operation_id(), tokens["ended"], None, {}))
        await fixture.do("deleted", plans.plan_delete(fixture.operation_id()))
        await fixture.do(
            "retaken",
            plans.plan_lease_expired(fixture.operation_id(), error="", failure="{}", crash_loop="{}", crashes_left=2),
        )
        await fixture.start("retaken")
        leases = [*tokens.items(), ("missing", "1:x"), ("live", "1:forged")]
        answer = await fixture.store.renew(leases, LONG)
        assert answer == ["live", "stopping", "lost", "stopping", "lost", "lost", "lost"]
        now = await fixture.store.now()
        assert all(now < expires <= now + LONG for _, _, expires in await fixture.store.draining_leases())
        assert await fixture.store.renew([], LONG) == []
