"""The verbs beside the jobs: the shelf, the limits of queues, the sweep, the look at the server. Owns their forms."""

from __future__ import annotations

from typing import Any, Protocol

from milepost.core.errors import LayoutMismatch
from milepost.stores.ids import new_op
from milepost.stores.protocol import LAYOUT, Due, Fitness, Item, Pass
from milepost.stores.redis.links import Word
from milepost.stores.redis.names import fields_of, job_of, plain, text_of
from milepost.stores.redis.scripts import script

OLDEST_SERVER = (7, 0)
PURGED_AT_ONCE = 200
"""Records removed by one script: a few milliseconds."""


class _Caller(Protocol):
    namespace: str
    url: str

    async def _run(self, verb: str, *args: Word) -> Any: ...

    async def _command(self, *words: Word) -> Any: ...

    async def _ask(self, *words: Word) -> Any: ...


class SideVerbs:
    """What a store does beside jobs."""

    async def shelf_get(self: _Caller, key: str) -> Item | None:
        """The value of a key, or None when there is none or it has expired."""
        got = await self._run("shelf_get", key)
        return Item(key, text_of(got[0]), int(got[1])) if got else None

    async def shelf_put(
        self: _Caller, key: str, value: str, *, version: int | None = None, ttl: float | None = None
    ) -> int | None:
        """Put a value if the key has that version; the new one, or None. `ttl` is in seconds."""
        expected = "" if version is None else str(version)
        lives = "" if ttl is None else str(max(0, round(ttl * 1000)))
        reply = await self._run("shelf_put", new_op(), key, value, expected, lives)
        return None if reply is None else int(reply)

    async def shelf_delete(self: _Caller, key: str) -> bool:
        """Take a key away; whether it was there."""
        return bool(await self._run("shelf_delete", new_op(), key))

    async def shelf_scan(self: _Caller, prefix: str, after: str = "", limit: int = 1000) -> list[Item]:
        """The items whose keys begin with `prefix` and come after `after`, by key."""
        first = prefix.encode()
        low = b"(" + after.encode() if after.encode() >= first and after else b"[" + first
        high = b"(" + first + b"\xff" if first else b"+"  # no UTF-8 has that byte
        flat = await self._run("shelf_scan", low, high, limit)
        return [
            Item(text_of(key), text_of(value), int(version))
            for key, value, version in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]

    async def limits(self: _Caller) -> dict[str, tuple[int | None, bool]]:
        """The limits set for queues: name -> (the most leases or None, paused)."""
        found = {}
        for queue, setting in fields_of(await self._ask("HGETALL", f"{{{self.namespace}}}:limits")).items():
            limit, _, paused = setting.partition(b":")
            found[text_of(queue)] = (int(limit) if limit else None, paused == b"1")
        return found

    async def set_limit(self: _Caller, queue: str, limit: int | None, paused: bool) -> None:
        """Limit or pause a queue for all workers, at once. (None, False) takes the setting away."""
        setting = f"{'' if limit is None else limit}:{int(paused)}" if limit is not None or paused else ""
        await self._run("set_limit", queue, setting)

    async def stoppings(self: _Caller) -> list[tuple[str, str, int]]:
        """The stopping leases: (job id, token, expires in us)."""
        flat = await self._run("stoppings")
        return [
            (plain(job_id), text_of(token), int(expires))
            for job_id, token, expires in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]

    async def nudge(self: _Caller, worker: str) -> None:
        """Wake `idle` of that worker, from any process."""
        await self._run("nudge", worker)

    async def sweep(self: _Caller, *, lease: float, interval: float, limit: int = 200) -> Pass:
        """Find what is due; the contract is in `protocol.Store`."""
        reply = await self._run("sweep", round(lease * 1_000_000), round(interval * 1_000_000), limit)
        _, skipped, held, found = reply
        due = [
            Due(text_of(kind), (name := plain(job_id)), job_of(name, text), text_of(token), int(company))
            for kind, job_id, text, token, company in found
        ]
        return Pass(due[:limit], skipped == 1, held == 1, more=len(due) > limit)

    async def purge(self: _Caller, *, ttl: float, limit: int = 500) -> int:
        """Remove up to `limit` records that ended more than `ttl` seconds ago, in short steps."""
        removed = 0
        while removed < limit:
            gone, more = await self._run("purge", round(ttl * 1_000_000), min(PURGED_AT_ONCE, limit - removed))
            removed += gone
            if not more:
                break
        return removed

    async def now(self: _Caller) -> int:
        """The store's clock, in microseconds since 1970."""
        return int(await self._run("now"))

    async def examine(self: _Caller) -> Fitness:
        """Look at the server: version, durability, eviction, role, layout."""
        reply = await self._command("INFO")
        if isinstance(reply, Exception):
            return Fitness("redis", "", LAYOUT, "unknown", (f"the server does not say how it is: {reply}",))
        info = _info(reply)
        valkey = info.get("server_name") == "valkey"
        kind, version = ("valkey", info["valkey_version"]) if valkey else ("redis", info.get("redis_version", ""))
        layout = await self._command("GET", f"{{{self.namespace}}}:layout")
        check_layout(layout if isinstance(layout, bytes) else None, self.url)
        setting = await self._command("CONFIG", "GET", "appendfsync")
        fsync = "" if isinstance(setting, Exception) else text_of(fields_of(setting).get(b"appendfsync", b""))
        durability, warnings = _durability(info, fsync)
        if (
            tuple(int(part) for part in info.get("redis_version", "0.0").split(".")[:2] if part.isdigit())
            < OLDEST_SERVER
        ):
            warnings.append(f"Redis {version} is older than 7.0, which milepost needs")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            warnings.append(f"maxmemory-policy is {policy}: records may vanish; set it to noeviction")
        role = info.get("role", "")
        if role != "master":
            warnings.append(f"this server is a {role}: it takes no writes")
        details = {name: info[name] for name in _TOLD if name in info}
        return Fitness(kind, version, LAYOUT, durability, tuple(warnings), details)


