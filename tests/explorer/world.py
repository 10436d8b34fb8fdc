"""One job, two workers, a caller and a sweeper on a store: what each may do next, and what happens when it does.

A store's clock moves only by `tick`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from milepost import Settings
from milepost.core.transitions import (
    plan_cancel,
    plan_checkpoint,
    plan_complete,
    plan_crash,
    plan_create,
    plan_delete,
    plan_fail,
    plan_log,
    plan_overrun,
    plan_receipt,
    plan_release,
    plan_report,
    plan_retry,
    plan_self_cancel,
    plan_start,
)
from milepost.core.transitions.change import Change, DrainingLease, Record
from milepost.run.sweeper import Sweeper
from milepost.stores.ids import Ids
from milepost.stores.protocol import ApplyResult, Claim, Store, SweepResult, Write, WriteResult
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FrozenClock
from tests.explorer.actors import Action, Actors, Budgets, Repeat, Run, Step

JOB = "job"
TICK = 15
"""Seconds by which the clock moves at a time: half a lease."""
SETTINGS = Settings(lease=2.0 * TICK + 0.002)
DELAY, LEASE = (TICK * 1000 - 1) * 1000, (2 * TICK * 1000 - 1) * 1000
"""Microseconds of one tick and of a lease. They end between two ticks, as does half a lease of the sweeper: Redis lets no two changes
of a store have the same time, so nothing may depend on microseconds."""
REPEATED_FOR = 2
"""Ticks within which a request is delivered again."""


class _SweepOnly:
    """A store that a sweeper may read. What it wants to write is kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.writes: tuple[Write, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def sweep(self, **options: Any) -> SweepResult:
        return await self._store.sweep(**{**options, "interval": 0.0})

    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        self.writes = tuple(writes)
        return ApplyResult([WriteResult(-1, None) for _ in writes], [], None)


class _PathIds(Ids):
    """Operation ids that increase along a path."""

    def __init__(self) -> None:
        self.count = 0

    def new_operation_id(self) -> str:
        self.count += 1
        return f"path{self.count:04d}"


class World:
    """The actors on a store whose clock is `clock`. `alter` changes what they send.

    A `timed` job has an earliest and a latest start.
    """

    def __init__(self, store: Store, clock: FrozenClock, *, attempts: int = 2, alter: Callable[[Change], Change] | None = None, timed: bool = True) -> None:  # fmt: skip
        self.store = store
        self.clock = clock
        self.ids = _PathIds()
        self._attempts = attempts
        self._timed = timed
        self._alter = alter or (lambda change: change)
        self._sweep_only: Any = _SweepOnly(store)
        self._sweeper = Sweeper(self._sweep_only, SETTINGS, 1e9, ids=self.ids)
        self._steps: list[Step] = []

    # --- the store, as it is ---

    def record(self) -> Record | None:
        """Return the record of the job."""
        job = run_sync(self.store.get(JOB))
        return None if job is None else job.record

    def stopping(self) -> DrainingLease | None:
        """Return the draining lease of the job."""
        leases = run_sync(self.store.draining_leases())
        return next((DrainingLease(token, expires) for job_id, token, expires in leases if job_id == JOB), None)

    # --- what may happen next ---

    def actions(self, actors: Actors) -> Iterator[Action]:
        """Yield all actions that are possible now."""
        record, repeats = self.record(), actors.budgets.repeats and actors.repeat is None
        for action in self._requests(actors, record):
            yield action
            if repeats and action.name not in ("renew", "sweep", "crash"):
                yield action._replace(again=True)
        yield Action("tick")
        if actors.repeat is not None:
            yield Action("deliver again")

    def _requests(self, actors: Actors, record: Record | None) -> Iterator[Action]:
        budgets, repeat = actors.budgets, actors.repeat
        if record is None:
            if actors.created < 2:
                yield Action("create")
        else:
            for name, left in (("cancel", budgets.cancels), ("retry", budgets.retries), ("delete", budgets.deletes)):
                if left:
                    yield Action(name)
        # Workers without a run differ only in the claim that will be delivered again.
        idle = [place for place, run in enumerate(actors.workers) if run is None]
        claiming = idle if repeat is not None and repeat.claim is not None else idle[:1]
        for place, run in enumerate(actors.workers):
            if run is not None:
                yield from (Action(name, place) for name in _OF_RUN[run.mode])
                if budgets.crashes:
                    yield Action("crash", place)
                    if run.mode == "running":
                        yield Action("child crash", place)
            elif place in claiming and record is not None and record["status"] == "pending":
                yield Action("claim", place)
        yield Action("write sweep") if actors.found else Action("sweep")

    # --- what happens ---

    def perform(self, actors: Actors, action: Action) -> tuple[Actors, list[Step]]:
        """Perform an action; return the actors after it, and the changes that it sent."""
        self._steps = []
        name, place = action.name, action.worker
        if name == "tick":
            return self._tick(actors), []
        if name == "deliver again":
            return self._deliver_again(actors), self._steps
        if name == "sweep":
            self._sweep_only.writes = ()
            run_sync(self._sweeper.sweep())
            return actors._replace(found=tuple(map(self._altered, self._sweep_only.writes))), []
        if name == "claim":
            actors = self._claim(actors, action)
        elif place >= 0:
            run = actors.workers[place]
            assert run is not None, "only a worker with a run acts"
            actors = _OF_WORKER[name](self, actors, action, run)
        else:
            actors = self._of_others(actors, action)
        return actors, self._steps

    def _tick(self, actors: Actors) -> Actors:
        self.clock.advance(TICK)
        run_sync(self.store.now())  # a store's clock is what it was when it was last asked
        repeat = actors.repeat
        if repeat is not None:
            repeat = repeat._replace(age=repeat.age + 1) if repeat.age < REPEATED_FOR else None
        return actors._replace(repeat=repeat)

    def _of_others(self, actors: Actors, action: Action) -> Actors:
        name, new_id = action.name, self.ids.new_operation_id
        if name == "write sweep":
            return self._send(actors._replace(found=()), action, *actors.found)[0]
        if name == "create":
            actors, (accepted,) = self._send(actors, action, self._write(plan_create(self._fields(), new_id())))
            return actors._replace(created=actors.created + accepted)
        plan = {"cancel": plan_cancel, "retry": plan_retry, "delete": plan_delete}[name]
        budgets = actors.budgets.spend({"cancel": "cancels", "retry": "retries", "delete": "deletes"}[name])
        return self._send(actors._replace(budgets=budgets), action, self._write(plan(new_id())))[0]

    def _fields(self) -> Mapping[str, str]:
        times = {"delay": str(DELAY), "expires_in": str(DELAY + 3 * TICK * 1_000_000)}
        budget = {"max_attempts": str(self._attempts), "budget": str(self._attempts), "max_crashes": "2"}
        return {"type": "t", "run_by": "worker", "ready": "t", "slot": "t", **budget, **(times if self._timed else {})}

    def _claim(self, actors: Actors, action: Action) -> Actors:
        change = plan_start(
            self.ids.new_operation_id(), nonce=f"n{self.ids.count:010d}", lease=LEASE, worker=f"h:{action.worker}:1:p:0"
        )
        claim = Claim(
            f"w{action.worker}", {"t": None}, (self._alter(change),), self.ids.new_operation_id(), number=self.ids.count
        )
        token = self._send_claim(claim, actors)
        if token is not None:
            actors = self._with(actors, action.worker, Run("running", token))
        if action.again:
            actors = actors._replace(
                repeat=Repeat("claim", (), claim, (token is not None,)), budgets=actors.budgets.spend("repeats")
            )
        return actors

    def _send_claim(self, claim: Claim, actors: Actors, first: Repeat | None = None) -> str | None:
        """Send a claim; return the token of the run that it answers, or None."""
        before, stopping = self.record(), self.stopping()
        claimed = run_sync(self.store.apply([], claim)).claimed
        after = self.record()
        started = (after or {}).get("token") != (before or {}).get("token")
        if started:
            self._note(claim.starts[0], before, after, stopping, True, False, actors, first=first)
        return claimed[0].record.get("token") if claimed else None

    def _deliver_again(self, actors: Actors) -> Actors:
        repeat = actors.repeat
        assert repeat is not None, "a request is to be delivered again"
        actors = actors._replace(repeat=None)
        if repeat.claim is not None:
            self._send_claim(repeat.claim, actors, repeat)
        else:
            self._apply(actors, repeat.writes, first=repeat)
        return actors

    # --- requests ---

    def _altered(self, write: Write) -> Write:
        return write._replace(change=self._alter(write.change))

    def _write(self, change: Change) -> Write:
        return Write(JOB, self._alter(change))

    def _send(self, actors: Actors, action: Action, *writes: Write, token: str | None = None) -> tuple[Actors, tuple[bool, ...]]:  # fmt: skip
        accepted = self._apply(actors, writes, token)
        if action.again:
            repeat = Repeat(action.name, writes, None, accepted)
            actors = actors._replace(repeat=repeat, budgets=actors.budgets.spend("repeats"))
        return actors, accepted

    def _apply(self, actors: Actors, writes: Sequence[Write], token: str | None = None, first: Repeat | None = None) -> tuple[bool, ...]:  # fmt: skip
        """Send writes one by one, so that each has a record before and after it."""
        for place, write in enumerate(writes):
            before, stopping = self.record(), self.stopping()
            result = run_sync(self.store.apply([write])).outcomes[0]
            self._note(
                write.change,
                before,
                self.record(),
                stopping,
                result.accepted,
                result.repeated,
                actors,
                token,
                first,
                place,
            )
        return tuple(step.accepted for step in self._steps)

    def _note(
        self, change: Change, before: Record | None, after: Record | None, stopping: DrainingLease | None, accepted: bool,
        repeated: bool, actors: Actors, token: str | None = None, first: Repeat | None = None, place: int = 0,
    ) -> None:  # fmt: skip
        self._steps.append(
            Step(
                change.transition.name, change, before, after, stopping, self.stopping(), accepted, repeated, self.clock(),
                token, first is not None, first is not None and first.accepted[place], actors.workers,
            )
        )  # fmt: skip

    # --- what a worker does with its run ---

    def _with(self, actors: Actors, place: int, run: Run | None) -> Actors:
        workers = list(actors.workers)
        workers[place] = run
        return actors._replace(workers=tuple(workers))

    def _crash(self, actors: Actors, action: Action, run: Run) -> Actors:
        return self._with(actors, action.worker, None)._replace(budgets=actors.budgets.spend("crashes"))

    def _renew(self, actors: Actors, action: Action, run: Run) -> Actors:
        state = run_sync(self.store.renew([(JOB, run.token)], LEASE))[0]
        if state == "lost":
            return self._with(actors, action.worker, None)  # its code stops, and writes nothing
        if state == "stopping":
            return self._with(actors, action.worker, run._replace(mode="stopping"))
        return actors

    def _write_of_run(self, actors: Actors, action: Action, run: Run) -> Actors:
        change = _WRITES[action.name](self.ids.new_operation_id(), run.token)
        if action.name == "child crash":
            actors = actors._replace(budgets=actors.budgets.spend("crashes"))
        actors, (accepted,) = self._send(actors, action, self._write(change), token=run.token)
        after = _MODE_AFTER.get(action.name)
        if after is not None:
            mode = after[0] if accepted else after[1]
            actors = self._with(actors, action.worker, Run(mode, run.token) if mode else None)
        return actors


def _plain(plan: Callable[..., Change], *args: object, **values: Any) -> Callable[[str, str], Change]:
    return lambda operation_id, token: plan(operation_id, token, *args, **values)


_FAILURE = {"error": "e", "failure": '{"kind":"error"}', "report": {}}
_WRITES: dict[str, Callable[[str, str], Change]] = {
    "report": _plain(plan_report, {"progress": "0.5"}),
    "checkpoint": _plain(plan_checkpoint, "1", {}),
    "log": _plain(plan_log, '{"lines":[]}'),
    "complete": _plain(plan_complete, "1", {}),
    "fail": _plain(plan_fail, delay=DELAY, **_FAILURE),
    "release": _plain(plan_release, {}),
    "interrupt": _plain(plan_self_cancel, {}, by="b", why="w"),
    "child crash": _plain(plan_crash, crash_loop='{"kind":"crash_loop"}', last=1, **_FAILURE),
    "release, still running": _plain(plan_release, {}, stopping=True),
    "time out, still running": _plain(plan_fail, delay=0, stopping=True, why="timeout", **_FAILURE),
    "overrun": _plain(plan_overrun, '{"lines":[]}'),
    "receipt": _plain(plan_receipt, "cooperative", confirmed=True),
}
"""What a run sends."""
_STOPPED = ("", "stopped")
"""Its code has ended: the run is over, or only a receipt is left to be sent."""
_MODE_AFTER = {
    **dict.fromkeys(("complete", "fail", "release", "interrupt", "child crash"), _STOPPED),
    **dict.fromkeys(("release, still running", "time out, still running"), ("stopping", "stopping")),
    "receipt": ("", ""),
}
"""The mode of a run after such a write: where it was accepted, where it was refused."""
_OF_RUN = {
    "running": (
        "renew", "report", "checkpoint", "log", "complete", "fail", "release", "interrupt", "release, still running",
        "time out, still running",
    ),
    "stopping": ("renew", "log", "overrun", "receipt"),
    "stopped": ("receipt",),
}  # fmt: skip
_OF_WORKER: dict[str, Callable[[World, Actors, Action, Run], Actors]] = {
    "crash": World._crash,
    "renew": World._renew,
    **dict.fromkeys(_WRITES, World._write_of_run),
}


def follow(world: World, budgets: Budgets, path: Sequence[Action]) -> Iterator[tuple[Action, list[Step]]]:
    """Perform the actions of a path one after another; yield each with the changes that it sent."""
    actors = Actors(budgets)
    for action in path:
        actors, steps = world.perform(actors, action)
        yield action, steps
