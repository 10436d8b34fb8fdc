"""A demonstration: jobs that look like real ones, run, fail, stall and get cancelled, without doing any work.

Owns the play: its actors write through the same plans as real runs do, into a store in memory whose first hour is made up
by moving its clock. For pictures, for tests, and for whoever wants to see the dashboard before there are jobs of their own.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Any

from fastapi import FastAPI

from milepost.core.change import Change
from milepost.core.defaults import STALLED
from milepost.core.encoding import from_json, to_json
from milepost.core.job import Job, JobStatus
from milepost.core.lifecycle import (
    plan_cancel,
    plan_checkpoint,
    plan_complete,
    plan_create,
    plan_fail,
    plan_log,
    plan_receipt,
    plan_report,
    plan_start,
)
from milepost.manager.asynchronous import AsyncJobManager
from milepost.manager.requests import submit_fields
from milepost.stores.driving import drive
from milepost.stores.ids import new_nonce, new_op
from milepost.stores.memory import MemoryStore
from milepost.stores.memory_state import system_micros
from milepost.stores.protocol import Outcome, Select, Store, Write
from milepost.tracking.digests import Digests
from milepost.tracking.outlook import Outlook
from milepost.web import auth
from milepost.web.demonstration_cast import (
    FILES,
    HOSTS,
    KINDS,
    PEOPLE,
    SECOND,
    Actor,
    Kind,
    publish_kinds,
    text_of,
    traceback_of,
)  # fmt: skip
from milepost.web.routing import create_app
from milepost.worker.published import WorkerEntry, write_worker

LEASE = 86_400 * SECOND
LOOK_FOR_NEW = 0.5
WORKERS_EVERY = 5.0
MOST_WAIT = 4.0


class Clock:
    """The system's clock, or a moment that it is set to."""

    def __init__(self) -> None:
        self.at: int | None = None

    def __call__(self) -> int:
        """Microseconds since 1970."""
        return system_micros() if self.at is None else self.at


