"""The methods of the Redis store that do not concern single jobs: key-value, limits, sweep, purge, health."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from milepost.core import rollups
from milepost.core.defaults import FEED_SECONDS
from milepost.core.errors import LayoutMismatchError
from milepost.core.ledger import Book
from milepost.core.limits import KEEP, Keep, Limit, Rate
from milepost.core.serialization import US
from milepost.core.transitions.table import TERMINAL
from milepost.stores.held_jobs import release_held
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import (
    LAYOUT,
    MEMBER_STATES,
    DueItem,
    HealthReport,
    KeyValue,
    PurgeResult,
    SweepResult,
    Write,
    WriteResult,
)
from milepost.stores.redis.codec import decode_fields, decode_id, decode_job, decode_text
from milepost.stores.redis.connection import Arg
from milepost.stores.redis.scripts import script
from milepost.stores.retention import LEVELS, purge_in_batches
from milepost.stores.store_values import validate_entry

OLDEST_SERVER = (7, 0)
FAILOVER_LOSES = (
    "min-replicas-to-write is 0: a Sentinel failover loses writes that the old master still acknowledges; "
    "set it to 1 on every server"
)
PURGE_BATCH = 200
"""Records removed by one script: a few milliseconds."""


class _Caller(Protocol):
    namespace: str
    url: str

    async def _run(self, verb: str, *args: Arg) -> Any: ...

    async def _command(self, *words: Arg) -> Any: ...

    async def _ask(self, *words: Arg) -> Any: ...

    async def _apply_held(self, writes: Sequence[Write]) -> list[WriteResult]: ...

    async def held_by(self, group: str, limit: int) -> list[str]: ...

    async def open_members(self, group: str, limit: int) -> list[str]: ...


class NamespaceMethods:
    """Key-value, limits, sweep, purge and health."""

    async def kv_get(self: _Caller, key: str) -> KeyValue | None:
        """Return the value of a key, or None if it does not exist or has expired."""
        got = await self._run("kv_get", key)
        return KeyValue(key, decode_text(got[0]), int(got[1])) if got else None

    async def kv_put(
        self: _Caller, key: str, value: str, *, version: int | None = None, ttl: float | None = None
    ) -> int | None:
        """Set a value if the key has this version; return the new version, or None. `ttl` is in seconds."""
        validate_entry(key, value)
        expected = "" if version is None else str(version)
        lives = "" if ttl is None else str(max(0, round(ttl * 1000)))
        reply = await self._run("kv_put", new_operation_id(), key, value, expected, lives, LAYOUT)
        return None if reply is None else int(reply)

    async def kv_delete(self: _Caller, key: str) -> bool:
        """Delete a key and return whether it existed."""
        return bool(await self._run("kv_delete", new_operation_id(), key))

    async def kv_scan(self: _Caller, prefix: str, after: str = "", limit: int = 1000) -> list[KeyValue]:
        """Return the values whose keys start with `prefix` and follow `after`, ordered by key."""
        first = prefix.encode()
        low = b"(" + after.encode() if after.encode() >= first and after else b"[" + first
        high = b"(" + first + b"\xff" if first else b"+"  # UTF-8 never contains this byte
        flat = await self._run("kv_scan", low, high, limit)
        return [
            KeyValue(decode_text(key), decode_text(value), int(version))
            for key, value, version in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]

    async def limits(self: _Caller) -> dict[str, Limit]:
        """Return the limits of limit keys, by key."""
        found = {}
        for key, setting in decode_fields(await self._ask("HGETALL", f"{{{self.namespace}}}:limits")).items():
            running, paused, per_partition, rate, _, _, gate, opens = decode_text(setting).split(":")
            found[decode_text(key)] = Limit(
                int(running) if running else None,
                paused == "1",
                int(per_partition) if per_partition else None,
                Rate.parse(rate) if rate else None,
                int(gate or 0),
                int(opens or 0),
            )
        return found

    async def set_limit(
        self: _Caller,
        key: str,
        running: int | Keep | None,
        paused: bool | Keep,
        per_partition: int | Keep | None = None,
        rate: Rate | Keep | None = KEEP,
    ) -> None:
        """Limit a key for all workers, or pause the type of that name."""
        given = (running, paused, per_partition)
        parts = ["=" if value is KEEP else "" if value is None else str(int(value)) for value in given]
        if rate is not KEEP:
            parts += ["", "", ""] if rate is None else [str(rate), str(rate.spacing), str(rate.tolerance)]
        await self._run("set_limit", key, ":".join(parts))

    async def close_gate(self: _Caller, key: str, micros: int) -> None:
        """Let no job with a limit key start for `micros` from now, or for longer if it is closed for longer; 0 opens it."""
        await self._run("close_gate", key, micros)

    async def held_slots(self: _Caller) -> dict[str, int]:
        """Return the number of leases, live and draining, by slot and by limit key."""
        found = decode_fields(await self._ask("HGETALL", f"{{{self.namespace}}}:n"))
        return {decode_text(name): int(count) for name, count in found.items()}

    async def claimable_jobs(self: _Caller) -> dict[str, int]:
        """Return how many jobs are claimable under each limit key that has a setting."""
        flat = await self._run("claimable_jobs")
        return {decode_text(key): int(n) for key, n in zip(flat[::2], flat[1::2], strict=True) if int(n)}

    async def draining_leases(self: _Caller) -> list[tuple[str, str, int]]:
        """Return the draining leases as (job id, token, expiry in us)."""
        flat = await self._run("draining_leases")
        return [
            (decode_id(job_id), decode_text(token), int(expires))
            for job_id, token, expires in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]

    async def wake(self: _Caller, worker: str) -> None:
        """Wake a worker that waits for work, from any process."""
        await self._run("wake", worker)

    async def held_by(self: _Caller, group: str, limit: int) -> list[str]:
        """Return the ids of the first `limit` jobs that this group holds, by `created` and id."""
        return [decode_id(name) for name in await self._ask("ZRANGE", f"{{{self.namespace}}}:h:{group}", 0, limit - 1)]

    async def open_members(self: _Caller, group: str, limit: int) -> list[str]:
        """Return the ids of up to `limit` open members of a group of several members."""
        found = await self._ask("SRANDMEMBER", f"{{{self.namespace}}}:m:{group}:", limit)
        return sorted(map(decode_id, found))

    async def member_counts(self: _Caller, groups: Sequence[str]) -> list[dict[str, int]]:
        """Return the exact numbers of the members of each group by MEMBER_STATES, without zeros."""
        replies = await self._run("member_counts", len(groups), *groups, *MEMBER_STATES)
        return [
            {state: count for state, count in zip(MEMBER_STATES, counts, strict=True) if count} for counts in replies
        ]

    async def sweep(
        self: _Caller,
        *,
        lease: float,
        interval: float,
        limit: int = 200,
        task_queue: str | None = None,
        unreached: float = 0.0,
    ) -> SweepResult:
        """Find what is due, see `protocol.Store`."""
        times = (lease, interval, FEED_SECONDS, unreached)
        micros = [round(seconds * 1_000_000) for seconds in times]
        reply = await self._run("sweep", micros[0], micros[1], limit, micros[2], task_queue or b"", micros[3])
        _, skipped, held, found, more, closed = reply
        due = [
            DueItem(
                decode_text(kind),
                (name := decode_id(job_id)),
                decode_job(name, text),
                decode_text(token),
                int(sibling_leases),
            )
            for kind, job_id, text, token, sibling_leases in found
        ]
        closing = tuple(map(decode_text, closed))
        await release_held(self, closing)
        return SweepResult(due, skipped == 1, held == 1, more == 1, closing)

    async def purge(self: _Caller, *, before: int, limit: int = 500) -> PurgeResult:
        """Remove up to `limit` jobs that ended before a time, in short steps."""
        return await purge_in_batches(
            lambda size: self._run("purge", before, size, LEVELS, *TERMINAL, "closed"), limit, PURGE_BATCH
        )

    async def rollups(self: _Caller, since: int, *, hourly: bool = False) -> rollups.Rollups:
        """Return the ends of jobs in the minutes (or hours) since a time."""
        width, kept, _ = rollups.RESOLUTIONS[hourly]
        now, closed, counts, dropped = await self._run("rollups", int(hourly), max(0, since // width), kept)
        texts = zip(map(int, closed[::2]), map(decode_text, closed[1::2]), strict=True)
        still_open = []
        for field, count in decode_fields(counts).items():
            minute, _, rest = decode_text(field).partition(US)
            name, _, metric = rest.rpartition(US)
            if int(minute) >= since // rollups.MINUTE:
                still_open.append((int(minute), name, metric, int(count)))
        complete = rollups.complete_since(int(now), None if dropped is None else int(dropped), hourly=hourly)
        return rollups.Rollups(rollups.assembled(texts, still_open, hourly=hourly), complete)

    async def usage(self: _Caller, books: Sequence[str]) -> list[Book]:
        """Return books of the ledger of usage."""
        return [
            {decode_text(field).rpartition(US)[::2]: int(amount) for field, amount in decode_fields(found).items()}
            for found in await self._run("usage", *books)
        ]

    async def now(self: _Caller) -> int:
        """Return the store's clock, in microseconds since 1970."""
        return int(await self._run("now"))

    async def check_health(self: _Caller) -> HealthReport:
        """Check the server: version, durability, eviction, role, layout."""
        reply = await self._command("INFO")
        if isinstance(reply, Exception):
            return HealthReport("redis", "", LAYOUT, "unknown", (f"INFO was refused: {reply}",))
        info = _info(reply)
        valkey = info.get("server_name") == "valkey"
        kind, version = ("valkey", info["valkey_version"]) if valkey else ("redis", info.get("redis_version", ""))
        layout = await self._command("GET", f"{{{self.namespace}}}:layout")
        check_layout(layout if isinstance(layout, bytes) else None, self.url)
        found = await self._command("CONFIG", "GET", "appendfsync", "save")
        settings = {} if isinstance(found, Exception) else decode_fields(found)
        durability, warnings = _durability(info, settings)
        if (
            tuple(int(part) for part in info.get("redis_version", "0.0").split(".")[:2] if part.isdigit())
            < OLDEST_SERVER
        ):
            warnings.append(f"Redis {version} is older than 7.0, which milepost needs")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            warnings.append(f"maxmemory-policy is {policy}: records may be evicted; set it to noeviction")
        if self.url.startswith(("redis+sentinel:", "rediss+sentinel:")):
            setting = await self._command("CONFIG", "GET", "min-replicas-to-write")
            if not isinstance(setting, Exception) and decode_fields(setting).get(b"min-replicas-to-write") == b"0":
                warnings.append(FAILOVER_LOSES)
        role = info.get("role", "")
        if role != "master":
            warnings.append(f"this server is a {role} and accepts no writes; use the URL of the master")
        details = {name: info[name] for name in _REPORTED if name in info}
        return HealthReport(kind, version, LAYOUT, durability, tuple(warnings), details)


