"""Administration of a store or a server: health, types, workers, API keys, retention.

Each function gives the same answer for a store and for a server.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from milepost import plugins
from milepost.cli import formatting
from milepost.core.errors import InvalidInputError, UnknownJobTypeError
from milepost.core.limits import KEEP, Keep
from milepost.stores.cycles import cycle_warnings
from milepost.stores.retention import purge_older
from milepost.stores.sync_bridge import run_sync

if TYPE_CHECKING:
    from milepost.cli.context import CommandContext
    from milepost.worker.registry import JobType


@dataclass(frozen=True, slots=True)
class StoreReport:
    """The findings of `doctor`. `clock_ahead` is in seconds, relative to this machine."""

    kind: str
    version: str
    layout: int
    durability: str
    warnings: tuple[str, ...]
    details: Mapping[str, str]
    seconds: float
    clock_ahead: float = 0.0
    jobs: Mapping[str, int] | None = None
    workers: int | None = None

    @property
    def jobs_text(self) -> str:
        """Return the number of jobs, by status."""
        if self.jobs is None:
            return ""
        parts = ", ".join(f"{formatting.number(count)} {name}" for name, count in sorted(self.jobs.items()) if count)
        return formatting.number(sum(self.jobs.values())) + (f" ({parts})" if parts else "")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        shown = {name: getattr(self, name) for name in StoreReport.__dataclass_fields__}
        return {**shown, "warnings": list(self.warnings), "details": dict(self.details)}


def check_health(context: CommandContext) -> StoreReport:
    """Check the store, or let the server check its own."""
    begun = time.monotonic()
    if context.is_server:
        found = context.client.request("GET", "/api/doctor")
        fields = StoreReport.__dataclass_fields__
        known: dict[str, Any] = {name: value for name, value in found.items() if name in fields}
        known["kind"] = found.get("store", "server")
        known["warnings"] = tuple(known.get("warnings", ()))
        defaults = {"kind": "server", "version": "", "layout": 0, "durability": "", "details": {}}
        return StoreReport(**{**defaults, **known, "seconds": time.monotonic() - begun})
    store = context.manager.store
    health = run_sync(store.check_health())
    spent = time.monotonic() - begun
    ahead = run_sync(store.now()) / 1_000_000 - time.time()
    counts: dict[str, int] = {}
    for (_, status), count in run_sync(store.counts()).items():
        counts[status] = counts.get(status, 0) + count
    warnings = list(health.warnings)
    if abs(ahead) > 5:
        warnings.append(
            f"the store's clock differs from this machine's by {ahead:+.0f} s; times are shown by the store's clock"
        )
    warnings += run_sync(cycle_warnings(store))
    for found in plugins.use_all("milepost.health_checks", lambda _, check: check()):
        warnings += found
    return StoreReport(
        health.kind, health.version, health.layout, health.durability, tuple(warnings), dict(health.details),
        spent, ahead, counts, len(context.jobs.workers()),
    )  # fmt: skip


def purge(context: CommandContext, older_than: float | None) -> int:
    """Delete jobs that ended more than `older_than` seconds ago (default: the retention setting). Return their number."""
    if context.is_server:
        if older_than is not None:
            raise InvalidInputError(
                "--older-than",
                "not supported for a server, which purges by its own JOB_TTL; pass the store URL with --url",
            )
        return int(context.client.request("POST", "/api/purge")["removed"])
    manager = context.manager
    ttl = manager.ttl if older_than is None else older_than
    return run_sync(purge_older(manager.store, ttl=ttl))


def get_job_type(context: CommandContext, name: str) -> JobType:
    """Return the published type of that name. Raises UnknownJobTypeError, which lists the known types."""
    listed = context.jobs.job_types()
    for known in listed:
        if known.name == name:
            return known
    raise UnknownJobTypeError(name, tuple(known.name for known in listed))


def set_limit(
    context: CommandContext, name: str, *, limit: int | Keep | None = KEEP, paused: bool | Keep = KEEP
) -> JobType:
    """Pause, resume or limit a type for all workers. KEEP leaves a value as it is; a limit of None is no limit."""
    get_job_type(context, name)  # an unknown type is refused
    context.jobs.set_limit(name, limit, paused=paused)
    return get_job_type(context, name)


def keys(context: CommandContext) -> list[dict[str, Any]]:
    """Return the API keys without their secrets."""
    if context.is_server:
        return list(context.client.request("GET", "/api/keys")["keys"])
    from milepost.web.security.api_keys import ApiKeyStore

    return [key.to_dict() for key in run_sync(ApiKeyStore(context.manager.store).all())]


def create_key(
    context: CommandContext,
    name: str,
    scopes: tuple[str, ...],
    labels: Mapping[str, str],
    types: tuple[str, ...],
    queues: tuple[str, ...],
    max_priority: int | None,
    expires_in: float | None,
) -> tuple[dict[str, Any], str]:
    """Create a key. Return the key and its secret text, which is not stored."""
    if context.is_server:
        body = {"name": name, "scopes": list(scopes), "labels": dict(labels), "expires_in": expires_in}
        body |= {"types": list(types)} if types else {}
        body |= {"queues": list(queues)} if queues else {}
        body |= {"max_priority": max_priority} if max_priority is not None else {}
        made = context.client.request("POST", "/api/keys", body=body)
        return made, str(made.pop("secret"))
    from milepost.web.security.api_keys import ApiKeyStore

    keys = ApiKeyStore(context.manager.store)
    limits: dict[str, Any] = {"types": types, "queues": queues, "max_priority": max_priority, "expires_in": expires_in}
    key, text = run_sync(keys.create(name, scopes, labels=labels, **limits))
    return key.to_dict(), text


def revoke_key(context: CommandContext, key_id: str) -> bool:
    """Revoke a key. Return False if it does not exist."""
    if context.is_server:
        if all(key["id"] != key_id for key in keys(context)):
            return False
        context.client.request("DELETE", f"/api/keys/{key_id}")
        return True
    from milepost.web.security.api_keys import ApiKeyStore

    return bool(run_sync(ApiKeyStore(context.manager.store).revoke(key_id)))
