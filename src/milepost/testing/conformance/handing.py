"""How a pending job comes to an engine: handed over by one, when it may start; noted as handed over, or as out of reach."""

from __future__ import annotations

from milepost.core import lifecycle as plans
from milepost.testing.conformance.harness import LONG, Scenarios, World, caller_job, engine_job, token_of

FAR = 3_600_000_000


async def deliver(world: World, job_id: str, lease: int = LONG) -> str:
    """Let a message of the engine start a job; the token of its run."""
    plan = plans.plan_deliver(world.op(), nonce=world.nonce(), lease=lease, worker="w1")
    return token_of(await world.made(job_id, plan))


class Handing(Scenarios):
    """Jobs whose driver is an engine, while they wait."""

    async def test_a_job_that_is_due_is_handed_over_by_one(self, world: World) -> None:
        await world.create("due", engine_job(hand_over="0"))
        await world.tick()
        taken = await world.made("due", plans.plan_hand_over(world.op(), FAR))
        assert int(taken.record["stale"]) > await world.store.now(), "and by nobody else in the meantime"
        await world.refused("due", plans.plan_hand_over(world.op(), FAR))

    async def test_one_that_its_submitter_is_handing_over_is_left_to_it_for_a_while(self, world: World) -> None:
        fields = engine_job(hand_over="0")
        await world.made("fresh", plans.plan_create(fields, world.op(), FAR))
        await world.tick()
        await world.refused("fresh", plans.plan_hand_over(world.op(), FAR))
        await world.made("left", plans.plan_create(fields, world.op(), 1))
        await world.tick()
        await world.made("left", plans.plan_hand_over(world.op(), FAR))

    async def test_one_that_may_not_start_yet_is_looked_at_when_it_may(self, world: World) -> None:
        await world.create("later", engine_job(hand_over="0"))
        token = await deliver(world, "later")
        await world.do(
            "later", plans.plan_fail(world.op(), token, error="no", failure='{"kind":"error"}', report={}, delay=FAR)
        )
        await world.tick()
        job = await world.made("later", plans.plan_hand_over(world.op(), 1))
        assert job.record["stale"] == job.record["not_before"]

    async def test_one_whose_last_run_still_stops_is_not_handed_over(self, world: World) -> None:
        await world.create("blocked", engine_job(hand_over="0"))
        token = await deliver(world, "blocked")
        await world.do("blocked", plans.plan_cancel(world.op()))
        await world.do("blocked", plans.plan_retry(world.op()))
        await world.tick()
        await world.attempt("blocked", plans.plan_hand_over(world.op(), FAR))
        assert int((await world.job("blocked")).record["stale"]) <= await world.store.now()
        await world.do("blocked", plans.plan_receipt(world.op(), token, "cooperative", confirmed=True))
        job = await world.made("blocked", plans.plan_hand_over(world.op(), FAR))
        assert int(job.record["stale"]) > await world.store.now()

    async def test_nor_one_that_might_have_started_long_ago(self, world: World) -> None:
        await world.create("again", engine_job(hand_over="0"))
        await deliver(world, "again")
        await world.do("again", plans.plan_delete(world.op()))
        await world.create("again", engine_job(hand_over="0", not_before="1"))
        await world.refused("again", plans.plan_hand_over(world.op(), FAR))

    async def test_what_no_engine_drives_is_not_handed_over(self, world: World) -> None:
        for name, fields in {"now": {}, "before": {"not_before": "1"}}.items():
            await world.create(name, caller_job(hand_over="0", **fields))
            await world.tick()
            await world.refused(name, plans.plan_hand_over(world.op(), FAR))

    async def test_only_the_message_that_was_sent_is_noted(self, world: World) -> None:
        """Between the sending and the note the job may have run, and wait for its next attempt."""
        sent = await world.create("fast", engine_job(hand_over="0"))
        token = await deliver(world, "fast")
        failed = plans.plan_fail(world.op(), token, error="no", failure='{"kind":"error"}', report={}, delay=0)
        job = await world.made("fast", failed)
        await world.refused("fast", plans.plan_handed(world.op(), FAR, sent.version))
        noted = await world.made("fast", plans.plan_handed(world.op(), FAR, job.version))
        assert int(noted.record["stale"]) > await world.store.now()

    async def test_a_reason_is_told_once(self, world: World) -> None:
        await world.create("out_of_reach", engine_job(hand_over="0"))
        first = await world.made("out_of_reach", plans.plan_stranded(world.op(), 1, "no broker"))
        again = await world.made("out_of_reach", plans.plan_stranded(world.op(), 1, "no broker"))
        other = await world.made("out_of_reach", plans.plan_stranded(world.op(), 1, "no queue"))
        assert (first.stalled, again.version, other.version) == ("no broker", first.version, first.version + 1)
        noted = await world.made("out_of_reach", plans.plan_handed(world.op(), FAR))
        assert noted.stalled is None
