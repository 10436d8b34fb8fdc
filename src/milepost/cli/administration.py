"""What is asked of a store or a server beside its jobs: types, workers, keys, fitness, retention.

One function a question, which answers the same from a store and from a server. Owns no layout and no key format; prints
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from milepost.cli import wording
from milepost.core.errors import InvalidInput, UnknownJobType
from milepost.stores.driving import drive

if TYPE_CHECKING:
    from milepost.cli.session import Session
    from milepost.worker.published import JobType, WorkerEntry


@dataclass(frozen=True, slots=True)
class Examined:
    """What `doctor` has found. `clock_ahead`: seconds that the store's clock is ahead of this machine's."""

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
        """How many jobs there are, by status."""
        if self.jobs is None:
            return ""
        parts = ", ".join(f"{wording.number(count)} {name}" for name, count in sorted(self.jobs.items()) if count)
        return wording.number(sum(self.jobs.values())) + (f" ({parts})" if parts else "")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        shown = {name: getattr(self, name) for name in Examined.__dataclass_fields__}
        return {**shown, "warnings": list(self.warnings), "details": dict(self.details)}


def examine(session: Session) -> Examined:
    """Look at the store, or let the server look at its own."""
    begun = time.monotonic()
    if session.is_server:
        found = session.client.request("GET", "/api/doctor")
        fields = Examined.__dataclass_fields__
        known: dict[str, Any] = {name: value for name, value in found.items() if name in fields}
        known["kind"] = found.get("store", "server")
        known["warnings"] = tuple(known.get("warnings", ()))
        defaults = {"kind": "server", "version": "", "layout": 0, "durability": "", "details": {}}
        return Examined(**{**defaults, **known, "seconds": time.monotonic() - begun})
    store = session.manager.store
    fitness = drive(store.examine())
    spent = time.monotonic() - begun
    ahead = drive(store.now()) / 1_000_000 - time.time()
    counts: dict[str, int] = {}
    for (_, status), count in drive(store.counts()).items():
        counts[status] = counts.get(status, 0) + count
    warnings = list(fitness.warnings)
    if abs(ahead) > 5:
        warnings.append(f"the store's clock is {ahead:+.0f} s off this machine's; times shown here are the store's")
    return Examined(
        fitness.kind, fitness.version, fitness.layout, fitness.durability, tuple(warnings), dict(fitness.details),
        spent, ahead, counts, len(workers(session)),
    )  # fmt: skip


def purge(session: Session, older_than: float | None) -> int:
    """Remove jobs that ended longer ago than that many seconds (None: as the settings say); how many."""
    if session.is_server:
        if older_than is not None:
            raise InvalidInput("--older-than", "a server purges as its own JOB_TTL says; give its store with --url")
        return int(session.client.request("POST", "/api/purge")["removed"])
    manager = session.manager
    ttl = manager.ttl if older_than is None else older_than
    total = 0
    while gone := drive(manager.store.purge(ttl=ttl)):
        total += gone
    return total


def types(session: Session) -> list[JobType]:
    """The published types, with the limits and pauses that are set."""
    return session.jobs.job_types()


def published_type(session: Session, name: str) -> JobType:
    """The published type of a name. Raises UnknownJobType that lists those that there are."""
    listed = types(session)
    for known in listed:
        if known.name == name:
            return known
    raise UnknownJobType(name, tuple(known.name for known in listed))


def set_limit(
    session: Session, name: str, *, paused: bool | None = None, limit: int | None = None, lift: bool = False
) -> JobType:
    """Pause, resume or limit a type for all workers, at once; what is None stays. `lift` takes the limit away."""
    known = published_type(session, name)
    new_limit = None if lift else known.limit if limit is None else limit
    session.jobs.set_limit(name, new_limit, paused=known.paused if paused is None else paused)
    return published_type(session, name)


def workers(session: Session) -> list[WorkerEntry]:
    """The workers that were seen lately."""
    return session.jobs.workers()


def keys(session: Session) -> list[dict[str, Any]]:
    """The API keys, without their secrets."""
    if session.is_server:
        return list(session.client.request("GET", "/api/keys")["keys"])
    from milepost.web.keys import Keys

    return [key.to_dict() for key in drive(Keys(session.manager.store).all())]


def create_key(
    session: Session, name: str, scopes: tuple[str, ...], labels: Mapping[str, str], expires_in: float | None
) -> tuple[dict[str, Any], str]:
    """A new key and its text, which nobody can show again."""
    if session.is_server:
        body = {"name": name, "scopes": list(scopes), "labels": dict(labels), "expires_in": expires_in}
        made = session.client.request("POST", "/api/keys", body=body)
        return made, str(made.pop("secret"))
    from milepost.web.keys import Keys

    key, text = drive(Keys(session.manager.store).create(name, scopes, labels=labels, expires_in=expires_in))
    return key.to_dict(), text


def revoke_key(session: Session, key_id: str) -> bool:
    """Revoke a key; whether there was one."""
    if session.is_server:
        if all(key["id"] != key_id for key in keys(session)):
            return False
        session.client.request("DELETE", f"/api/keys/{key_id}")
        return True
    from milepost.web.keys import Keys

    return bool(drive(Keys(session.manager.store).revoke(key_id)))
