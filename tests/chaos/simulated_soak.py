"""A soak in one thread: clients, workers, zombies and a sweeper on a memory store, interleaved by a seed.

The steps of a worker are simulated with the real plans, so that a guard of the lifecycle can be removed, which the
checker has to detect. The clock is frozen.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.core.serialization import to_json
from milepost.core.transitions.change import Change, TransitionType
from milepost.manager.validation import submit_fields
from milepost.run.sweeper import Sweeper
from milepost.settings import Settings
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import ApplyResult, Claim, Write, WriteResult
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FrozenClock
from tests.chaos.history import History, add_store
from tests.chaos.ledger import Line

LEASE = 0.5
LIMIT = 2


class Unguarded(MemoryStore):
    """A memory store to which one guard of one transition means nothing; "status" lets its first branch start from any status."""

    def __init__(self, clock: FrozenClock, transition: str, guard: str) -> None:
        super().__init__(blocking=True, clock=clock)
        self._removed = (transition, guard)
        self._bare: dict[TransitionType, TransitionType] = {}

    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        writes = [write._replace(change=self._without(write.change)) for write in writes]
        if claim is not None:
            claim = replace(claim, starts=tuple(map(self._without, claim.starts)))
        return await super().apply(writes, claim)

    def _without(self, change: Change) -> Change:
        name, removed = self._removed
        if change.transition.name != name:
            return change
        if change.transition not in self._bare:
            branches = tuple(
                replace(
                    branch,
                    statuses=plans.ANY if removed == "status" else branch.statuses,
                    guards=tuple(guard for guard in branch.guards if guard[0] != removed),
                )
                for branch in change.transition.branches
            )
            self._bare[change.transition] = replace(change.transition, branches=branches)
        return change._replace(transition=self._bare[change.transition])


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


class SimulatedSoak:
    """A soak in one thread: `SimulatedSoak(seed).run(steps)`. `removed` names a transition and the guard to remove from it."""

    def __init__(self, seed: int, removed: tuple[str, str] = ("", "")) -> None:
        self.rng = random.Random(seed)
        self.clock = FrozenClock()
        self.store = Unguarded(self.clock, *removed)
        settings = Settings(lease=LEASE, sweep=LEASE / 4, heartbeat=LEASE / 10)
        self.sweeper = Sweeper(self.store, settings, 1e9)
        self.runs: list[Line] = []
        self.calls: list[Line] = []
        self.workers: dict[str, list[Running]] = {f"host:{n}:x:1": [] for n in (1, 2, 3)}
        self.awake = dict.fromkeys(self.workers, True)
        self.known: list[str] = []
        self._op = 0

    def run(self, steps: int) -> History:
        """Do this number of random steps, then let all jobs end."""
        acts: list[tuple[int, Callable[[], None]]] = [
            (3, self.submit), (5, self.claim), (10, self.step), (3, self.finish), (3, self.fail), (3, self.release),
            (4, self.cancel), (1, self.delete), (4, self.retry), (4, self.heartbeat), (4, self.sweep), (2, self.sleep),
            (1, self.forget), (3, self.freeze), (2, self.report), (3, self.start), (1, self.hurry),
        ]  # fmt: skip
        for act in self.rng.choices([act for _, act in acts], [weight for weight, _ in acts], k=steps):
            act()
            self.clock.advance(0.001)
        self.end()
        feed = run_sync(self.store.feed("0", limit=1_000_000)).events
        return add_store(History(self.runs, self.calls, feed, limits={"limited": LIMIT}), self.store)

    def end(self) -> None:
        """Stop the faults, and let all jobs end under renewed leases."""
        self.awake = dict.fromkeys(self.workers, True)
        for _ in range(400):
            self.clock.advance(LEASE / 8)
            self.sweep()
            self.heartbeat()
            for worker in self.workers:
                self.claim(worker)
                self.heartbeat()
                for held in tuple(self.workers[worker]):
                    self.finish(worker, held)

    # --- clients ---

    def submit(self) -> None:
        """Submit a job, or submit one again after its id was deleted."""
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
        self.call("submit", job_id, plans.plan_create(fields, self.operation_id()), **note)

    def cancel(self) -> None:
        """Cancel some job."""
        if self.known:
            self.call("cancel", self.random_job(), plans.plan_cancel(self.operation_id()))

    def delete(self) -> None:
        """Delete some job."""
        if self.known:
            self.call("delete", self.random_job(), plans.plan_delete(self.operation_id()))

    def retry(self) -> None:
        """Retry some job."""
        if self.known:
            self.call("retry", self.random_job(), plans.plan_retry(self.operation_id()))

    def call(self, do: str, job_id: str, change: Change, **note: Any) -> None:
        """Record a call of a client and the answer to it."""
        self.calls.append({"do": do, "job": job_id, "phase": "asked", "at": self.clock(), **note})
        accepted = self.write(job_id, change).accepted
        self.calls.append(
            {"do": do, "job": job_id, "phase": "done" if accepted else "refused", "at": self.clock(), **note}
        )

    # --- workers ---

    def claim(self, worker: str | None = None) -> None:
        """Let a worker claim up to two jobs and begin them."""
        worker = worker or self.random_worker()
        if worker is None or len(self.workers[worker]) >= 4:
            return
        micros = int(LEASE * 1e6)
        starts = tuple(
            plans.plan_start(self.operation_id(), nonce=self.operation_id(), lease=micros, worker=worker)
            for _ in range(2)
        )
        claim = Claim(worker, {"plain": None, "limited": LIMIT}, starts, self.operation_id())
        for job in run_sync(self.store.apply([], claim)).claimed:
            self.begin(worker, job)

    def start(self) -> None:
        """Let a worker start a job by its id, without asking whether it may, so that only the guards refuse it."""
        if self.known:
            self.start_one(self.random_job())

    def hurry(self) -> None:
        """Cancel a run, then retry and start its job while its code continues."""
        if found := self.random_run():
            job_id = found[1].job.job_id
            self.call("cancel", job_id, plans.plan_cancel(self.operation_id()))
            self.call("retry", job_id, plans.plan_retry(self.operation_id()))
            self.start_one(job_id)

    def start_one(self, job_id: str) -> None:
        """Let a worker start that job. The claim, not a guard, keeps the limit of a type."""
        worker = self.random_worker()
        if worker is None or self.kind_of(job_id) == "limited":
            return
        plan = plans.plan_start(self.operation_id(), nonce=self.operation_id(), lease=int(LEASE * 1e6), worker=worker)
        outcome = self.write(job_id, plan)
        if outcome.accepted and outcome.job is not None:
            self.begin(worker, outcome.job)

    def kind_of(self, job_id: str) -> str:
        """Return the type of a job."""
        return next(line["type"] for line in self.calls if line["job"] == job_id and line["do"] == "submit")

    def begin(self, worker: str, job: Job) -> None:
        """Give a claimed job to a worker."""
        held = Running(job, job.record["token"])
        given = job.record.get("checkpoint")
        value = json.loads(given) if given else None
        held.n = value["n"] if value else 0
        self.workers[worker].append(held)
        self.note("start", held, given=value, type=job.job_type)

    def step(self) -> None:
        """Let a run do a step and write a checkpoint, whether or not its worker still has the lease."""
        if (found := self.random_run()) is None:
            return
        worker, held = found
        held.n += 1
        self.note("step", held, n=held.n)
        text = to_json({"fence": held.fence, "n": held.n}, "checkpoint", 1000)
        if self.apply_write(
            worker, held, plans.plan_checkpoint(self.operation_id(), held.token, text, self.report_fields(held))
        ):
            self.note("acked", held, n=held.n)

    def report(self) -> None:
        """Let the heartbeat of a worker report the progress of a run."""
        if found := self.random_run():
            worker, held = found
            self.apply_write(worker, held, plans.plan_report(self.operation_id(), held.token, self.report_fields(held)))

    def finish(self, worker: str | None = None, held: Running | None = None) -> None:
        """Let a run complete."""
        if held is None or worker is None:
            if (found := self.random_run()) is None:
                return
            worker, held = found
        result = {"fence": held.fence, "n": held.n}
        self.note("end", held, result=result)
        text = to_json(result, "result", 1000)
        if self.apply_write(
            worker, held, plans.plan_complete(self.operation_id(), held.token, text, self.report_fields(held))
        ):
            self.drop(worker, held)

    def fail(self) -> None:
        """Let a run raise an error."""
        if found := self.random_run():
            worker, held = found
            error = f"as planned, fence {held.fence}"
            plan = plans.plan_fail(
                self.operation_id(), held.token, error=error, failure="{}", report=self.report_fields(held), delay=1000
            )
            if self.apply_write(worker, held, plan):
                self.drop(worker, held)

    def release(self) -> None:
        """Let a worker release a run."""
        if found := self.random_run():
            worker, held = found
            if self.apply_write(
                worker, held, plans.plan_release(self.operation_id(), held.token, self.report_fields(held))
            ):
                self.drop(worker, held)

    def apply_write(self, worker: str, held: Running, change: Change) -> bool:
        """Apply a write of a run. A refused one stops the run, with a receipt if that was requested."""
        if self.write(held.job.job_id, change).accepted:
            return True
        if held in self.workers[worker]:
            self.drop(worker, held)
            self.write(
                held.job.job_id, plans.plan_receipt(self.operation_id(), held.token, "cooperative", confirmed=True)
            )
        return False

    def heartbeat(self) -> None:
        """Let each worker that is not frozen renew its leases; runs without a live lease stop."""
        for worker, held in self.workers.items():
            if not self.awake[worker]:
                continue
            words = run_sync(self.store.renew([(run.job.job_id, run.token) for run in held], int(LEASE * 1e6)))
            for run, word in zip(tuple(held), words, strict=True):
                if word == "stopping" and self.rng.random() < 0.5:
                    self.drop(worker, run)
                    self.write(
                        run.job.job_id,
                        plans.plan_receipt(self.operation_id(), run.token, "cooperative", confirmed=True),
                    )
                elif word == "lost" and self.rng.random() < 0.1:
                    self.drop(worker, run)

    def forget(self) -> None:
        """Kill a worker; its runs are lost."""
        self.workers[self.rng.choice(list(self.workers))].clear()

    def freeze(self) -> None:
        """Freeze a worker, or continue one as a zombie with the runs that it had."""
        worker = self.rng.choice(list(self.workers))
        self.awake[worker] = not self.awake[worker]
        if not self.awake[worker]:
            self.sleep()

    # --- the rest of the world ---

    def sweep(self) -> None:
        """Sweep once."""
        run_sync(self.sweeper.sweep())

    def sleep(self) -> None:
        """Let time pass, with sweeps meanwhile, so that the sweeper does not take it for an outage."""
        for _ in range(self.rng.randrange(1, 14)):
            self.clock.advance(LEASE / 6)
            self.sweep()
            self.heartbeat()

    def operation_id(self) -> str:
        """Return a new operation id."""
        self._op += 1
        return f"{self._op:08d}"

    def write(self, job_id: str, change: Change) -> WriteResult:
        """Apply one change."""
        self.clock.advance(0.0001)
        return run_sync(self.store.apply([Write(job_id, change)])).outcomes[0]

    def random_worker(self) -> str | None:
        """Return a worker that is not frozen."""
        awake = [worker for worker, is_awake in self.awake.items() if is_awake]
        return self.rng.choice(awake) if awake else None

    def random_job(self) -> str:
        """Return one of the newest jobs."""
        return self.rng.choice(self.known[-12:])

    def random_run(self) -> tuple[str, Running] | None:
        """Return a run of a worker that is not frozen."""
        found = [(worker, run) for worker, runs in self.workers.items() if self.awake[worker] for run in runs]
        return self.rng.choice(found) if found else None

    def drop(self, worker: str, held: Running) -> None:
        """Remove a run, because its code has stopped."""
        self.workers[worker].remove(held)

    def report_fields(self, held: Running) -> dict[str, str]:
        """Return the report of a run."""
        return {"progress": repr(min(1.0, held.n / 50)), "message": f"{held.fence} {held.n}"}

    def note(self, do: str, held: Running, **what: Any) -> None:
        """Write a line of the ledger."""
        self.clock.advance(0.0001)
        line = {"do": do, "at": self.clock(), "pid": 1, "job": held.job.job_id, "fence": held.fence, **what}
        self.runs.append(line)