_REPORTED = (
    "role", "redis_mode", "maxmemory", "maxmemory_policy", "used_memory", "aof_enabled", "connected_slaves",
    "rdb_last_bgsave_status", "aof_last_write_status", "connected_clients", "uptime_in_seconds",
)  # fmt: skip


def _info(reply: bytes) -> dict[str, str]:
    return dict(
        line.split(":", 1) for line in decode_text(reply).splitlines() if ":" in line and not line.startswith("#")
    )


def _durability(info: dict[str, str], settings: Mapping[bytes, bytes]) -> tuple[str, list[str]]:
    """Return what a crash of the server loses, and warnings about it. `settings` are empty if the server keeps them secret."""
    problems = [
        f"the last {what} failed: writes may be refused; check the server's log and disk"
        for name, what in (("rdb_last_bgsave_status", "snapshot"), ("aof_last_write_status", "append-only file write"))
        if info.get(name, "ok") != "ok"
    ]
    if info.get("aof_enabled") == "1":
        lost = {"always": "nothing", "everysec": "about a second", "no": "what the system had not yet written"}
        fsync = decode_text(settings.get(b"appendfsync", b""))
        return f"append-only file, a crash loses {lost.get(fsync, 'about a second')}", problems
    if settings.get(b"save") == b"":
        problems.append(
            "appendonly is off, and there are no snapshots: a restart loses everything; set appendonly to yes"
        )
        return "memory only", problems
    problems.append("appendonly is off: a crash loses everything since the last snapshot; set it to yes")
    return "snapshots only", problems


def check_layout(found: bytes | None, url: str) -> None:
    """Raise LayoutMismatchError if this release cannot read the version of the layout."""
    version = decode_text(found) if found else str(LAYOUT)
    if version != str(LAYOUT):
        raise LayoutMismatchError(url, version, LAYOUT)


SCRIPTS = {
    verb: script(verb)
    for verb in (
        "get", "select", "oldest", "count", "member_counts", "events", "renew", "sweep", "purge", "set_limit", "close_gate", "claimable_jobs", "draining_leases", "wake", "now", "layout", "rollups", "usage",
        "kv_get", "kv_delete", "kv_scan",
    )
} | {"kv_put": script("kv_put", grows=True)}  # fmt: skip
"""method -> its script, except `apply`, whose scripts are compiled."""
