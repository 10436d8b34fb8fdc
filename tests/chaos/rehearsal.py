"""A soak in one thread: clients, workers, zombies and a sweeper on a store in memory, interleaved by a seed alone.

What a worker process of a soak does is done here by hand, with the same plans, so that it can be wrong on purpose: a
guard of the lifecycle is taken away, and the checker has to notice. The clock stands still but for what it is told.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from milepost.core import lifecycle as plans
from milepost.core.change import Change, Shape
from milepost.core.encoding import to_json
from milepost.core.job import Job
from milepost.manager.requests import submit_fields
from milepost.settings import Settings
from milepost.stores.driving import drive
from milepost.stores.memory import MemoryStore
from milepost.stores.protocol import Applied, Claim, Outcome, Write
from milepost.testing import FrozenClock
from milepost.tracking.sweeper import Sweeper
from tests.chaos.history import History, look
from tests.chaos.ledger import Line

LEASE = 0.5
LIMIT = 2


class Unguarded(MemoryStore):
    """A memory store to which one guard of one shape means nothing; "status" lets its first case start from any status."""

    def __init__(self, clock: FrozenClock, shape: str, guard: str) -> None:
        super().__init__(blocking=True, clock=clock)
        self._removed = (shape, guard)
        self._bare: dict[Shape, Shape] = {}

    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> Applied:
        writes = [write._replace(change=self._without(write.change)) for write in writes]
        if claim is not None:
            claim = replace(claim, starts=tuple(map(self._without, claim.starts)))
        return await super().apply(writes, claim)

    def _without(self, change: Change) -> Change:
        name, removed = self._removed
        if change.shape.name != name:
            return change
        if change.shape not in self._bare:
            cases = tuple(
                replace(
                    case,
                    statuses=plans.ANY if removed == "status" else case.statuses,
                    guards=tuple(guard for guard in case.guards if guard[0] != removed),
                )
                for case in change.shape.cases
            )
            self._bare[change.shape] = replace(change.shape, cases=cases)
        return change._replace(shape=self._bare[change.shape])


@dataclass
class Running:
    """A run in the hands of a worker."""

    job: Job
    token: str
    n: int = 0

    @property
    def fence(self) -> int:
        """Its fence."""
        return int(self.token.partition(":")[0])


class Rehearsal:
    """`Rehearsal(seed).run(steps)`; `removed` is a shape and a guard to do without."""

    def __init__(self, seed: int, removed: tuple[str, str] = ("", "")) -> None:
        self.rng = random.Random(seed)
        self.clock = FrozenClock()
        self.store = Unguarded(self.clock, *removed)
        settings = Settings(lease=LEASE, sweep=LEASE / 4, pulse=LEASE / 10)
        self.sweeper = Sweeper(self.store, settings, 1e9)
        self.runs: list[Line] = []
        self.calls: list[Line] = []
        self.workers: dict[str, list[Running]] = {f"host:{n}:x:1": [] for n in (1, 2, 3)}
        self.awake = dict.fromkeys(self.workers, True)
        self.known: list[str] = []
        self._op = 0

    def run(self, steps: int) -> History:
        """Do so many random things, then let everything come to its end."""
        acts: list[tuple[int, Callable[[], None]]] = [
            (3, self.submit), (5, self.claim), (10, self.step), (3, self.finish), (3, self.fail), (3, self.release),
            (4, self.cancel), (1, self.delete), (4, self.retry), (4, self.beat), (4, self.sweep), (2, self.sleep),
            (1, self.forget), (3, self.freeze), (2, self.report), (3, self.start), (1, self.hurry),
        ]  # fmt: skip
        for act in self.rng.choices([act for _, act in acts], [weight for weight, _ in acts], k=steps):
            act()
            self.clock.advance(0.001)
        self.end()
        feed = drive(self.store.feed("0", limit=1_000_000)).events
        return look(History(self.runs, self.calls, feed, limits={"limited": LIMIT}), self.store)

    def end(self) -> None:
        """No more faults: everything runs to its end, under renewed leases."""
        self.awake = dict.fromkeys(self.workers, True)
        for _ in range(400):
            self.clock.advance(LEASE / 8)
            self.sweep()
            self.beat()
            for worker in self.workers:
                self.claim(worker)
                self.beat()
                for held in tuple(self.workers[worker]):
                    self.finish(worker, held)

    # --- clients ---

    def submit(self) -> None:
        """Submit a job, or one whose id was deleted once more."""
        job_id = f"job-{len(self.known)}"
        kind = self.rng.choice(["plain", "limited"])
        note: Line = {"type": kind}
        options: dict[str, Any] = {"max_attempts": 3}
        fate = self.rng.choice(["", "", "late", "early", "key", "key"])
        if fate == "late":
            note["not_before"] = options["not_before"] = self.clock() + self.rng.randrange(2_000_000)
        elif fate == "early":
            note["not_after"] = options["not_after"] = self.clock() + self.rng.randrange(500_000)
        elif fate == "key":
            options["unique_key"] = note["key"] = f"key-{self.rng.randrange(2)}"
        fields = submit_fields(kind, params={}, max_attempts=3, unique_key=options.get("unique_key"))
        fields |= {name: str(options[name]) for name in ("not_before", "not_after") if name in options}
        self.known.append(job_id)
        self.call("submit", job_id, plans.plan_create(fields, self.op()), **note)

    def cancel(self) -> None:
        """Cancel some job."""
        if self.known:
            self.call("cancel", self.some_job(), plans.plan_cancel(self.op()))

    def delete(self) -> None:
        """Delete some job."""
        if self.known:
            self.call("delete", self.some_job(), plans.plan_delete(self.op()))

    def retry(self) -> None:
        """Retry some job."""
        if self.known:
            self.call("retry", self.some_job(), plans.plan_retry(self.op()))

    def call(self, do: str, job_id: str, change: Change, **note: Any) -> None:
        """A client's call, with what it was answered."""
        self.calls.append({"do": do, "job": job_id, "phase": "asked", "at": self.clock(), **note})
        accepted = self.write(job_id, change).accepted
        self.calls.append(
            {"do": do, "job": job_id, "phase": "done" if accepted else "refused", "at": self.clock(), **note}
        )

    # --- workers ---

    def claim(self, worker: str | None = None) -> None:
        """A worker claims up to two jobs and begins them."""
        worker = worker or self.someone()
        if worker is None or len(self.workers[worker]) >= 4:
            return
        micros = int(LEASE * 1e6)
        starts = tuple(plans.plan_start(self.op(), nonce=self.op(), lease=micros, worker=worker) for _ in range(2))
        claim = Claim(worker, {"plain": None, "limited": LIMIT}, starts, self.op())
        for job in drive(self.store.apply([], claim)).claimed:
            self.begin(worker, job)

    def start(self) -> None:
        """A worker starts a job by its id, without asking whether it may: the guards alone are in the way."""
        if self.known:
            self.start_one(self.some_job())

    def hurry(self) -> None:
        """A run is cancelled and its job retried and started while its code goes on."""
        if found := self.some_run():
            job_id = found[1].job.job_id
            self.call("cancel", job_id, plans.plan_cancel(self.op()))
            self.call("retry", job_id, plans.plan_retry(self.op()))
            self.start_one(job_id)

    def start_one(self, job_id: str) -> None:
        """A worker starts that job; the limit of a type is kept by the claim, not by a guard."""
        worker = self.someone()
        if worker is None or self.kind_of(job_id) == "limited":
            return
        plan = plans.plan_start(self.op(), nonce=self.op(), lease=int(LEASE * 1e6), worker=worker)
        outcome = self.write(job_id, plan)
        if outcome.accepted and outcome.job is not None:
            self.begin(worker, outcome.job)

    def kind_of(self, job_id: str) -> str:
        """The type of a job."""
        return next(line["type"] for line in self.calls if line["job"] == job_id and line["do"] == "submit")

    def begin(self, worker: str, job: Job) -> None:
        """A worker has got a job."""
        held = Running(job, job.record["token"])
        given = job.record.get("checkpoint")
        value = json.loads(given) if given else None
        held.n = value["n"] if value else 0
        self.workers[worker].append(held)
        self.note("start", held, given=value, type=job.job_type)

    def step(self) -> None:
        """A run does a step and writes a checkpoint, whether or not its worker still has the lease."""
        if (found := self.some_run()) is None:
            return
        worker, held = found
        held.n += 1
        self.note("step", held, n=held.n)
        text = to_json({"fence": held.fence, "n": held.n}, "checkpoint", 1000)
        if self.tell(worker, held, plans.plan_checkpoint(self.op(), held.token, text, self.said(held))):
            self.note("acked", held, n=held.n)

    def report(self) -> None:
        """The pulse of a worker tells how far a run is."""
        if found := self.some_run():
            worker, held = found
            self.tell(worker, held, plans.plan_report(self.op(), held.token, self.said(held)))

    def finish(self, worker: str | None = None, held: Running | None = None) -> None:
        """A run has done its work."""
        if held is None or worker is None:
            if (found := self.some_run()) is None:
                return
            worker, held = found
        result = {"fence": held.fence, "n": held.n}
        self.note("end", held, result=result)
        text = to_json(result, "result", 1000)
        if self.tell(worker, held, plans.plan_complete(self.op(), held.token, text, self.said(held))):
            self.drop(worker, held)

    def fail(self) -> None:
        """A run raises."""
        if found := self.some_run():
            worker, held = found
            error = f"as planned, fence {held.fence}"
            plan = plans.plan_fail(self.op(), held.token, error=error, failure="{}", report=self.said(held), delay=1000)
            if self.tell(worker, held, plan):
                self.drop(worker, held)

    def release(self) -> None:
        """A worker gives a run back."""
        if found := self.some_run():
            worker, held = found
            if self.tell(worker, held, plans.plan_release(self.op(), held.token, self.said(held))):
                self.drop(worker, held)

    def tell(self, worker: str, held: Running, change: Change) -> bool:
        """A write of a run; a refused one stops it, with a receipt if that was asked for."""
        if self.write(held.job.job_id, change).accepted:
            return True
        if held in self.workers[worker]:
            self.drop(worker, held)
            self.write(held.job.job_id, plans.plan_receipt(self.op(), held.token, "cooperative", confirmed=True))
        return False

    def beat(self) -> None:
        """Every worker that is awake renews its leases; runs that are not live stop."""
        for worker, held in self.workers.items():
            if not self.awake[worker]:
                continue
            words = drive(self.store.renew([(run.job.job_id, run.token) for run in held], int(LEASE * 1e6)))
            for run, word in zip(tuple(held), words, strict=True):
                if word == "stopping" and self.rng.random() < 0.5:
                    self.drop(worker, run)
                    self.write(run.job.job_id, plans.plan_receipt(self.op(), run.token, "cooperative", confirmed=True))
                elif word == "lost" and self.rng.random() < 0.1:
                    self.drop(worker, run)

    def forget(self) -> None:
        """A worker is killed: nobody knows its runs any more."""
        self.workers[self.rng.choice(list(self.workers))].clear()

    def freeze(self) -> None:
        """A worker freezes, or wakes up as a zombie with the runs that it had."""
        worker = self.rng.choice(list(self.workers))
        self.awake[worker] = not self.awake[worker]
        if not self.awake[worker]:
            self.sleep()

    # --- the rest of the world ---

    def sweep(self) -> None:
        """A sweep."""
        drive(self.sweeper.sweep())

    def sleep(self) -> None:
        """Time passes, with passes of the sweeper in it, so that it does not take this for an outage."""
        for _ in range(self.rng.randrange(1, 14)):
            self.clock.advance(LEASE / 6)
            self.sweep()
            self.beat()

    def op(self) -> str:
        """A fresh operation id."""
        self._op += 1
        return f"{self._op:08d}"

    def write(self, job_id: str, change: Change) -> Outcome:
        """Apply one change."""
        self.clock.advance(0.0001)
        return drive(self.store.apply([Write(job_id, change)])).outcomes[0]

    def someone(self) -> str | None:
        """A worker that is awake."""
        awake = [worker for worker, is_awake in self.awake.items() if is_awake]
        return self.rng.choice(awake) if awake else None

    def some_job(self) -> str:
        """A job of late."""
        return self.rng.choice(self.known[-12:])

    def some_run(self) -> tuple[str, Running] | None:
        """A run of a worker that is awake."""
        found = [(worker, run) for worker, runs in self.workers.items() if self.awake[worker] for run in runs]
        return self.rng.choice(found) if found else None

    def drop(self, worker: str, held: Running) -> None:
        """The code of a run has stopped."""
        self.workers[worker].remove(held)

    def said(self, held: Running) -> dict[str, str]:
        """What a run says of itself."""
        return {"progress": repr(min(1.0, held.n / 50)), "message": f"{held.fence} {held.n}"}

    def note(self, do: str, held: Running, **what: Any) -> None:
        """A line of the ledger."""
        self.clock.advance(0.0001)
        line = {"do": do, "at": self.clock(), "pid": 1, "job": held.job.job_id, "fence": held.fence, **what}
        self.runs.append(line)