def _id_of(micros: int, chance: random.Random) -> str:
    """A UUIDv7 of a moment: ids sort by their time of creation, as real ones do."""
    value = (micros // 1000) << 80 | chance.getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62))


class Demonstration:
    """The play: an agenda of actors, first through a made-up past, then in real time."""

    def __init__(
        self, *, past: int = 900, hours: float = 1.0, running: int = 32, updates: float = 48.0, seed: int = 7
    ) -> None:
        """`past` jobs in so many hours before now; so many `running` at any time, with so many `updates` a second."""
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.running_wanted, self.interval = running, running / max(updates, 0.1)
        self._blocking: Store = MemoryStore(blocking=True, clock=self.clock)
        self.store: Store = self._blocking.twin(blocking=False)
        self.manager = AsyncJobManager(self.store)
        self.digests = Digests(self._blocking)
        self.actors: dict[str, Actor] = {}
        self._agenda: list[tuple[int, int, Actor]] = []
        self._turns = 0
        self._next_arrival = 0
        self._live = False
        self._past_steps = 3.5 if past < 2000 else 1.2
        self._play_past(past, int(hours * 3600 * SECOND))

    # --- the past ---

    def _play_past(self, count: int, length: int) -> None:
        now = system_micros()
        births = [self._ended(now, length) for _ in range(count)]
        # Those that are to run now were born lately and take long enough.
        lately = sorted(now - int(self.chance.uniform(25, 240) * SECOND) for _ in range(self.running_wanted))
        for number, born in enumerate(lately):
            needs = ((now - born) / SECOND + 20) * (1.0 if number % 16 == 3 else self.chance.uniform(1.05, 2.2))
            births.append((born, needs, self.chance.choice(KINDS), "stalls" if number % 16 == 3 else "completes"))
        births.sort(key=itemgetter(0))
        for born, seconds, kind, fate in births:
            if born in lately[:1]:
                drive(self.digests.tend(spacing=0))  # what the past has taught
            self.clock.at = born
            self._advance(born)
            self._birth(born, kind, seconds, fate)
        for left in range(max(2, self.running_wanted // 8), 0, -1):
            self._advance(now - left * 5 * SECOND)
            self._waiting(now - left * 5 * SECOND)
        self._advance(now)
        self.clock.at = None
        self._live = True
        # From now on everybody says what they do as often as real runs would.
        self._agenda.clear()
        for actor in [actor for actor in self.actors.values() if actor.token is not None]:
            self._schedule(actor, now + int(self.chance.random() * self.interval * SECOND))

    def _advance(self, until: int) -> None:
        """Let everything happen that is due before a moment."""
        while self._agenda and self._agenda[0][0] <= until:
            at, _, actor = heapq.heappop(self._agenda)
            self.clock.at = at
            self._turn(actor, at)
        self.clock.at = until

    def _ended(self, now: int, length: int) -> tuple[int, float, Kind, str]:
        """When a job was born that has ended by now, how long it took, its type and its fate."""
        while True:
            kind, born = self.chance.choice(KINDS), now - int(self.chance.random() * length)
            seconds = self.chance.uniform(*kind.seconds)
            if born + (seconds + MOST_WAIT) * SECOND < now:
                return born, seconds, kind, self._fate()

    def _fate(self) -> str:
        return self.chance.choices(("completes", "fails", "cancelled"), (88, 9, 3))[0]

    def _birth(self, now: int, kind: Kind, seconds: float, fate: str, *, waits: bool = False) -> None:
        path = f"/data/reports/{self.chance.choice(FILES)}"
        owner = self.chance.choice(PEOPLE)
        job_id = _id_of(now, self.chance)
        params = {"path": path, **kind.params}
        metadata = {"file_path": path, "chunks": 412, "requested_by": f"{owner}@lab"}
        fields = submit_fields(kind.name, params=params, metadata=metadata, labels={"owner": owner}, max_attempts=3)
        if not self._write(job_id, plan_create(fields, new_op())).accepted:
            return
        actor = self.actors[job_id] = Actor(job_id, kind, path, seconds, fate, self.chance)
        if fate == "stalls":
            actor.turn = self.chance.uniform(0.2, 0.5)
        if waits:
            return
        self._schedule(actor, now + int(self.chance.uniform(0.2, MOST_WAIT) * SECOND))

    def _waiting(self, now: int) -> None:
        """A job that is started when there is room."""
        kind = self.chance.choice(KINDS)
        self._birth(now, kind, self.chance.uniform(*kind.seconds), self._fate(), waits=True)

    # --- a turn of an actor ---

    def _write(self, job_id: str, change: Change) -> Outcome:
        return drive(self._blocking.apply([Write(job_id, change)])).outcomes[0]

    def _schedule(self, actor: Actor, at: int) -> None:
        self._turns += 1
        heapq.heappush(self._agenda, (at, self._turns, actor))

    def _turn(self, actor: Actor, now: int) -> None:
        if actor.token is None:
            self._start(actor, now)
            return
        fraction = actor.fraction(now)
        if actor.fate == "fails" and fraction >= actor.turn:
            self._end(actor, self._failing(actor, now, actor.turn))
        elif actor.fate == "cancelled" and fraction >= actor.turn:
            who = self.chance.choice(PEOPLE)
            self._write(actor.job_id, plan_report(new_op(), actor.token, actor.report(now, actor.turn)))
            self._end(actor, plan_cancel(new_op(), by=f"{who}@lab", why="superseded by a newer file",
                                         message=f"Cancelled by {who}@lab"))  # fmt: skip
        elif actor.fate == "stalls" and fraction >= actor.turn:
            self._stall(actor, now)
        elif fraction >= 1.0:
            if actor.outlook is not None:
                actor.outlook.learn(now / SECOND)
            result = to_json({"chunks": actor.total, "entities": actor.total * 7, "index": "docs"}, "result")
            self._end(actor, plan_complete(new_op(), actor.token, result, actor.report(now, 1.0)))
        else:
            self._report(actor, now, fraction)

    def _start(self, actor: Actor, now: int) -> None:
        busy = Counter(other.worker for other in self.actors.values() if other.token is not None)
        actor.worker = min(self.chance.sample(HOSTS, len(HOSTS)), key=busy.__getitem__)  # the one with most room
        outcome = self._write(actor.job_id, plan_start(new_op(), nonce=new_nonce(), lease=LEASE, worker=actor.worker))
        if not outcome.accepted or outcome.job is None:
            self.actors.pop(actor.job_id, None)
            return
        actor.token, actor.began = outcome.job.record["token"], now
        actor.told_stage, actor.stands_still, actor.is_flagged = -1, False, False
        actor.outlook = Outlook(actor, now / SECOND, self.digests, STALLED)
        if actor.offset > 0:
            self._log(actor, now, "info", f"resumed from the checkpoint at {int(actor.offset * 100)} %")
        self._schedule(actor, self._next_turn(actor, now))

    def _next_turn(self, actor: Actor, now: int) -> int:
        """When an actor speaks again: now and then, and when its work is done."""
        pause = self.interval * self.chance.uniform(0.8, 1.2) if self._live else actor.seconds / self._past_steps
        ends = actor.began + int((1.0 - actor.offset) * actor.seconds * SECOND) + 1
        return min(now + int(pause * SECOND), max(ends, now + 1))

    def _report(self, actor: Actor, now: int, fraction: float) -> None:
        number, _ = actor.stage(fraction)
        report = actor.report(now, fraction)
        token = actor.token or ""
        if number != actor.told_stage:
            actor.told_stage = number
            self._log(actor, now, "info", f"{actor.kind.stages[number][0].lower()} begins")
            change = plan_checkpoint(new_op(), token, to_json({"at": fraction}, "checkpoint"), report)
        else:
            change = plan_report(new_op(), token, report)
        if self._live and self.chance.random() < 0.1:
            self._log(actor, now, *self.chance.choice(actor.kind.lines))
        outcome = self._write(actor.job_id, change)
        if outcome.accepted:
            self._schedule(actor, self._next_turn(actor, now))
        else:
            self._told_to_stop(actor, now, outcome.job)

    def _stall(self, actor: Actor, now: int) -> None:
        report = actor.report(now, actor.turn)
        if not actor.stands_still:
            actor.stands_still = True
            self._log(actor, now, "warning", "the model server has not answered for 30 s; waiting")
            kept = to_json({"at": actor.turn}, "checkpoint")
            self._write(actor.job_id, plan_checkpoint(new_op(), actor.token or "", kept, report))
        elif report.get("stalled") and not actor.is_flagged:
            actor.is_flagged = True
            self._write(actor.job_id, plan_report(new_op(), actor.token or "", report, "stalled"))
        job = drive(self._blocking.get(actor.job_id))
        if job is not None and job.status is JobStatus.RUNNING and job.record.get("token") == actor.token:
            self._schedule(actor, now + SECOND)
        else:
            self._told_to_stop(actor, now, job)

    def _told_to_stop(self, actor: Actor, now: int, job: Job | None) -> None:
        """Somebody cancelled the run: its code needs a moment to see it, then the receipt is written."""
        token, actor.token = actor.token or "", None
        self.actors.pop(actor.job_id, None)
        if job is None or job.receipt is None or job.receipt.confirmed is not None:
            return
        change = plan_receipt(new_op(), token, "cooperative", confirmed=True)
        if self._live:
            delay = self.chance.uniform(0.6, 1.6)
            asyncio.get_running_loop().call_later(delay, self._write, actor.job_id, change)
        else:
            self._write(actor.job_id, change)

    def _failing(self, actor: Actor, now: int, fraction: float) -> Change:
        report = actor.report(now, fraction)
        name, message, trace = traceback_of(actor.kind, self.chance)
        stage = actor.kind.stages[actor.stage(fraction)[0]][0]
        failure = to_json(
            {
                "kind": "error", "type": name, "message": message, "traceback": trace, "last_stage": stage,
                "last_item": f"chunk-{int(actor.total * fraction)}", "host": actor.worker, "pid": 4711,
                "last_log": [f"{stage.lower()} begins", "retrying the request (2 of 3)", message],
                "peak_memory": self.chance.randrange(200, 1800) * 1_048_576, "versions": {"python": "3.11.2"},
                "attempt": 1, "at": text_of(now),
            },
            "failure",
        )  # fmt: skip
        return plan_fail(new_op(), actor.token or "", error=message, failure=failure, report=report)

    def _end(self, actor: Actor, change: Change) -> None:
        before, now = actor.token or "", self.clock()
        outcome = self._write(actor.job_id, change)
        self.actors.pop(actor.job_id, None)
        actor.token = None
        job = outcome.job
        if job is not None and job.receipt is not None and job.receipt.confirmed is None:
            actor.token = before
            self._told_to_stop(actor, now, job)

    def _log(self, actor: Actor, now: int, level: str, text: str) -> None:
        lines = to_json({"lines": [{"at": text_of(now), "level": level, "text": text}]}, "log")
        self._write(actor.job_id, plan_log(new_op(), actor.token or "", lines))

    # --- the present ---

    @asynccontextmanager
    async def playing(self, _: Any = None) -> AsyncIterator[None]:
        """While this is open, jobs run; what is submitted, retried or cancelled is taken up."""
        await publish_kinds(self.store)
        tasks = [asyncio.create_task(self._play()), asyncio.create_task(self._keep_workers())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def _play(self) -> None:
        look_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            now = system_micros()
            while self._agenda and self._agenda[0][0] <= now:
                self._turn(heapq.heappop(self._agenda)[2], now)
            if loop.time() >= look_at:
                look_at = loop.time() + LOOK_FOR_NEW
                drive(self.digests.tend())
                await self._take_up(now)
            await asyncio.sleep(0.02)

    async def _take_up(self, now: int) -> None:
        """Start what waits while there is room, and let new jobs arrive."""
        busy = sum(actor.token is not None for actor in self.actors.values())
        waiting = await self.store.select(Select(statuses=("pending",)), 200)
        paused = {name for name, (_, stopped) in (await self.store.limits()).items() if stopped}
        for job in reversed(waiting):
            urgent = job.attempt > 0 or job.job_id not in self.actors
            if job.driver != "worker" or job.job_type in paused or (busy >= self.running_wanted and not urgent):
                continue
            known = self.actors.get(job.job_id)
            if known is None:
                known = self.actors[job.job_id] = self._from_record(job)
            if known.token is None:
                busy += 1
                self._start(known, now)
        # So many wait at any time, or a little fewer: the arrivals keep up with the ends.
        if len(waiting) < max(2, self.running_wanted // 8) and now >= self._next_arrival:
            self._next_arrival = now + int(self.chance.uniform(0.5, 4) * SECOND)
            self._waiting(now)

    def _from_record(self, job: Job) -> Actor:
        """Somebody else's job, or one that was sent back: it is short, goes well, and goes on from its checkpoint."""
        kind = next((one for one in KINDS if one.name == job.job_type), KINDS[0])
        actor = Actor(job.job_id, kind, "", 14.0, "completes", self.chance)
        kept = job.record.get("checkpoint")
        if kept is not None:
            actor.offset = float(_at(kept))
            actor.seconds = 14.0 / max(0.05, 1.0 - actor.offset)
        return actor

    async def _keep_workers(self) -> None:
        began = system_micros() / SECOND - 5400
        slots = -(-self.running_wanted // len(HOSTS)) + 2
        while True:
            for number, host in enumerate(HOSTS):
                mine = tuple(a.job_id for a in self.actors.values() if a.worker == host and a.token is not None)
                types = tuple(kind.name for kind in KINDS)
                seen = self.clock() / SECOND
                entry = WorkerEntry(host, host, 4000 + number, began + number * 60, seen, types, mine[:100], slots)
                await write_worker(self.store, entry, 4 * WORKERS_EVERY)
            await asyncio.sleep(WORKERS_EVERY)


def _at(text: str) -> float:
    value = from_json(text)
    return float(value.get("at", 0.0)) if isinstance(value, Mapping) else 0.0


def create_demonstration(play: Demonstration | None = None, *, dashboard: str = "/jobs") -> FastAPI:
    """The interface over a play, for `milepost serve --demo`: nobody is asked for a key, only this machine may look."""
    play = play if play is not None else Demonstration()
    app = create_app(play.manager, auth=auth.none(), dashboard=dashboard, local_only=True)
    app.state.milepost.background.append(play.playing)
    app.state.demonstration = play
    return app
