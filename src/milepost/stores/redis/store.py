"""The store in Redis or Valkey, for any number of processes and machines. Owns the verbs for jobs; decides nothing.

Every verb is one script (`statements/*.lua`) and one round trip; the scripts' preludes document the layout. A request
whose reply is lost is sent again with the same operation id, so it has no second effect.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from milepost.core.change import Shape
from milepost.core.defaults import RETRY_BUDGET
from milepost.core.errors import InvalidInput, MissingExtra, StoreFull, StoreUnavailable
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.stores.protocol import (
    LAYOUT,
    Applied,
    Claim,
    FeedEvents,
    Outcome,
    Position,
    Select,
    Write,
)
from milepost.stores.redis.links import Call, LinkDown, Wires, Word
from milepost.stores.redis.names import event_of, fields_of, job_of, kept_event_of, plain, raw, text_of
from milepost.stores.redis.shapes import NONE, Compiler
from milepost.stores.redis.side import VERBS, SideVerbs, check_layout

if TYPE_CHECKING:
    from milepost.stores.redis.port import Port

CONNECT_BUDGET = 5.0
WRITES_AT_ONCE = 500
"""Writes in one script, which keeps it under 50 ms; more of them are several scripts in one round trip."""

_NAMESPACE = re.compile(r"[^{}\s\x00-\x1f]{1,64}\Z")
_POSITION = re.compile(r"\d+(-\d+)?\Z")
_NOTHING = Shape("nothing", ())
_COMPILER = Compiler()
_DONE = [Outcome(case, None) for case in range(10)]
"""What most writes come to, made beforehand: a case was performed, and no answer was asked for."""


class RedisStore(SideVerbs):
    """Jobs in Redis 7 or Valkey 7.2, or later, under one namespace. Safe for threads, and over a fork.

    `url`: see `dialing`. `connect_budget` and `retry_budget` are the seconds for which a request is tried before it is
    StoreUnavailable, and once it was sent before it is OutcomeUnknown. Nothing is connected before the first verb.
    Raises InvalidInput for a URL or namespace that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "milepost",
        blocking: bool = True,
        connect_budget: float = CONNECT_BUDGET,
        retry_budget: float = RETRY_BUDGET,
    ) -> None:
        if not isinstance(namespace, str) or not _NAMESPACE.match(namespace):
            raise InvalidInput("namespace", f"{namespace!r:.80} must be 1 to 64 characters without spaces and braces")
        self.blocking = blocking
        self.namespace = namespace
        self._given = (url, connect_budget, retry_budget)
        self._root = f"{{{namespace}}}:".encode()
        self._seen = b"0"
        self._checked = False
        self._port = _port(url, self._root, connect_budget, retry_budget, blocking=blocking)
        self.url = f"{self._port.shown}#{namespace}"

    def __repr__(self) -> str:
        return f"RedisStore({self.url!r}, blocking={self.blocking})"

    def twin(self, *, blocking: bool) -> RedisStore:
        """A store on the same jobs over the other kind of wires; itself for the same kind, which can be shared."""
        if blocking == self.blocking:
            return self
        url, connect_budget, retry_budget = self._given
        return RedisStore(
            url, namespace=self.namespace, blocking=blocking, connect_budget=connect_budget, retry_budget=retry_budget
        )

    async def close(self) -> None:
        """Give back the connections (those of the running loop); the store can be used again."""
        await self._port.close()

    # --- jobs: writing ---

    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> Applied:
        """Apply each write, in order, then claim: one round trip for the lot."""
        if not self._checked:
            await self._check()
        if not writes and claim is None:
            return Applied([], [], None)
        try:
            if len(writes) <= WRITES_AT_ONCE:
                called, args = self._apply_call(writes, claim)
                return self._applied(writes, await self._port.call(called, *args))
            parts = _parts(writes, claim)
            replies = await self._port.call_all(*(self._apply_call(*part) for part in parts))
        except StoreFull:
            await self._spared(writes)
            raise
        applied = [self._applied(part[0], reply) for part, reply in zip(parts, replies, strict=True)]
        return applied[-1]._replace(outcomes=[outcome for part in applied for outcome in part.outcomes])

    async def _spared(self, writes: Sequence[Write]) -> None:
        """A full server has refused a batch because of what it would create: the rest of it is to be done all the same."""
        rest = [write for write in writes if not _COMPILER.compiled(write.change.shape).grows]
        if rest and len(rest) < len(writes):
            await self.apply(rest)

    def _apply_call(self, writes: Sequence[Write], claim: Claim | None, leases: Sequence[Word] = ()) -> Call:
        starts = claim.starts if claim is not None else ()
        shapes = [write[1].shape for write in writes]
        called, numbers = _COMPILER.script([*shapes, starts[0].shape if starts else _NOTHING] if claim else shapes)
        args: list[Word] = [self._seen, len(writes)]
        for job_id, change, answer in writes:
            number, width = numbers[change.shape]
            args += (raw(job_id), number, change.op, change.key or b"", b"1" if answer else b"0")
            args += [NONE if value is None else value for value in change.values[:width]]
        if leases:
            args += ("renew", *leases)
        if claim is not None:
            args += ("claim", claim.worker, claim.op, raw(claim.job_id) if claim.job_id else b"", len(claim.queues))
            for queue, limit in claim.queues.items():
                args += (queue, b"" if limit is None else limit)
            number, width = numbers[starts[0].shape if starts else _NOTHING]
            args += (number, len(starts))
            for start in starts:
                args.append(start.op)
                args += [NONE if value is None else value for value in start.values[:width]]
        return called, args

    def _applied(self, writes: Sequence[Write], reply: list[Any]) -> Applied:
        self._saw(reply[0])
        outcomes = []
        for write, outcome in zip(writes, reply[1], strict=True):
            if isinstance(outcome, int):
                outcomes.append(_DONE[outcome])
            else:
                case, text, repeated, holder = outcome
                job = job_of(write.job_id, text)
                outcomes.append(Outcome(case, job, repeated == 1, plain(holder) if holder else None))
        if len(reply) == 2:
            return Applied(outcomes, [], None)
        due = reply[3]
        return Applied(outcomes, _jobs(reply[2]), int(due) if due else None, int(reply[0]))

    async def beat(
        self, writes: Sequence[Write], leases: Sequence[tuple[str, str]], micros: int | None
    ) -> tuple[list[Outcome], list[str]]:
        """`apply` the writes and `renew` the leases, in one round trip."""
        if not self._checked:
            await self._check()
        if not writes:
            return [], await self.renew(leases, micros)
        outcomes = (await self.apply(writes[:-WRITES_AT_ONCE])).outcomes if len(writes) > WRITES_AT_ONCE else []
        last = writes[-WRITES_AT_ONCE:]
        called, args = self._apply_call(last, None, _leases(leases, micros) if leases else ())
        try:
            reply = await self._port.call(called, *args)
        except StoreFull:
            await self._spared(last)
            await self.renew(leases, micros)
            raise
        answers = reply.pop() if leases else []
        return outcomes + self._applied(last, reply).outcomes, _answers(answers)

    async def renew(self, leases: Sequence[tuple[str, str]], micros: int | None) -> list[str]:
        """For each (job id, token): renew its lease; ``"live"``, ``"stopping"`` or ``"lost"``."""
        if not leases:
            return []
        now, answers = await self._run("renew", *_leases(leases, micros))
        self._saw(now)
        return _answers(answers)

    # --- jobs: reading ---

    async def get(self, job_id: str) -> Job | None:
        """The record of an id."""
        return job_of(job_id, await self._run("get", raw(job_id)))

    async def select(self, select: Select, limit: int, after: Position | None = None) -> list[Job]:
        """The newest `limit` jobs that match and come after a position."""
        jobs: list[Job] = []
        created: Word = b"" if after is None else after.created
        name = b"" if after is None else raw(after.job_id)
        labels = [f"{key}={value}" for key, value in select.labels]
        bounds = [b"" if bound is None else bound for bound in (select.created_after, select.created_before)]
        words: list[Word] = [*bounds, int(select.stalled)]
        for texts in (select.types, select.statuses, labels):
            words += (len(texts), *texts)
        while len(jobs) < limit:
            reply = await self._run("select", limit - len(jobs), created, name, *words)
            jobs += [Job.stored(plain(stored), text) for stored, text in zip(reply[0], reply[1], strict=True)]
            if len(reply) == 2:
                break
            created, name = reply[2]
        return jobs

    async def count(self, select: Select) -> int | None:
        """How many match, exactly; None where no index tells."""
        narrow = bool(select.types or select.statuses)
        if select.created_after is not None or select.created_before is not None:
            return None
        if len(select.labels) + select.stalled + narrow > 1:
            return None
        if select.labels or select.stalled:
            index = "l:" + "=".join(select.labels[0]) if select.labels else "stalled"
            return int((await self._run("count", index))[1])
        return sum(
            number
            for (job_type, status), number in (await self.counts()).items()
            if (not select.types or job_type in select.types) and (not select.statuses or status in select.statuses)
        )

    async def counts(self) -> dict[tuple[str, str], int]:
        """How many jobs there are by (type, status)."""
        flat = await self._run("count", b"")
        found = {}
        for name, number in zip(flat[::2], flat[1::2], strict=True):
            job_type, _, status = text_of(name).rpartition(":")
            if number:
                found[job_type, status] = int(number)
        return found

    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        """The kept events of a job with a version above `after`, oldest first."""
        kept = [kept_event_of(job_id, event) for event in await self._run("events", raw(job_id))]
        return sorted((event for event in kept if event.version > after), key=lambda event: event.version)[:limit]

    async def feed(self, position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> FeedEvents:
        """Events of all jobs after a position; waits up to `timeout` seconds for the first one."""
        if not self._checked:
            await self._check()
        stream = self._root + b"f"
        if position is None:
            newest = await self._port.ask("XREVRANGE", stream, "+", "-", "COUNT", 1)
            return FeedEvents([], text_of(newest[0][0]) if newest else "0-0")
        if not _POSITION.match(position):
            raise InvalidInput("position", f"{position!r:.60} is not a position of this feed")
        until = monotonic() + timeout
        while True:
            left = max(0.0, until - monotonic())
            waits = ("BLOCK", max(1, round(left * 1000))) if left > 0 else ()
            try:
                first, read = await self._port.wait(
                    (
                        ("XRANGE", stream, "-", "+", "COUNT", 1),
                        ("XREAD", "COUNT", limit, *waits, "STREAMS", stream, position),
                    ),
                    left,
                )
                break
            except LinkDown as error:
                if monotonic() > until + self._port.connect_budget:
                    raise StoreUnavailable(f"the feed broke off: {error}") from None
        entries = (read[stream] if isinstance(read, dict) else read[0][1]) if read else []
        lost = bool(first) and position not in ("0", "0-0") and _order(text_of(first[0][0])) > _order(position)
        events = []
        for _, flat in entries:
            fields = fields_of(flat)
            events.append(event_of(plain(fields[b"i"]), int(fields[b"v"]), fields[b"e"]))
        return FeedEvents(events, text_of(entries[-1][0]) if entries else position, lost)

    async def idle(self, worker: str, queues: Sequence[str], timeout: float) -> bool:
        """Wait until a job may be claimable, a run of this worker is told to stop, or it is nudged."""
        lists = [self._root + f"wake:{worker}".encode(), *(self._root + f"ready:{queue}".encode() for queue in queues)]
        seconds = max(timeout, 0.001)
        try:
            (token,) = await self._port.wait((("BLPOP", *lists, f"{seconds:.3f}"),), seconds)
        except LinkDown:
            if self.blocking is False:
                await asyncio.sleep(0)
            return True  # whatever happened meanwhile is seen by looking
        return token is not None

    # --- what all verbs use ---

    async def _run(self, verb: str, *args: Word) -> Any:
        if not self._checked:
            await self._check()
        reply = await self._port.call(VERBS[verb], self._seen, *args)
        if verb == "now":
            self._saw(reply)
        return reply

    async def _command(self, *words: Word) -> Any:
        return await self._port.command(*words)

    async def _ask(self, *words: Word) -> Any:
        return await self._port.ask(*words)

    async def _check(self) -> None:
        """Hold the layout of the namespace against ours; an empty one gets ours."""
        found = await self._command("GET", self._root + b"layout")  # a replica answers this, and no script that writes
        if not isinstance(found, bytes):
            found = await self._port.call(VERBS["layout"], self._seen, LAYOUT)
        check_layout(found, self.url)
        self._checked = True

    def _saw(self, now: bytes) -> None:
        """The latest time that this store has seen: it does not go back where the server's clock does."""
        if now > self._seen:
            self._seen = now


def _parts(writes: Sequence[Write], claim: Claim | None) -> list[tuple[Sequence[Write], Claim | None]]:
    """The writes, as many as go into one script; the claim is with the last of them."""
    parts = [writes[at : at + WRITES_AT_ONCE] for at in range(0, len(writes), WRITES_AT_ONCE)]
    return [(part, claim if part is parts[-1] else None) for part in parts]


def _leases(leases: Sequence[tuple[str, str]], micros: int | None) -> list[Word]:
    """Leases as the scripts take them."""
    pairs = [part for job_id, token in leases for part in (raw(job_id), token)]
    return [b"" if micros is None else micros, *pairs]


def _answers(answers: Sequence[int]) -> list[str]:
    return [("lost", "stopping", "live")[answer] for answer in answers]


def _jobs(flat: list[bytes]) -> list[Job]:
    """The jobs of a reply of ids and texts in turn."""
    found = []
    for name, text in zip(flat[::2], flat[1::2], strict=True):
        job = job_of(plain(name), text)
        if job is not None:
            found.append(job)
    return found


def _order(position: str) -> tuple[int, int]:
    first, _, second = position.partition("-")
    return int(first), int(second or 0)


def _port(url: str, root: bytes, connect_budget: float, retry_budget: float, *, blocking: bool) -> Port:
    """The port of a URL; what needs redis-py is imported here. Raises MissingExtra without it."""
    try:
        from milepost.stores.redis.dialing import target_of
        from milepost.stores.redis.port import Port

        wires: Wires
        if blocking:
            from milepost.stores.redis.blocking import BlockingWires

            wires = BlockingWires()
        else:
            from milepost.stores.redis.asynchronous import AsyncWires

            wires = AsyncWires()
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("redis", "hiredis"):
            raise
        raise MissingExtra("redis", "a store in Redis") from error
    return Port(target_of(url), wires, root, connect_budget=connect_budget, retry_budget=retry_budget)
