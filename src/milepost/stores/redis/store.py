"""The store in Redis or Valkey, for any number of processes and machines.

Every method runs one Lua script in one round trip; `record.lua` documents the layout. A request whose reply is lost is
sent again with the same operation id, so it has no second effect.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from milepost.core.defaults import CLOCK_LEAD, HEARTBEAT, RETRY_BUDGET
from milepost.core.errors import InvalidInputError, MissingExtraError, StoreUnavailableError
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.transitions.change import TransitionType
from milepost.stores.held_jobs import release_held
from milepost.stores.protocol import (
    LAYOUT,
    ApplyResult,
    Claim,
    FeedEvents,
    Position,
    Select,
    Write,
    WriteResult,
)
from milepost.stores.redis.codec import (
    decode_event,
    decode_fields,
    decode_id,
    decode_job,
    decode_kept_event,
    decode_text,
    encode_id,
    feed_order,
)
from milepost.stores.redis.connection import Arg, Call, ConnectionLost, ConnectionPool
from milepost.stores.redis.lua_compiler import MISSING_VALUE, LuaCompiler
from milepost.stores.redis.namespace_methods import SCRIPTS, NamespaceMethods, check_layout
from milepost.stores.sync_bridge import other_form

if TYPE_CHECKING:
    from milepost.stores.redis.client import RedisClient

CONNECT_BUDGET = 5.0
WRITES_AT_ONCE = 500
"""Writes per script, which keeps it under 50 ms; more writes are sent as several scripts in one round trip."""

_NAMESPACE = re.compile(r"[^{}\s\x00-\x1f]{1,64}\Z")
_POSITION = re.compile(r"\d+(-\d+)?\Z")
_NOTHING = TransitionType("nothing", ())
_COMPILER = LuaCompiler()
_DONE = [WriteResult(branch, None) for branch in range(10)]
"""The most frequent results, created once: a branch was applied, and no job was requested."""


class RedisStore(NamespaceMethods):
    """Jobs in Redis 7 or Valkey 7.2, or later, in one namespace. Safe for threads and across a fork.

    `url` is described in `connect`. `connect_budget` and `retry_budget` are the seconds for which a request is retried:
    before it is sent (then StoreUnavailableError) and after (then OutcomeUnknownError). The first use connects. Raises
    InvalidInputError for an invalid URL or namespace.
    """

    shared = True
    report_interval = HEARTBEAT

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
            raise InvalidInputError(
                "namespace", f"{namespace!r:.80} must be 1 to 64 characters without spaces or braces"
            )
        self.blocking = blocking
        self.namespace = namespace
        self._given = (url, connect_budget, retry_budget)
        self._root = f"{{{namespace}}}:".encode()
        self._seen = b"0"
        self._checked = False
        self._client = _client(url, self._root, connect_budget, retry_budget, blocking=blocking)
        self.url = f"{self._client.shown}#{namespace}"

    def __repr__(self) -> str:
        return f"RedisStore({self.url!r}, blocking={self.blocking})"

    def with_blocking(self, *, blocking: bool) -> RedisStore:
        """Return a blocking or an async store on the same jobs, the same object at each call."""
        if blocking == self.blocking:
            return self
        url, connect_budget, retry_budget = self._given
        budgets = {"connect_budget": connect_budget, "retry_budget": retry_budget}
        return other_form(self, lambda: RedisStore(url, namespace=self.namespace, blocking=blocking, **budgets))

    async def close(self) -> None:
        """Close the connections (those of the running loop); the next use opens new ones."""
        await self._client.close()

    # --- jobs: writing ---

    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        """Apply the writes in order, then claim, in one round trip.

        If one write creates a record, a full server refuses all writes of its script (up to WRITES_AT_ONCE).
        """
        applied = await self._apply_batch(writes, claim)
        if closed := [group for one in applied.outcomes for group in one.closed]:
            await release_held(self, closed)
        return applied

    async def _apply_batch(self, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        if not self._checked:
            await self._check()
        if not writes and claim is None:
            return ApplyResult([], [], None)
        if len(writes) <= WRITES_AT_ONCE:
            called, args = self._apply_call(writes, claim)
            return self._applied(writes, await self._client.call(called, *args))
        parts = _parts(writes, claim)
        replies = await self._client.call_all(*(self._apply_call(*part) for part in parts))
        applied = [self._applied(part[0], reply) for part, reply in zip(parts, replies, strict=True)]
        return applied[-1]._replace(outcomes=[outcome for part in applied for outcome in part.outcomes])

    async def _apply_held(self, writes: Sequence[Write]) -> list[WriteResult]:
        return (await self._apply_batch(writes)).outcomes

    def _apply_call(self, writes: Sequence[Write], claim: Claim | None, leases: Sequence[Arg] = ()) -> Call:
        starts = claim.starts if claim is not None else ()
        transitions = [write[1].transition for write in writes]
        called, numbers = _COMPILER.script(
            [*transitions, starts[0].transition if starts else _NOTHING] if claim else transitions
        )
        args: list[Arg] = [self._seen, len(writes)]
        for job_id, change, answer in writes:
            number, width = numbers[change.transition]
            head = f"{number}{'!' * answer}:{change.key or ''}" if answer or change.key else number
            args += (encode_id(job_id), head, change.operation_id)
            args += _sent(change.values[:width])
        if leases:
            args += ("renew", *leases)
        while claim is None and args[-1] is MISSING_VALUE:  # values that are missing at the end are not sent
            args.pop()
        if claim is not None:
            args += ("claim", claim.worker, claim.operation_id, claim.number)
            args += (encode_id(claim.job_id) if claim.job_id else b"", len(claim.queues))
            for queue, limit in claim.queues.items():
                args += (queue, b"" if limit is None else limit)
            number, width = numbers[starts[0].transition if starts else _NOTHING]
            args += (number, len(starts))
            for start in starts:
                args.append(start.operation_id)
                args += _sent(start.values[:width])
        return called, args

    def _applied(self, writes: Sequence[Write], reply: list[Any] | bytes) -> ApplyResult:
        if isinstance(reply, bytes):  # one branch for all, of `lua_single_write` or `lua_new_records`
            now, branch = reply.split()
            self._saw(now)
            return ApplyResult([_DONE[int(branch)]] * len(writes), [], None)
        self._saw(reply[0])
        outcomes = []
        for write, outcome in zip(writes, reply[1], strict=True):
            if isinstance(outcome, int):
                outcomes.append(_DONE[outcome])
            else:
                branch, text, repeated, key_owner_id, *rest = outcome
                job = decode_job(write.job_id, text)
                owner = decode_id(key_owner_id) if key_owner_id else None
                closed = tuple(map(decode_text, rest[1])) if len(rest) > 1 else ()
                outcomes.append(WriteResult(branch, job, repeated == 1, owner, rest[0] if rest else 0, closed))
        if len(reply) == 2:
            return ApplyResult(outcomes, [], None)
        due = reply[3]
        return ApplyResult(outcomes, _jobs(reply[2]), int(due) if due else None, int(reply[0]))

    async def heartbeat(
        self, writes: Sequence[Write], leases: Sequence[tuple[str, str]], micros: int | None
    ) -> tuple[list[WriteResult], list[str]]:
        """Apply the writes and renew the leases in one round trip."""
        if not self._checked:
            await self._check()
        if not writes:
            return [], await self.renew(leases, micros)
        outcomes = (await self._apply_batch(writes[:-WRITES_AT_ONCE])).outcomes if len(writes) > WRITES_AT_ONCE else []
        last = writes[-WRITES_AT_ONCE:]
        called, args = self._apply_call(last, None, _leases(leases, micros) if leases else ())
        reply = await self._client.call(called, *args)
        answers = reply.pop() if leases else []
        outcomes += self._applied(last, reply).outcomes
        if closed := [group for one in outcomes for group in one.closed]:
            await release_held(self, closed)
        return outcomes, _answers(answers)

    async def renew(self, leases: Sequence[tuple[str, str]], micros: int | None) -> list[str]:
        """Renew leases given as (job id, token); return ``"live"``, ``"stopping"`` or ``"lost"`` for each."""
        if not leases:
            return []
        now, answers = await self._run("renew", *_leases(leases, micros))
        self._saw(now)
        return _answers(answers)

    # --- jobs: reading ---

    async def get(self, job_id: str) -> Job | None:
        """Return the job of an id, or None."""
        return decode_job(job_id, await self._run("get", encode_id(job_id)))

    async def select(self, select: Select, limit: int, after: Position | None = None) -> list[Job]:
        """Return the newest `limit` matching jobs after a position."""
        jobs: list[Job] = []
        created: Arg = b"" if after is None else after.created
        name = b"" if after is None else encode_id(after.job_id)
        labels = [f"{key}={value}" for key, value in select.labels]
        bounds = [b"" if bound is None else bound for bound in (select.created_after, select.created_before)]
        words: list[Arg] = [*bounds, int(select.stalled)]
        for texts in (select.types, select.statuses, labels):
            words += (len(texts), *texts)
        while len(jobs) < limit:
            reply = await self._run("select", limit - len(jobs), created, name, *words)
            jobs += [Job.stored(decode_id(stored), text) for stored, text in zip(reply[0], reply[1], strict=True)]
            if len(reply) == 2:
                break
            created, name = reply[2]
        return jobs

    async def oldest(self, status: str, limit: int) -> list[Job]:
        """Return the `limit` oldest jobs of a status."""
        ids, texts = await self._run("oldest", status, limit)
        return [Job.stored(decode_id(stored), text) for stored, text in zip(ids, texts, strict=True)]

    async def count(self, select: Select) -> int | None:
        """Return the exact number of matches, or None if no index has it."""
        if not select.is_counted:
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
        """Return the number of jobs by (type, status)."""
        flat = await self._run("count", b"")
        found = {}
        for name, number in zip(flat[::2], flat[1::2], strict=True):
            job_type, _, status = decode_text(name).rpartition(":")
            if number:
                found[job_type, status] = int(number)
        return found

    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        """Return the kept events of a job with a version above `after`, oldest first."""
        kept = [decode_kept_event(job_id, event) for event in await self._run("events", encode_id(job_id))]
        return sorted((event for event in kept if event.version > after), key=lambda event: event.version)[:limit]

    async def feed(self, position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> FeedEvents:
        """Return the events of all jobs after a position; wait up to `timeout` seconds for the first one."""
        if not self._checked:
            await self._check()
        stream = self._root + b"f"
        if position is None:
            newest = await self._client.ask("XREVRANGE", stream, "+", "-", "COUNT", 1)
            return FeedEvents([], decode_text(newest[0][0]) if newest else "0-0")
        if not _POSITION.match(position):
            raise InvalidInputError(
                "position", f"{position!r:.60} is not a position of this feed; use one that it returned"
            )
        until = monotonic() + timeout
        while True:
            left = max(0.0, until - monotonic())
            waits = ("BLOCK", max(1, round(left * 1000))) if left > 0 else ()
            try:
                first, read = await self._client.wait(
                    (
                        ("XRANGE", stream, "-", "+", "COUNT", 1),
                        ("XREAD", "COUNT", limit, *waits, "STREAMS", stream, position),
                    ),
                    left,
                )
                break
            except ConnectionLost as error:
                if monotonic() > until + self._client.connect_budget:
                    raise StoreUnavailableError(f"reading the feed failed: {error}") from None
        entries = (read[stream] if isinstance(read, dict) else read[0][1]) if read else []
        lost = (
            bool(first) and position not in ("0", "0-0") and feed_order(decode_text(first[0][0])) > feed_order(position)
        )
        events = []
        for _, flat in entries:
            fields = decode_fields(flat)
            events.append(decode_event(decode_id(fields[b"i"]), int(fields[b"v"]), fields[b"e"]))
        return FeedEvents(events, decode_text(entries[-1][0]) if entries else position, lost)

    async def wait_for_work(self, worker: str, queues: Sequence[str], timeout: float) -> bool | Literal["worker"]:
        """Wait until a job may be claimable, a run of the worker is to stop, or it is woken; see `protocol.Store`."""
        lists = [self._root + f"wake:{worker}".encode(), *(self._root + f"ready:{queue}".encode() for queue in queues)]
        seconds = max(timeout, 0.001)
        try:
            (token,) = await self._client.wait((("BLPOP", *lists, f"{seconds:.3f}"),), seconds)
        except ConnectionLost:
            if self.blocking is False:
                await asyncio.sleep(0)
            return True  # something may have happened during the outage, so the worker has to check
        return "worker" if token is not None and token[0] == lists[0] else token is not None

    # --- requests ---

    async def _run(self, method: str, *args: Arg) -> Any:
        if not self._checked:
            await self._check()
        reply = await self._client.call(SCRIPTS[method], self._seen, *args)
        if method == "now":
            self._saw(reply)
        return reply

    async def _command(self, *words: Arg) -> Any:
        return await self._client.command(*words)

    async def _ask(self, *words: Arg) -> Any:
        return await self._client.ask(*words)

    async def _check(self) -> None:
        """Check the layout of the namespace; an empty one gets the current layout."""
        found = await self._command("GET", self._root + b"layout")  # a replica answers this, but no writing script
        if not isinstance(found, bytes):
            found = await self._client.call(SCRIPTS["layout"], self._seen, LAYOUT)
        check_layout(found, self.url)
        self._checked = True

    def _saw(self, now: bytes) -> None:
        """Keep the latest time that this store has seen, unless the server's clock stepped back by more than CLOCK_LEAD."""
        if now > self._seen or int(self._seen) - int(now) > CLOCK_LEAD:
            self._seen = now


