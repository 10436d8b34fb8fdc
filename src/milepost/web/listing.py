"""From the parameters of a list to its query. Owns their names and defaults; the grammar of `q` is `stores.filters`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from milepost.core.encoding import job_type_text, micros
from milepost.core.errors import InvalidInput
from milepost.core.job import Job
from milepost.manager.requests import status_value
from milepost.stores.filters import Filter, parse_filter
from milepost.stores.protocol import Select
from milepost.stores.query import Query


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs a request asks for, in plain parameters beside the filter."""

    q: str = ""
    job_type: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None

    def filter(self) -> Filter:
        """All of it as one filter. Raises FilterError, InvalidInput."""
        parsed = parse_filter(self.q)
        select = parsed.query.select
        types = tuple(dict.fromkeys(job_type_text(name) for name in self.job_type if name))
        statuses = tuple(dict.fromkeys(str(status_value(name)) for name in self.status if name))
        tests = parsed.query.tests
        if types and select.types:
            types, none = _both(types, select.types)
            tests = (*tests, *none)
        if statuses and select.statuses:
            statuses, none = _both(statuses, select.statuses)
            tests = (*tests, *none)
        after = None if self.created_after is None else micros(self.created_after, "created_after")
        before = None if self.created_before is None else micros(self.created_before, "created_before")
        return Filter(
            self.q,
            Query(
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


def _both(
    asked: tuple[str, ...], filtered: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[Callable[[Job], bool], ...]]:
    """What two lists of alternatives leave; nothing is told by a test that no job passes."""
    left = tuple(name for name in asked if name in filtered)
    return (left, ()) if left else (asked, (lambda job: False,))


def _label(pair: str) -> tuple[str, str]:
    name, colon, value = pair.partition(":")
    if not colon or not name:
        raise InvalidInput("label", f"{pair!r:.80} must be written name:value")
    return name, value
