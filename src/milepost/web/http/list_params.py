"""Turn the query parameters of a job list into a query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Query

from milepost.core.errors import InvalidInputError
from milepost.core.job import Job
from milepost.core.serialization import to_micros, validate_job_type
from milepost.manager.validation import status_value
from milepost.query.filters import Filter, parse_filter
from milepost.stores.protocol import Select, Store
from milepost.stores.query import Page
from milepost.stores.query import Query as JobQuery
from milepost.web.schemas.fields import When


@dataclass(frozen=True, slots=True)
class ListParams:
    """The parameters of a job list, beside the filter `q`."""

    q: str = ""
    job_type: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None
    ids: tuple[str, ...] = ()

    def filter(self) -> Filter:
        """Return all parameters as one filter. Raises FilterError, InvalidInputError."""
        parsed = parse_filter(self.q)
        select = parsed.query.select
        types = tuple(dict.fromkeys(validate_job_type(name) for name in self.job_type if name))
        statuses = tuple(dict.fromkeys(str(status_value(name)) for name in self.status if name))
        tests = parsed.query.tests
        if types and select.types:
            types, none = _both(types, select.types)
            tests = (*tests, *none)
        if statuses and select.statuses:
            statuses, none = _both(statuses, select.statuses)
            tests = (*tests, *none)
        if self.ids:
            wanted = frozenset(self.ids)
            tests = (*tests, lambda job: job.job_id in wanted)
        after = None if self.created_after is None else to_micros(self.created_after, "created_after")
        before = None if self.created_before is None else to_micros(self.created_before, "created_before")
        return Filter(
            self.q,
            JobQuery(
                Select(
                    types or select.types,
                    statuses or select.statuses,
                    tuple(dict.fromkeys((*select.labels, *map(_label, self.label)))),
                    select.stalled,
                    max((t for t in (after, select.created_after) if t is not None), default=None),
                    min((t for t in (before, select.created_before) if t is not None), default=None),
                ),
                tests,
            ),
            parsed.reads,
        )


TEXTS = Annotated[list[str], Query(max_length=50)]


async def list_params(
    job_type: TEXTS = [],  # noqa: B006 - FastAPI copies it
    status: TEXTS = [],  # noqa: B006
    q: Annotated[str, Query(max_length=2000, description="A filter, such as `status:failed created:1d`")] = "",
    label: TEXTS = [],  # noqa: B006
    created_after: When | None = None,
    created_before: When | None = None,
) -> ListParams:
    """Return the parameters of a request for a list, as a FastAPI dependency."""
    return ListParams(q, tuple(job_type), tuple(status), tuple(label), created_after, created_before)


AskedList = Annotated[ListParams, Depends(list_params)]


async def one_job(store: Store, job_id: str, query: JobQuery) -> Page:
    """Return the page of a query over the single job that a share link shows."""
    job = await store.get(job_id)
    jobs = [job] if job is not None and query.matches(job) else []
    return Page(jobs, len(jobs), len(jobs), None)


def _both(
    asked: tuple[str, ...], filtered: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[Callable[[Job], bool], ...]]:
    """Return what two lists of alternatives have in common; if nothing, a test that no job passes."""
    left = tuple(name for name in asked if name in filtered)
    return (left, ()) if left else (asked, (lambda job: False,))


def _label(pair: str) -> tuple[str, str]:
    name, colon, value = pair.partition(":")
    if not colon or not name:
        raise InvalidInputError("label", f"{pair!r:.80} is not of the form name:value")
    return name, value
