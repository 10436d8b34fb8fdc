"""What jobs have spent: by type, day or label, and by one job with its descendants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta

from milepost.core.ledger import (
    JobUsage,
    OnBudget,
    UsageReport,
    add_to_groups,
    day_book,
    oldest_day,
    period,
    read_day,
    shown_groups,
    today,
    tree_books,
    validate_by,
    validate_day,
)
from milepost.core.serialization import validate_job_type, validate_labels
from milepost.core.usage import decode_millionths, shown
from milepost.run.usage import ASKS
from milepost.stores.protocol import Store
from milepost.stores.query import existing_job

_DAYS_AT_ONCE = 5
"""How many days are read in one request, so that a long period holds up neither the store nor this process."""


class UsageMethods:
    """Adds `usage` and `job_usage` to a manager."""

    store: Store

    async def usage(
        self,
        *,
        by: str = "type",
        since: date | str | None = None,
        until: date | str | None = None,
        job_type: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> UsageReport:
        """Return what jobs have spent (`run.add_usage`), by ``"type"``, ``"day"`` or ``"label:NAME"``.

        `since` and `until` are days in UTC, both included (default: the last 30 days); the store keeps 100 days. Only jobs
        of `job_type` and with all `labels` count. An amount counts for the day on which it was written, with the labels of
        the job; jobs that were deleted since then are included. Raises InvalidInputError.
        """
        if job_type is not None:
            validate_job_type(job_type)
        return await usage_report(self.store, by, since, until, job_type, validate_labels(labels))

    async def job_usage(self, job_id: str) -> JobUsage:
        """Return what a job and its descendants have spent. Raises JobNotFoundError."""
        job = await existing_job(self.store, job_id)
        (book,) = await self.store.usage(tree_books([job_id]))
        own, below = decode_millionths(job.record.get("usage")), {name: n for (_, name), n in book.items()}
        total = {name: own.get(name, 0) + below.get(name, 0) for name in {**own, **below}}
        budget = decode_millionths(job.record.get("usage_budget"))
        on_budget: OnBudget = "ask" if job.record.get("on_budget") == ASKS else "fail"
        return JobUsage(shown(own), shown(below), shown(total), shown(budget), on_budget if budget else None)


async def usage_report(
    store: Store,
    by: str,
    since: date | str | None,
    until: date | str | None,
    job_type: str | None,
    labels: Mapping[str, str],
) -> UsageReport:
    """Return what jobs have spent, see `UsageMethods.usage`."""
    validate_by(by)
    first_day, last_day = validate_day(since, "since"), validate_day(until, "until")
    now = await store.now()
    first, last = period(first_day, last_day, today(now))
    kept = max(first, oldest_day(now))
    days = [kept + timedelta(days=n) for n in range((min(last, today(now)) - kept).days + 1)]
    groups: dict[str, Counter[str]] = {}
    names: set[str] = set()
    for at in range(0, len(days), _DAYS_AT_ONCE):
        some = days[at : at + _DAYS_AT_ONCE]
        for day, book in zip(some, await store.usage([day_book(day) for day in some]), strict=True):
            entries = [entry for entry in read_day(day, book) if job_type in (None, entry.job_type)]
            counted = [entry for entry in entries if not labels or _has(entry.labels, labels)]
            names.update(*(entry.labels or () for entry in counted))
            add_to_groups(groups, counted, by)
    return UsageReport(first, last, by, *shown_groups(groups), complete=first >= kept, label_names=sorted(names))


def _has(labels: Mapping[str, str] | None, wanted: Mapping[str, str]) -> bool:
    return labels is not None and wanted.items() <= labels.items()
