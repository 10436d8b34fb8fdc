"""Who asks, and what they may do. Owns scopes and label bindings; knows no key and no transport."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from milepost.core.job import Job
from milepost.stores.protocol import Select
from milepost.stores.query import Query

READ, WRITE, DELETE, ADMIN = "jobs:read", "jobs:write", "jobs:delete", "admin"
CANCEL = "jobs:cancel"
"""What a share link may allow; no key has it by itself, and `jobs:write` implies it."""
SCOPES = (READ, WRITE, DELETE, ADMIN)
ALL_SCOPES = frozenset(SCOPES)
_SEPARATOR, _MARKED = re.compile(r"[,/\\]"), r"\\\g<0>"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who asks. With `labels` they see and touch only jobs that carry them all. `admin` implies every scope."""

    id: str | None
    scopes: frozenset[str] = ALL_SCOPES
    labels: Mapping[str, str] = field(default_factory=dict)
    job_id: str | None = None
    """The one job that a share link speaks of."""

    def may(self, scope: str) -> bool:
        """Whether a scope is theirs."""
        return scope in self.scopes or ADMIN in self.scopes or (scope == CANCEL and WRITE in self.scopes)

    @property
    def bound(self) -> bool:
        """Whether they see only some of the jobs."""
        return bool(self.labels) or self.job_id is not None

    def sees(self, job: Job) -> bool:
        """Whether a job exists for them."""
        if self.job_id is not None and job.job_id != self.job_id:
            return False
        return all(job.labels.get(name) == value for name, value in self.labels.items())

    def within(self, query: Query) -> Query:
        """A query narrowed to what they see."""
        if not self.bound:
            return query
        select, tests = query.select, query.tests
        labels = tuple(dict.fromkeys((*select.labels, *self.labels.items())))
        if self.job_id is not None:
            tests = (*tests, self.sees)
        return Query(
            Select(select.types, select.statuses, labels, select.stalled, select.created_after, select.created_before),
            tests,
        )

    @property
    def binding(self) -> str:
        """The name space of their unique keys and idempotency keys; empty when they are not bound.

        Others' labels never read the same, also with what follows a slash: a value's own commas and slashes are marked.
        """
        return ",".join(f"{name}={_SEPARATOR.sub(_MARKED, str(value))}" for name, value in sorted(self.labels.items()))


ANYONE = Principal(None)


def as_principal(user: Any) -> Principal:
    """The principal that a dependency gave: a Principal, a text, an object with an `id`, or anybody it let pass."""
    if isinstance(user, Principal):
        return user
    if user is None or isinstance(user, bool):
        return ANYONE
    if isinstance(user, str):
        return Principal(user)
    name = user.get("id") if isinstance(user, Mapping) else getattr(user, "id", None)
    return Principal(None if name is None else str(name))


def scopes_of(names: Iterable[str]) -> frozenset[str]:
    """A set of scopes; ValueError for one that there is not."""
    scopes = frozenset(names)
    unknown = scopes - ALL_SCOPES
    if unknown:
        raise ValueError(f"{sorted(unknown)[0]!r} is not a scope; one of {', '.join(SCOPES)}")
    return scopes
