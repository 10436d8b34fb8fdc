"""Any store beside the memory store: Hypothesis makes up histories, both are given the same, and must agree (I25).

Compared after every step: answers, refusals, records, lists, counts, stopping leases, events. What the two may differ in
is taken out first: times become "past" or "ahead", a token its nonce. The memory store's clock follows the other's.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from milepost.core import lifecycle as plans
from milepost.core.change import Change, fit
from milepost.core.job import Job
from milepost.stores.driving import drive
from milepost.stores.memory import MemoryStore
from milepost.stores.protocol import Applied, Claim, Pass, Select, Store, Write
from milepost.testing.clock import FrozenClock
from milepost.testing.conformance.cells import CRASH, FAILURE, PLANS
from milepost.testing.conformance.harness import (
    LONG,
    Factory,
    World,
    caller_job,
    engine_job,
    track_job,
    worker_job,
)
from milepost.testing.conformance.invariants import check_record
from milepost.testing.conformance.lists import check_lists, position
from milepost.testing.conformance.sides import (
    HOUR,
    IDS,
    ONWARDS,
    QUEUES,
    SELECTS,
    Side,
    births,
    job_ids,
    leases,
    plain_answer,
    queues_served,
    which_token,
    writes,
)  # fmt: skip

T = TypeVar("T")


class Beside(RuleBasedStateMachine):
    """The histories. A subclass says how the store is opened."""

    factory: Factory
    clock: FrozenClock | None
    blocking: bool

    def __init__(self) -> None:
        super().__init__()
        self.loop = None if self.blocking else asyncio.Runner()
        run: Callable[[Coroutine[Any, Any, Any]], Any] = drive if self.loop is None else self.loop.run
        opened = type(self).factory()
        store = run(_awaited(opened)) if inspect.isawaitable(opened) else opened
        self.hand = FrozenClock()
        self.subject = Side(store, run)
        self.model = Side(MemoryStore(clock=self.hand), drive)
        self.number = 0
        self.nonces: dict[str, list[str]] = {name: [] for name in IDS}
        self.done: list[tuple[str, Callable[[Side], Change]]] = []
        self.last_claim: Callable[[Side], Claim] | None = None

    def teardown(self) -> None:
        try:
            self._drain()
            self.subject.run(check_lists(World(self.subject.store), IDS))
            assert self._told(self.subject) == self._told(self.model)
        finally:
            self.subject.run(self.subject.store.close())
            if self.loop is not None:
                self.loop.close()

    # --- doing the same on both sides ---

    def fresh(self) -> str:
        """A fresh text of eight characters: an operation id, or a nonce."""
        self.number += 1
        return f"x{self.number:07d}"

    def tick(self) -> tuple[int, int]:
        """The time on both sides: the memory store's clock follows the other's."""
        if self.clock is not None:
            self.clock.advance(0.000_002)
        now: int = self.subject.run(self.subject.store.now())
        self.hand.move_to(max(now, self.hand() + 1))
        return now, self.hand()

    def both(self, ask: Callable[[Side], Coroutine[Any, Any, T]], plain: Callable[[Side, T, int], object]) -> None:
        """Ask both, and hold the answers against each other."""
        self.tick()
        model: T = self.model.run(ask(self.model))
        subject: T = self.subject.run(ask(self.subject))
        now, hand = self.tick()
        assert plain(self.subject, subject, now) == plain(self.model, model, hand)

    def token(self, side: Side, job_id: str, which: str) -> str:
        """A token of a job on one side."""
        nonces = self.nonces[job_id]
        if which == "forged" or not nonces:
            return "1:forged"
        return side.tokens.get(nonces[-1] if which == "newest" else nonces[0], "1:forged")

    def builder(self, job_id: str, plan: str, which: str) -> Callable[[Side], Change]:
        """The same change for each side, with its own token."""
        op, nonce = self.fresh(), self.fresh()
        tokens = {id(side): self.token(side, job_id, which) for side in (self.model, self.subject)}
        if "nonce-fresh" in PLANS[plan](op, "").values:
            self.nonces[job_id].append(nonce)

        def build(side: Side) -> Change:
            change = PLANS[plan](op, tokens[id(side)])
            return change._replace(values=tuple(nonce if value == "nonce-fresh" else value for value in change.values))

        return build

    def apply(
        self, changes: list[tuple[str, Callable[[Side], Change]]], claim: Callable[[Side], Claim] | None = None
    ) -> None:
        """One round trip on both sides."""
        self.done += changes
        self.both(
            lambda side: side.store.apply(
                [Write(job_id, build(side)) for job_id, build in changes], claim(side) if claim is not None else None
            ),
            plain_answer,
        )
        if claim is not None:
            wish = claim(self.model)
            op, ids, _ = self.model.store._memory.claims.get(wish.worker, ("", (), 0))  # type: ignore[attr-defined]
            if op != wish.op or not ids:
                self.last_claim = None  # whether a claim that found nothing is kept is left to the store

    # --- histories ---

    @initialize(fields=st.lists(births, min_size=3, max_size=5))
    def begin(self, fields: list[Mapping[str, Any]]) -> None:
        """Some jobs to begin with."""
        for job_id, birth in zip(IDS, fields, strict=False):
            self.create(job_id, birth)

    @rule(job_id=job_ids, birth=births)
    def create(self, job_id: str, birth: Mapping[str, Any]) -> None:
        """A job of a caller, of workers or of an engine."""
        op = self.fresh()
        more = {"type": birth["type"], "priority": birth["priority"], **birth["when"], **birth["extra"]}
        more |= {name: birth[name] for name in ("unique_key", "labels") if birth[name]}
        make = {"worker": lambda **f: worker_job(birth["queue"], **f), "caller": caller_job, "engine": engine_job}
        fields = make[birth["driver"]](**more)
        self.apply([(job_id, lambda side: plans.plan_create(fields, op))])

    @rule(job_id=job_ids, key=st.sampled_from(["", "k"]), lease=leases)
    def track(self, job_id: str, key: str, lease: int) -> None:
        """A job around code."""
        op, nonce = self.fresh(), self.fresh()
        self.nonces[job_id].append(nonce)
        fields = track_job(**({"unique_key": key} if key else {}))
        self.apply([(job_id, lambda side: plans.plan_track(fields, op, nonce=nonce, lease=lease))])

    @rule(write=writes)
    def write(self, write: tuple[str, str, str]) -> None:
        """One change of any kind, with a right or a wrong token."""
        self.apply([(write[0], self.builder(*write))])

    @rule(moves=st.lists(st.tuples(job_ids, st.integers(0, 999), which_token), min_size=2, max_size=10))
    def onwards(self, moves: list[tuple[str, int, str]]) -> None:
        """Changes that the lifecycle accepts just now, one after another, so that histories come far."""
        memory = self.model.store._memory  # type: ignore[attr-defined]
        for job_id, choice, which in moves:
            self._look()
            token, record = self.token(self.model, job_id, which), memory.records.get(job_id)
            possible = [plan for plan in ONWARDS if fit(PLANS[plan]("op", token), job_id, record, memory) >= 0]
            if possible:
                self.apply([(job_id, self.builder(job_id, possible[choice % len(possible)], which))])

    @rule(several=st.lists(writes, min_size=2, max_size=4), most=st.integers(0, 2))
    def batch(self, several: list[tuple[str, str, str]], most: int) -> None:
        """Several changes, then a claim, in one round trip."""
        changes = [(write[0], self.builder(*write)) for write in sorted(several, key=lambda w: w[0])]
        self.apply(changes, self.claiming("w1", dict.fromkeys(QUEUES), most, LONG) if most else None)

    @rule(back=st.integers(1, 6))
    def repeat(self, back: int) -> None:
        """A change again, because its reply was lost."""
        if back <= len(self.done):
            self.apply([self.done[-back]])

    def claiming(
        self, worker: str, queues: dict[str, int | None], most: int, lease: int, job_id: str | None = None
    ) -> Callable[[Side], Claim]:
        """The same claim for each side; whatever it takes has one of its nonces."""
        op, pairs = self.fresh(), [(self.fresh(), self.fresh()) for _ in range(most)]
        starts = tuple(plans.plan_start(o, nonce=n, lease=lease, worker=worker) for o, n in pairs)
        self.last_claim = lambda side: Claim(worker, queues, starts, op, job_id)
        return self.last_claim

    @rule(
        worker=st.sampled_from(["w1", "w2"]),
        queues=queues_served,
        most=st.integers(1, 4),
        lease=leases,
        job_id=st.sampled_from([None, None, None, *IDS]),
    )
    def claim(self, worker: str, queues: dict[str, int | None], most: int, lease: int, job_id: str | None) -> None:
        """A worker asks for jobs."""
        self.apply([], self.claiming(worker, queues, most, lease, job_id))

    @rule()
    def claim_again(self) -> None:
        """The last claim again, because its reply was lost."""
        if self.last_claim is not None:
            self.apply([], self.last_claim)

    @rule(micros=st.sampled_from([None, 0, LONG]))
    def renew(self, micros: int | None) -> None:
        """A pulse over every lease that ever was."""
        self._look()
        pairs = [(job_id, nonce) for job_id in IDS for nonce in self.nonces[job_id][-3:]]
        self.both(
            lambda side: side.store.renew([(j, side.tokens.get(n, f"1:{n}")) for j, n in pairs], micros),
            lambda side, answer, now: answer,
        )

    @rule(several=st.lists(writes, max_size=3), micros=st.sampled_from([0, LONG]))
    def beat(self, several: list[tuple[str, str, str]], micros: int) -> None:
        """What a pulse sends: writes and renewals in one round trip."""
        self._look()
        changes = [(write[0], self.builder(*write)) for write in sorted(several, key=lambda w: w[0])]
        pairs = [(job_id, nonce) for job_id in IDS for nonce in self.nonces[job_id][-2:]]
        self.done += changes
        self.both(
            lambda side: side.store.beat(
                [Write(job_id, build(side)) for job_id, build in changes],
                [(j, side.tokens.get(n, f"1:{n}")) for j, n in pairs],
                micros,
            ),
            lambda side, answer, now: (plain_answer(side, Applied(answer[0], [], None), now), answer[1]),
        )

    @rule(act=st.booleans(), limit=st.sampled_from([1, 3, 200]))
    def sweep(self, act: bool, limit: int) -> None:
        """A sweep, and what follows from it."""
        found: list[tuple[str, str, str]] = []

        def plain(side: Side, answer: Pass, now: int) -> object:
            due = [(d.kind, d.job_id, d.token.partition(":")[2], d.company, side.plain(d.job, now)) for d in answer.due]
            found[:] = [(kind, job_id, nonce) for kind, job_id, nonce, *_ in due]
            whole = sorted(due, key=lambda d: d[:2]) if not answer.more else len(due)
            return whole, answer.more, answer.held, answer.skipped

        self.both(lambda side: side.store.sweep(lease=HOUR, interval=0.0, limit=limit), plain)
        for kind, job_id, nonce in found if act and limit == 200 else ():
            self.apply([(job_id, self._remedy(kind, nonce))])

    def _remedy(self, kind: str, nonce: str) -> Callable[[Side], Change]:
        op = self.fresh()
        remedies: dict[str, Callable[[Side], Change]] = {
            "lease": lambda side: plans.plan_lost(op, crashes_left=2, **CRASH),
            "deadline": lambda side: plans.plan_expire(op, **FAILURE),
            "stale": lambda side: plans.plan_quiet(op, reason="no update", **FAILURE),
            "stopping": lambda side: plans.plan_run_out(op, side.tokens.get(nonce, f"1:{nonce}")),
        }
        return remedies[kind]

    @rule(limit=st.sampled_from([1, 100]))
    def purge(self, limit: int) -> None:
        """Retention."""
        self.both(lambda side: side.store.purge(ttl=0, limit=limit), lambda side, answer, now: answer)

    @rule(
        queue=st.sampled_from(QUEUES),
        limit=st.sampled_from([None, 0, 1, 2]),
        paused=st.sampled_from([False, False, True]),
    )
    def set_limit(self, queue: str, limit: int | None, paused: bool) -> None:
        """A limit or a pause, or neither."""

        async def sets(side: Side) -> object:
            await side.store.set_limit(queue, limit, paused)
            return await side.store.limits()

        self.both(sets, lambda side, answer, now: answer)

    @rule(select=st.sampled_from(SELECTS), limit=st.integers(1, 4), skip=st.integers(0, 3))
    def read(self, select: Select, limit: int, skip: int) -> None:
        """A page of a list, perhaps after a cursor; and how many there are."""

        async def page(side: Side) -> object:
            head = await side.store.select(select, skip) if skip else []
            jobs = await side.store.select(select, limit, position(head[-1]) if head else None)
            return [j.job_id for j in jobs], await side.store.count(select)

        self.both(page, lambda side, answer, now: answer)

    @rule(
        key=st.sampled_from(["a", "a:b", "b"]),
        value=st.sampled_from(["1", "2", None]),
        version=st.sampled_from(["any", "none", "last"]),
    )
    def shelf(self, key: str, value: str | None, version: str) -> None:
        """A value is put or taken away."""

        async def puts(side: Side) -> object:
            if value is None:
                return await side.store.shelf_delete(key)
            seen = {"any": None, "none": 0, "last": side.versions.get(key, 7)}[version]
            put = await side.store.shelf_put(key, value, version=seen)
            if put is not None:
                side.versions[key] = put
            return put is not None, [(i.key, i.value) for i in await side.store.shelf_scan("a")]

        self.both(puts, lambda side, answer, now: answer)

    # --- what must agree after every step ---

    @invariant()
    def agree(self) -> None:
        """Records, counts, lists and stopping leases."""
        self._look()

        async def whole(side: Side) -> object:
            jobs = await side.store.select(Select(), 99)
            stops = sorted((job_id, token.partition(":")[2]) for job_id, token, _ in await side.store.stoppings())
            counted = [await side.store.count(select) for select in SELECTS]
            return [j.job_id for j in jobs], stops, counted, await side.store.counts()

        self.both(whole, lambda side, answer, now: answer)
        if self.number % 4 == 0:
            self.subject.run(check_lists(World(self.subject.store), IDS))

    def _look(self) -> None:
        async def looks(side: Side) -> list[tuple[Job | None, list[Any]]]:
            return [(await side.store.get(i), await side.store.events(i)) for i in IDS]

        def plain(side: Side, answer: list[tuple[Job | None, list[Any]]], now: int) -> object:
            for job, events in answer:
                if job is not None:
                    check_record(job.record)
                    token = job.record.get("token", "").partition(":")[2]
                    if token and token not in self.nonces[job.job_id]:
                        self.nonces[job.job_id].append(token)
                    assert [e.version for e in events] == sorted({e.version for e in events})
            return [(side.plain(job, now), [replace(e, at=None) for e in events]) for job, events in answer]

        self.both(looks, plain)

    def _drain(self) -> None:
        """What is left in the queues comes in the same order."""
        for queue in QUEUES:
            self.both(lambda side, queue=queue: side.store.set_limit(queue, None, False), lambda *answer: None)  # type: ignore[misc]
        self.apply([], self.claiming("drain", dict.fromkeys(QUEUES), 9, LONG))

    def _told(self, side: Side) -> list[tuple[str, int, str]]:
        feed = side.run(side.store.feed("0", limit=100_000))
        return [(e.job_id, e.version, e.kind) for e in feed.events]


async def _awaited(opened: Any) -> Store:
    store: Store = await opened
    return store
