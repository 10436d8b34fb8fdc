"""Compare a store with the memory store: Hypothesis generates histories, and both stores must agree on each step.

Compared are answers, refusals, records, lists, counts, draining leases and events. Times are replaced by "past" or
"ahead", tokens by their nonces. The clock of the memory store follows that of the other one.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from milepost.core import transitions as plans
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.transitions.change import Change
from milepost.core.transitions.operations import match_branch
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import ApplyResult, Claim, Select, Store, SweepResult, Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.differential_strategies import (
    HOUR,
    IDS,
    ONWARDS,
    QUEUES,
    SELECTS,
    StoreUnderTest,
    job_ids,
    leases,
    new_jobs,
    plain_answer,
    queues_served,
    which_token,
    writes,
)  # fmt: skip
from milepost.testing.conformance.harness import (
    LONG,
    Factory,
    StoreFixture,
    caller_job,
    check_record,
    queue_job,
    track_job,
    worker_job,
)
from milepost.testing.conformance.lists import check_lists, position
from milepost.testing.conformance.retention import purge_slice
from milepost.testing.conformance.transition_matrix import CRASH, FAILURE, PLANS
from milepost.testing.fakes import FrozenClock

T = TypeVar("T")


class DifferentialMachine(RuleBasedStateMachine):
    """Generates histories. A subclass opens the store."""

    factory: Factory
    clock: FrozenClock | None
    blocking: bool

    def __init__(self) -> None:
        super().__init__()
        self.loop = None if self.blocking else asyncio.Runner()
        run: Callable[[Coroutine[Any, Any, Any]], Any] = run_sync if self.loop is None else self.loop.run
        opened = type(self).factory()
        store = run(_awaited(opened)) if inspect.isawaitable(opened) else opened
        self.hand = FrozenClock()
        self.subject = StoreUnderTest(store, run)
        self.model = StoreUnderTest(MemoryStore(clock=self.hand), run_sync)
        self.number = 0
        self.nonces: dict[str, list[str]] = {name: [] for name in IDS}
        self.done: list[tuple[str, Callable[[StoreUnderTest], Change]]] = []
        self.claims = 0
        self.last_claim: Callable[[StoreUnderTest], Claim] | None = None
        self.older_claims: list[Callable[[StoreUnderTest], Claim]] = []

    def teardown(self) -> None:
        try:
            self._drain()
            self.subject.run(check_lists(StoreFixture(self.subject.store), IDS))
            assert self._events_of(self.subject) == self._events_of(self.model)
        finally:
            self.subject.run(self.subject.store.close())
            if self.loop is not None:
                self.loop.close()

    # --- both stores ---

    def fresh(self) -> str:
        """Return a new text of eight characters: an operation id, or a nonce."""
        self.number += 1
        return f"x{self.number:07d}"

    def tick(self) -> tuple[int, int]:
        """Return the time of both stores; the memory store's clock follows the other's."""
        if self.clock is not None:
            self.clock.advance(0.000_002)
        now: int = self.subject.run(self.subject.store.now())
        self.hand.move_to(max(now, self.hand() + 1))
        return now, self.hand()

    def both(
        self, ask: Callable[[StoreUnderTest], Coroutine[Any, Any, T]], plain: Callable[[StoreUnderTest, T, int], object]
    ) -> None:
        """Call both stores and compare the answers."""
        self.tick()
        model: T = self.model.run(ask(self.model))
        subject: T = self.subject.run(ask(self.subject))
        now, hand = self.tick()
        assert plain(self.subject, subject, now) == plain(self.model, model, hand)

    def token(self, side: StoreUnderTest, job_id: str, which: str) -> str:
        """Return a token of a job in one store."""
        nonces = self.nonces[job_id]
        if which == "forged" or not nonces:
            return "1:forged"
        return side.tokens.get(nonces[-1] if which == "newest" else nonces[0], "1:forged")

    def builder(self, job_id: str, plan: str, which: str) -> Callable[[StoreUnderTest], Change]:
        """Return a builder of the same change for each store, with its own token."""
        operation_id, nonce = self.fresh(), self.fresh()
        tokens = {id(side): self.token(side, job_id, which) for side in (self.model, self.subject)}
        if "nonce-fresh" in PLANS[plan](operation_id, "").values:
            self.nonces[job_id].append(nonce)

        def build(side: StoreUnderTest) -> Change:
            change = PLANS[plan](operation_id, tokens[id(side)])
            return change._replace(values=tuple(nonce if value == "nonce-fresh" else value for value in change.values))

        return build

    def apply(
        self,
        changes: list[tuple[str, Callable[[StoreUnderTest], Change]]],
        claim: Callable[[StoreUnderTest], Claim] | None = None,
    ) -> None:
        """Apply in one round trip on both stores."""
        self.done += changes
        self.both(
            lambda side: side.store.apply(
                [Write(job_id, build(side)) for job_id, build in changes], claim(side) if claim is not None else None
            ),
            plain_answer,
        )
        if claim is not None:
            request = claim(self.model)
            _, operation_id, ids, _ = self.model.store._memory.claims.get(request.worker, (0, "", (), 0))  # type: ignore[attr-defined]
            if operation_id != request.operation_id or not ids:
                self.last_claim = None  # a store may or may not remember a claim without jobs

    # --- rules ---

    @initialize(fields=st.lists(new_jobs, min_size=3, max_size=5))
    def begin(self, fields: list[Mapping[str, Any]]) -> None:
        """Create some jobs first."""
        for job_id, new_job in zip(IDS, fields, strict=False):
            self.create(job_id, new_job)

    @rule(job_id=job_ids, new_job=new_jobs)
    def create(self, job_id: str, new_job: Mapping[str, Any]) -> None:
        """Create a manual, a worker or an external job."""
        operation_id = self.fresh()
        more = {"type": new_job["type"], "priority": new_job["priority"], **new_job["when"], **new_job["extra"]}
        more |= {name: new_job[name] for name in ("unique_key", "labels") if new_job[name]}
        make = {"worker": lambda **f: worker_job(new_job["queue"], **f), "manual": caller_job, "external": queue_job}
        fields = make[new_job["run_by"]](**more)
        self.apply([(job_id, lambda side: plans.plan_create(fields, operation_id))])

    @rule(job_id=job_ids, key=st.sampled_from(["", "k"]), lease=leases)
    def track(self, job_id: str, key: str, lease: int) -> None:
        """Create a tracked job."""
        operation_id, nonce = self.fresh(), self.fresh()
        self.nonces[job_id].append(nonce)
        fields = track_job(**({"unique_key": key} if key else {}))
        self.apply([(job_id, lambda side: plans.plan_track(fields, operation_id, nonce=nonce, lease=lease))])

    @rule(write=writes)
    def write(self, write: tuple[str, str, str]) -> None:
        """Apply one change of any kind, with a correct or a wrong token."""
        self.apply([(write[0], self.builder(*write))])

    @rule(moves=st.lists(st.tuples(job_ids, st.integers(0, 999), which_token), min_size=2, max_size=10))
    def onwards(self, moves: list[tuple[str, int, str]]) -> None:
        """Apply legal changes one after the other, so that jobs get far in their lifecycle."""
        memory = self.model.store._memory  # type: ignore[attr-defined]
        for job_id, choice, which in moves:
            self._compare_all()
            token, record = self.token(self.model, job_id, which), memory.records.get(job_id)
            possible = [plan for plan in ONWARDS if match_branch(PLANS[plan]("op", token), job_id, record, memory) >= 0]
            if possible:
                self.apply([(job_id, self.builder(job_id, possible[choice % len(possible)], which))])

    @rule(several=st.lists(writes, min_size=2, max_size=4), most=st.integers(0, 2))
    def batch(self, several: list[tuple[str, str, str]], most: int) -> None:
        """Apply several changes and a claim in one round trip."""
        changes = [(write[0], self.builder(*write)) for write in sorted(several, key=lambda w: w[0])]
        self.apply(changes, self.claiming("w1", dict.fromkeys(QUEUES), most, LONG) if most else None)

    @rule(back=st.integers(1, 6))
    def repeat(self, back: int) -> None:
        """Repeat a change, as after a lost reply."""
        if back <= len(self.done):
            self.apply([self.done[-back]])

    def claiming(
        self, worker: str, queues: dict[str, int | None], most: int, lease: int, job_id: str | None = None
    ) -> Callable[[StoreUnderTest], Claim]:
        """Return a builder of the same claim for each store; started jobs get one of its nonces."""
        operation_id, pairs = self.fresh(), [(self.fresh(), self.fresh()) for _ in range(most)]
        starts = tuple(plans.plan_start(o, nonce=n, lease=lease, worker=worker) for o, n in pairs)
        self.claims += 1
        number = self.claims
        claim = self.last_claim = lambda side: Claim(worker, queues, starts, operation_id, job_id, number)
        self.older_claims.append(claim)
        return claim

    @rule(
        worker=st.sampled_from(["w1", "w2"]),
        queues=queues_served,
        most=st.integers(1, 4),
        lease=leases,
        job_id=st.sampled_from([None, None, None, *IDS]),
    )
    def claim(self, worker: str, queues: dict[str, int | None], most: int, lease: int, job_id: str | None) -> None:
        """Claim jobs."""
        self.apply([], self.claiming(worker, queues, most, lease, job_id))

    @rule()
    def claim_again(self) -> None:
        """Repeat the last claim, as after a lost reply."""
        if self.last_claim is not None:
            self.apply([], self.last_claim)

    @rule(back=st.integers(2, 4))
    def claim_late(self, back: int) -> None:
        """Repeat an old claim, as after a duplicate delivery by the network."""
        newest = {claim(self.model).worker: claim for claim in self.older_claims}
        if back <= len(self.older_claims) and (late := self.older_claims[-back]) not in newest.values():
            self.apply([], late)

    @rule(micros=st.sampled_from([None, 0, LONG]))
    def renew(self, micros: int | None) -> None:
        """Renew every lease that ever existed."""
        self._compare_all()
        pairs = [(job_id, nonce) for job_id in IDS for nonce in self.nonces[job_id][-3:]]
        self.both(
            lambda side: side.store.renew([(j, side.tokens.get(n, f"1:{n}")) for j, n in pairs], micros),
            lambda side, answer, now: answer,
        )

    @rule(several=st.lists(writes, max_size=3), micros=st.sampled_from([0, LONG]))
    def heartbeat(self, several: list[tuple[str, str, str]], micros: int) -> None:
        """Send writes and renewals in one round trip."""
        self._compare_all()
        changes = [(write[0], self.builder(*write)) for write in sorted(several, key=lambda w: w[0])]
        pairs = [(job_id, nonce) for job_id in IDS for nonce in self.nonces[job_id][-2:]]
        self.done += changes
        self.both(
            lambda side: side.store.heartbeat(
                [Write(job_id, build(side)) for job_id, build in changes],
                [(j, side.tokens.get(n, f"1:{n}")) for j, n in pairs],
                micros,
            ),
            lambda side, answer, now: (plain_answer(side, ApplyResult(answer[0], [], None), now), answer[1]),
        )

    @rule(act=st.booleans(), limit=st.sampled_from([1, 3, 200]))
    def sweep(self, act: bool, limit: int) -> None:
        """Sweep and apply the changes that follow."""
        found: list[tuple[str, str, str]] = []

        def plain(side: StoreUnderTest, answer: SweepResult, now: int) -> object:
            due = [
                (d.kind, d.job_id, d.token.partition(":")[2], d.sibling_leases, side.plain(d.job, now))
                for d in answer.due
            ]
            found[:] = [(kind, job_id, nonce) for kind, job_id, nonce, *_ in due]
            whole = sorted(due, key=lambda d: d[:2]) if not answer.more else len(due)
            return whole, answer.more, answer.held, answer.skipped

        self.both(lambda side: side.store.sweep(lease=HOUR, interval=0.0, limit=limit), plain)
        for kind, job_id, nonce in found if act and limit == 200 else ():
            self.apply([(job_id, self._remedy(kind, nonce))])

    def _remedy(self, kind: str, nonce: str) -> Callable[[StoreUnderTest], Change]:
        operation_id = self.fresh()
        remedies: dict[str, Callable[[StoreUnderTest], Change]] = {
            "lease": lambda side: plans.plan_lease_expired(operation_id, crashes_left=2, **CRASH),
            "deadline": lambda side: plans.plan_expire(operation_id, **FAILURE),
            "stale": lambda side: plans.plan_mark_stale(operation_id, reason="no update", **FAILURE),
            "stopping": lambda side: plans.plan_drain_timeout(operation_id, side.tokens.get(nonce, f"1:{nonce}")),
        }
        return remedies[kind]

    @rule(limit=st.sampled_from([1, 100]))
    def purge(self, limit: int) -> None:
        """Purge ended jobs."""
        self.both(lambda side: purge_slice(side.store, limit), lambda side, answer, now: answer)

    @rule(
        queue=st.sampled_from(QUEUES),
        limit=st.sampled_from([None, 0, 1, 2]),
        paused=st.sampled_from([False, False, True]),
    )
    def set_limit(self, queue: str, limit: int | None, paused: bool) -> None:
        """Set or remove a limit or a pause."""

        async def sets(side: StoreUnderTest) -> object:
            await side.store.set_limit(queue, limit, paused)
            return await side.store.limits()

        self.both(sets, lambda side, answer, now: answer)

    @rule(select=st.sampled_from(SELECTS), limit=st.integers(1, 4), skip=st.integers(0, 3))
    def read(self, select: Select, limit: int, skip: int) -> None:
        """Read a page of a list, perhaps after a cursor, and its count."""

        async def page(side: StoreUnderTest) -> object:
            head = await side.store.select(select, skip) if skip else []
            jobs = await side.store.select(select, limit, position(head[-1]) if head else None)
            return [j.job_id for j in jobs], await side.store.count(select)

        self.both(page, lambda side, answer, now: answer)

    @rule(
        key=st.sampled_from(["a", "a:b", "b"]),
        value=st.sampled_from(["1", "2", None]),
        version=st.sampled_from(["any", "none", "last"]),
    )
    def put_value(self, key: str, value: str | None, version: str) -> None:
        """Set or delete a value."""

        async def puts(side: StoreUnderTest) -> object:
            if value is None:
                return await side.store.kv_delete(key)
            seen = {"any": None, "none": 0, "last": side.versions.get(key, 7)}[version]
            put = await side.store.kv_put(key, value, version=seen)
            if put is not None:
                side.versions[key] = put
            return put is not None, [(i.key, i.value) for i in await side.store.kv_scan("a")]

        self.both(puts, lambda side, answer, now: answer)

    # --- invariants ---

    @invariant()
    def agree(self) -> None:
        """Compare records, counts, lists and draining leases."""
        self._compare_all()

        async def whole(side: StoreUnderTest) -> object:
            jobs = await side.store.select(Select(), 99)
            stops = sorted((job_id, token.partition(":")[2]) for job_id, token, _ in await side.store.draining_leases())
            counted = [await side.store.count(select) for select in SELECTS]
            return [j.job_id for j in jobs], stops, counted, await side.store.counts()

        self.both(whole, lambda side, answer, now: answer)
        if self.number % 4 == 0:
            self.subject.run(check_lists(StoreFixture(self.subject.store), IDS))

    def _compare_all(self) -> None:
        async def observe(side: StoreUnderTest) -> list[tuple[Job | None, list[Any]]]:
            return [(await side.store.get(i), await side.store.events(i)) for i in IDS]

        def plain(side: StoreUnderTest, answer: list[tuple[Job | None, list[Any]]], now: int) -> object:
            for job, events in answer:
                if job is not None:
                    check_record(job.record)
                    token = job.record.get("token", "").partition(":")[2]
                    if token and token not in self.nonces[job.job_id]:
                        self.nonces[job.job_id].append(token)
                    assert [e.version for e in events] == sorted({e.version for e in events})
            return [(side.plain(job, now), [without_times(event) for event in events]) for job, events in answer]

        self.both(observe, plain)

    def _drain(self) -> None:
        """Claim what is left; the order must be the same."""
        for queue in QUEUES:
            self.both(lambda side, queue=queue: side.store.set_limit(queue, None, False), lambda *answer: None)  # type: ignore[misc]
        self.apply([], self.claiming("drain", dict.fromkeys(QUEUES), 9, LONG))

    def _events_of(self, side: StoreUnderTest) -> list[tuple[str, int, str]]:
        feed = side.run(side.store.feed("0", limit=100_000))
        return [(e.job_id, e.version, e.kind) for e in feed.events]


def without_times(event: Event) -> Event:
    """Return an event without the times that the store's clock gave it."""
    return replace(event, at=None, data={name: value for name, value in event.data.items() if name != "wake_at"})


async def _awaited(opened: Any) -> Store:
    store: Store = await opened
    return store
