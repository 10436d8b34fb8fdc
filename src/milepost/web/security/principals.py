"""The caller of a request: scopes, label bindings, allowed job types."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from milepost.core.errors import InvalidInputError
from milepost.core.job import Job, JobStatus
from milepost.core.serialization import labels_text
from milepost.settings import Settings
from milepost.stores.protocol import Select, Store
from milepost.stores.query import Query, created
from milepost.web.http.problems import Problem

READ, WRITE, DELETE, ADMIN = "jobs:read", "jobs:write", "jobs:delete", "admin"
CANCEL = "jobs:cancel"
"""Cancel jobs, nothing else. Implied by `jobs:write`."""
ANSWER = "jobs:answer"
"""Answer the questions of jobs, nothing else. Implied by `jobs:write`."""
SCOPES = (READ, WRITE, DELETE, CANCEL, ANSWER, ADMIN)
ALL_SCOPES = frozenset(SCOPES)
USER_SCOPES = frozenset({READ, WRITE, DELETE})
"""The scopes of a user unless others are given. `admin` must be given explicitly."""
_SEPARATOR, _MARKED = re.compile(r"[,/\\]"), r"\\\g<0>"


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request. `admin` implies every scope; the default is read, write and delete.

    With `labels` the caller sees and changes only jobs that have all of them. With `types` and `queues` the caller
    submits and retries only jobs of these types and in these queues; an empty set allows all. New jobs have at most
    `max_priority`. A caller with any of these is no admin. Raises InvalidInputError for an unknown scope or an invalid label.
    """

    id: str | None
    scopes: frozenset[str] = USER_SCOPES
    labels: Mapping[str, str] = field(default_factory=dict)
    job_id: str | None = None
    """The only job that a share link shows."""
    types: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()
    job_created: int | None = None
    """The creation time of that job. A later job with the same id is a different one."""
    max_priority: int | None = None

    def __post_init__(self) -> None:
        # A string is a collection of characters, and None as "no tenant" would match jobs without the label.
        for name in ("scopes", "types", "queues"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise InvalidInputError(name, f"{value!r:.60} is not a set of strings")
            object.__setattr__(self, name, frozenset(value))
        for scope in self.scopes - ALL_SCOPES:
            raise InvalidInputError("scopes", f"{scope!r:.60} is not a scope; use {', '.join(SCOPES)}")
        if self.labels is None:
            raise InvalidInputError("labels", "None is not a mapping; omit labels for a caller that may see all jobs")
        labels_text(self.labels)

    def may(self, scope: str) -> bool:
        """Return whether the caller has a scope."""
        return scope in self.scopes or ADMIN in self.scopes or (scope in (CANCEL, ANSWER) and WRITE in self.scopes)

    def may_start(self, job_type: str, queue: str | None = None) -> bool:
        """Return whether the caller may submit and retry jobs of a type in a queue; manual jobs are in none."""
        is_served = not self.queues or queue is None or queue in self.queues
        return is_served and (not self.types or job_type in self.types)

    def may_prioritise(self, priority: int) -> bool:
        """Return whether the caller may submit jobs with a priority."""
        return self.max_priority is None or priority <= self.max_priority

    @property
    def bound(self) -> bool:
        """Whether the caller sees only some of the jobs."""
        return bool(self.labels) or self.job_id is not None

    @property
    def restricted(self) -> bool:
        """Whether the caller is limited to some jobs, types, queues or priorities. Then it is no admin, who could lift the limits."""
        return self.bound or bool(self.types or self.queues) or self.max_priority is not None

    @property
    def unlimited(self) -> bool:
        """Whether no quotas apply to the caller. They do not for an admin, who could raise them."""
        return ADMIN in self.scopes and not self.restricted

    @property
    def name(self) -> str:
        """The name under which quotas are counted."""
        return f"{self.id}\n{self.binding}\n{self.job_id or ''}"

    def sees(self, job: Job) -> bool:
        """Return whether the caller may see a job."""
        if self.job_id is not None and job.job_id != self.job_id:
            return False
        if self.job_created is not None and created(job) != self.job_created:
            return False
        return all(job.labels.get(name) == value for name, value in self.labels.items())

    def within(self, query: Query) -> Query:
        """Return a query restricted to the jobs that the caller may see."""
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

    def bound_options(
        self,
        labels: Mapping[str, str] | None,
        unique_key: Any = None,
        *,
        limit_key: Any = None,
        partition: Any = None,
        priority: Any = None,
    ) -> dict[str, Any]:
        """Return the labels and the unique key of new jobs, restricted to the caller's labels, and their priority.

        Limits and turns hold for all callers, so one that is restricted to labels chooses no limit key, and only a
        partition that is named as one of its labels. Raises InvalidInputError.
        """
        chosen = dict(labels or {})
        for name, value in self.labels.items():
            if chosen.setdefault(name, value) != value:
                raise InvalidInputError(
                    f"labels.{name}", f"must be {value!r:.100} with this key; omit it or use this value"
                )
        if self.bound and limit_key is not None:
            raise InvalidInputError("limit_key", "cannot be set with a key that is restricted to labels; omit it")
        if self.bound and partition is not None and partition not in self.labels.values():
            raise InvalidInputError(
                "partition", f"{partition!r:.100} is not the value of a label that this key is restricted to; omit it"
            )
        if self.bound and unique_key is not None:
            unique_key = f"{self.binding}/{unique_key}"
        if isinstance(priority, int) and not self.may_prioritise(priority):
            raise InvalidInputError("priority", f"{priority} must be at most {self.max_priority} with this key")
        if priority is None and not self.may_prioritise(0):
            priority = self.max_priority
        return {"labels": chosen or None, "unique_key": unique_key, "priority": priority}

    @property
    def binding(self) -> str:
        """The namespace of the caller's unique keys and idempotency keys; empty without a restriction to labels.

        Different labels never give the same namespace, because commas and slashes in values are escaped.
        """
        return ",".join(f"{name}={_SEPARATOR.sub(_MARKED, str(value))}" for name, value in sorted(self.labels.items()))


ANYONE = Principal(None, ALL_SCOPES)


def as_principal(user: Any) -> Principal | None:
    """Return the principal for the value that an application's dependency returned, or None if it identifies no user.

    A Principal, a string, and an object or mapping with an `id` identify a user. None, True, False, classes and objects
    without an id do not, nor does an id that is blank, a collection or a function. An "optional user" dependency
    returns None for unknown callers.
    """
    if isinstance(user, Principal):
        return user if _is_visible(user.id) else None
    if isinstance(user, type):
        return None
    if isinstance(user, str):
        name: Any = user
    else:
        name = user.get("id") if isinstance(user, Mapping) else getattr(user, "id", None)
    if name is None or isinstance(name, bool) or callable(name):
        return None
    if isinstance(name, Collection) and not isinstance(name, str):
        return None
    return Principal(str(name)) if _is_visible(str(name)) else None


def _is_visible(name: str | None) -> bool:
    return any(letter.isprintable() and not letter.isspace() for letter in name or "")


def scopes_of(names: Iterable[str]) -> frozenset[str]:
    """Return names as a set of scopes. Raises ValueError for an unknown one."""
    scopes = frozenset(names)
    unknown = scopes - ALL_SCOPES
    if unknown:
        raise ValueError(f"{sorted(unknown)[0]!r} is not a scope; use {', '.join(SCOPES)}")
    return scopes


MAX_JOBS_CHECKED = 50
"""How many counted jobs one request re-checks at the limit. Jobs that are no longer pending are dropped."""
MAX_PRINCIPALS = 10_000


def limit_reached(what: str, limit: int, retry_after: int) -> Problem:
    """Return the 429 for a limit that is reached."""
    return Problem(429, f"{what} (limit {limit:,})", headers={"Retry-After": str(retry_after)}, limit=limit)


@dataclass(slots=True)
class _Usage:
    """What one principal has created through this process."""

    jobs: OrderedDict[str, None] = field(default_factory=OrderedDict)
    types: set[str] = field(default_factory=set)


class Quotas:
    """Counts what each principal has created. `settings` and `store` are called when first needed."""

    def __init__(self, settings: Callable[[], Settings], store: Callable[[], Store]) -> None:
        self._settings = settings
        self._store = store
        self._held: OrderedDict[str, _Usage] = OrderedDict()

    async def before_submit(self, principal: Principal) -> None:
        """Check that one more pending job is within the limit. Raises Problem 429."""
        if await self.available(principal, 1) < 1:
            raise limit_reached("Too many pending jobs", self._settings().max_pending, 5)

    async def available(self, principal: Principal, wanted: int) -> int:
        """Return how many of the wanted pending jobs are within the limit."""
        limit = self._settings().max_pending
        if principal.unlimited or len(jobs := self._of(principal).jobs) + wanted <= limit:
            return wanted
        for job_id in list(islice(jobs, MAX_JOBS_CHECKED)):
            job = await self._store().get(job_id)
            if job is None or job.status is not JobStatus.PENDING:
                jobs.pop(job_id, None)
            elif job_id in jobs:
                jobs.move_to_end(job_id)
        return max(0, min(wanted, limit - len(jobs)))

    def submitted(self, principal: Principal, job_id: str) -> None:
        """Count a submitted job."""
        if not principal.unlimited:
            self._of(principal).jobs[job_id] = None

    async def before_create(self, principal: Principal, job_type: str) -> None:
        """Check that one more job type is within the limit. Raises Problem 429."""
        limit = self._settings().max_types
        if principal.unlimited or job_type in (types := self._of(principal).types):
            return
        if len(types) >= limit:
            types &= {name for name, _ in await self._store().counts()}
        if len(types) >= limit:
            raise limit_reached("Too many job types", limit, 60)
        types.add(job_type)

    def _of(self, principal: Principal) -> _Usage:
        held = self._held.setdefault(principal.name, _Usage())
        self._held.move_to_end(principal.name)
        while len(self._held) > MAX_PRINCIPALS:
            self._held.popitem(last=False)
        return held