def _parts(writes: Sequence[Write], claim: Claim | None) -> list[tuple[Sequence[Write], Claim | None]]:
    """Split writes into as many as one script takes; the claim goes with the last part."""
    parts = [writes[at : at + WRITES_AT_ONCE] for at in range(0, len(writes), WRITES_AT_ONCE)]
    return [(part, claim if part is parts[-1] else None) for part in parts]


def _sent(values: Sequence[Any]) -> Sequence[Arg]:
    """Return the values of a change as arguments of the scripts."""
    return [MISSING_VALUE if value is None else value for value in values] if None in values else values


def _leases(leases: Sequence[tuple[str, str]], micros: int | None) -> list[Arg]:
    """Return leases as arguments of the scripts."""
    pairs = [part for job_id, token in leases for part in (encode_id(job_id), token)]
    return [b"" if micros is None else micros, *pairs]


def _answers(answers: Sequence[int]) -> list[str]:
    return [("lost", "stopping", "live")[answer] for answer in answers]


def _jobs(flat: list[bytes]) -> list[Job]:
    """Return the jobs of a reply with alternating ids and records."""
    found = []
    for name, text in zip(flat[::2], flat[1::2], strict=True):
        job = decode_job(decode_id(name), text)
        if job is not None:
            found.append(job)
    return found


def _client(url: str, root: bytes, connect_budget: float, retry_budget: float, *, blocking: bool) -> RedisClient:
    """Return the client for a URL. Modules that need redis-py are imported here; MissingExtraError without it."""
    try:
        from milepost.stores.redis.client import RedisClient
        from milepost.stores.redis.connect import parse_redis_url

        pool: ConnectionPool
        if blocking:
            from milepost.stores.redis.connection import SyncConnectionPool

            pool = SyncConnectionPool()
        else:
            from milepost.stores.redis.async_connection import AsyncConnectionPool

            pool = AsyncConnectionPool()
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("redis", "hiredis"):
            raise
        raise MissingExtraError("redis", "a store in Redis") from error
    return RedisClient(parse_redis_url(url), pool, root, connect_budget=connect_budget, retry_budget=retry_budget)