_TOLD = (
    "role", "redis_mode", "maxmemory", "maxmemory_policy", "used_memory", "aof_enabled", "connected_slaves",
    "rdb_last_bgsave_status", "aof_last_write_status", "connected_clients", "uptime_in_seconds",
)  # fmt: skip


def _info(reply: bytes) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text_of(reply).splitlines() if ":" in line and not line.startswith("#"))


def _durability(info: dict[str, str], fsync: str) -> tuple[str, list[str]]:
    """What a crash of the server costs, and what is wrong with that."""
    problems = [
        f"the last {what} failed: writes may be refused"
        for name, what in (("rdb_last_bgsave_status", "snapshot"), ("aof_last_write_status", "write of the log"))
        if info.get(name, "ok") != "ok"
    ]
    if info.get("aof_enabled") == "1":
        lost = {"always": "nothing", "everysec": "about a second", "no": "what the system had not yet written"}
        return f"append-only file, a crash costs {lost.get(fsync, 'about a second')}", problems
    problems.append("appendonly is off: a crash costs everything since the last snapshot; set it to yes")
    return "snapshots only", problems


def check_layout(found: bytes | None, url: str) -> None:
    """Raise LayoutMismatch for a version of the layout that this release cannot read."""
    version = text_of(found) if found else str(LAYOUT)
    if version != str(LAYOUT):
        raise LayoutMismatch(url, version, LAYOUT)


VERBS = {
    verb: script(verb)
    for verb in (
        "get", "select", "count", "events", "renew", "sweep", "purge", "set_limit", "stoppings", "nudge", "now", "layout",
        "shelf_get", "shelf_delete", "shelf_scan",
    )
} | {"shelf_put": script("shelf_put", grows=True)}  # fmt: skip
"""The script of each verb but `apply`, which has two."""
