"""Output: chunks beside the record, written under the token of the run."""

from __future__ import annotations

from milepost.core import transitions as plans
from milepost.core.output import OutputPosition, encode_chunk, output_prefix
from milepost.core.transitions.change import Change
from milepost.manager.output import read_output
from milepost.stores.retention import purge_older
from milepost.testing.conformance.harness import Scenarios, StoreFixture, token_of, worker_job
from milepost.testing.conformance.transition_matrix import CRASH

START = OutputPosition()


def key(number: int, job_id: str = "a") -> str:
    """Return the key of a chunk of a run."""
    return OutputPosition(1, number).key(job_id)


def written(
    fixture: StoreFixture, token: str, number: int, text: str, erased: tuple[str, ...] = (), silent: bool = False
) -> Change:
    """Return the change that writes a chunk."""
    chunk = encode_chunk(1, 0, 10 * number, text)
    return plans.plan_output(
        fixture.operation_id(), token, key=key(number), chunk=chunk, added=len(text), erased=erased, silent=silent
    )


async def texts(fixture: StoreFixture, after: OutputPosition = START, limit: int = 100) -> list[str]:
    """Return the texts of the output of the job after a position."""
    return [chunk.text for chunk in await read_output(fixture.store, "a", after, limit)]


class Output(Scenarios):
    """Chunks are in order, fenced, bounded, and go with the job."""

    async def test_chunks_are_read_in_order_after_any_position(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.create("ab", worker_job())
        token = token_of(await fixture.start("a"))
        for number in range(12):
            await fixture.do("a", written(fixture, token, number, f"<{number}>", silent=number % 2 == 0))
        await fixture.do("a", written(fixture, token, 11, "<11>more"))
        chunks = await read_output(fixture.store, "a", START, 100)
        assert [chunk.text for chunk in chunks] == [*(f"<{n}>" for n in range(11)), "<11>more"]
        assert [chunk.starts_over for chunk in chunks] == [True] + [False] * 11
        assert await texts(fixture, OutputPosition(1, 9, 1)) == ["9>", "<10>", "<11>more"]
        assert await texts(fixture, OutputPosition(1, 11, 4)) == ["more"]
        assert await texts(fixture, OutputPosition.parse(chunks[2].position), 2) == ["<3>", "<4>"]
        assert await texts(fixture, OutputPosition.parse(chunks[-1].position)) == []
        assert await read_output(fixture.store, "ab", START, 100) == []

    async def test_only_last_chunk_of_request_is_event(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        job = await fixture.start("a")
        before = (await fixture.store.feed(None)).position
        await fixture.do("a", written(fixture, token_of(job), 0, "one", silent=True))
        await fixture.do("a", written(fixture, token_of(job), 1, "two"))
        news = (await fixture.store.feed(before)).events
        assert [(event.kind, event.version) for event in news] == [("output", job.version + 1)]
        assert dict(news[0].data) == {}
        stored = await fixture.store.get("a")
        assert stored is not None
        assert stored.output_bytes == 6
        assert all(event.kind != "output" for event in await fixture.store.events("a"))

    async def test_output_of_lost_run_is_refused(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        lost = token_of(await fixture.start("a", lease=0))
        await fixture.do("a", written(fixture, lost, 0, "kept"))
        await fixture.do("a", plans.plan_lease_expired(fixture.operation_id(), crashes_left=2, **CRASH))
        await fixture.refused("a", written(fixture, lost, 1, "late"))
        token = token_of(await fixture.start("a"))
        await fixture.refused("a", written(fixture, lost, 2, "late", erased=(key(0),)))
        await fixture.do("a", written(fixture, token, 3, "next"))
        assert await texts(fixture) == ["kept", "next"]

    async def test_stopping_run_may_still_write(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id(), by="ana"))
        await fixture.do("a", written(fixture, token, 0, "last words"))
        await fixture.do("a", plans.plan_receipt(fixture.operation_id(), token, "cooperative", confirmed=True))
        await fixture.refused("a", written(fixture, token, 1, "after the receipt"))
        assert await texts(fixture) == ["last words"]

    async def test_repeated_write_changes_nothing(self, fixture: StoreFixture) -> None:
        """A late duplicate neither restores what a chunk was before it grew nor a chunk that left the ring."""
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        first, grown = written(fixture, token, 0, "a"), written(fixture, token, 0, "ab")
        last = written(fixture, token, 1, "c", erased=(key(0),))
        for change in (first, grown, first, grown):
            await fixture.attempt("a", change)
        assert await texts(fixture) == ["ab"]
        for change in (last, first, grown, last):
            await fixture.attempt("a", change)
        assert await texts(fixture) == ["c"]
        job = await fixture.store.get("a")
        assert job is not None
        assert job.output_bytes == 4

    async def test_displaced_chunks_are_deleted(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        for number in range(4):
            await fixture.do("a", written(fixture, token, number, str(number)))
        await fixture.do("a", written(fixture, token, 4, "4", erased=(key(0), key(1), key(9))))
        assert await texts(fixture) == ["2", "3", "4"]

    async def test_output_is_removed_with_job(self, fixture: StoreFixture) -> None:
        for job_id in ("a", "b"):
            await fixture.create(job_id, worker_job())
            token = token_of(await fixture.start(job_id))
            chunk = encode_chunk(1, 0, 0, "text")
            plan = plans.plan_output(fixture.operation_id(), token, key=key(0, job_id), chunk=chunk, added=4)
            await fixture.do(job_id, plan)
        await fixture.do("a", plans.plan_delete(fixture.operation_id()))
        assert await fixture.store.kv_scan(output_prefix("a")) == []
        assert len(await fixture.store.kv_scan(output_prefix("b"))) == 1
        await fixture.do("b", plans.plan_complete(fixture.operation_id(), token, None, {}))
        await fixture.tick()
        assert await purge_older(fixture.store, ttl=0) == 1
        assert await fixture.store.kv_scan(output_prefix("b")) == []
