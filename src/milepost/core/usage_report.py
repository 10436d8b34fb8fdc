"""Reports of usage: what the ledger has, in the units of users."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal

from milepost.core.errors import InvalidInputError
from milepost.core.ledger import DailyUsage
from milepost.core.usage import shown

Amounts = dict[str, float]
OnBudget = Literal["fail", "ask"]
LABEL = "label:"
OTHER = "(other)"
"""The group of what was spent under more combinations of labels in a day than the ledger keeps apart."""
DEFAULT_DAYS = 30


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What jobs spent from the day `since` to the day `until`, both included, in UTC.

    `groups` has the amounts by type, day or value of a label, see `by`; jobs without the label are under "", and jobs
    with combinations of labels beyond 5,000 sums in a day under "(other)". `total` is their sum. `complete` is False if
    earlier days of the period are no longer kept. `label_names` has the names of the labels of these jobs, sorted.
    """

    since: date
    until: date
    by: str
    groups: dict[str, Amounts] = field(default_factory=dict)
    total: Amounts = field(default_factory=dict)
    complete: bool = True
    label_names: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {**asdict(self), "since": self.since.isoformat(), "until": self.until.isoformat()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> UsageReport:
        """Return the report of what `to_dict` wrote."""
        days = {name: date.fromisoformat(data[name]) for name in ("since", "until")}
        return cls(**{**data, **days})


@dataclass(frozen=True, slots=True)
class JobUsage:
    """What a job has spent: its own runs, its `descendants` (children, their children, ...), and both in `total`.

    Descendants that were deleted are included. `budget` is the budget of the job, which covers its descendants, and
    `on_budget` what happens once it is spent: ``"fail"`` or ``"ask"``; None without a budget.
    """

    own: Amounts
    descendants: Amounts
    total: Amounts
    budget: Amounts
    on_budget: OnBudget | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the usage as JSON types."""
        return asdict(self)


def validate_by(by: str) -> str:
    """Return how to group. Raises InvalidInputError."""
    if by in ("type", "day") or (isinstance(by, str) and by.startswith(LABEL) and len(by) > len(LABEL)):
        return by
    raise InvalidInputError("by", f"{by!r:.60} must be type, day or label:NAME")


def validate_day(value: date | str | None, name: str) -> date | None:
    """Return a day. Raises InvalidInputError."""
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    try:
        return date.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidInputError(name, f"{value!r:.60} must be a day, such as 2026-11-28") from None


def period(since: date | None, until: date | None, today: date) -> tuple[date, date]:
    """Return the first and the last day, by default the last 30 days. Raises InvalidInputError."""
    last = today if until is None else until
    days_before = min(DEFAULT_DAYS - 1, (last - date.min).days)
    first = last - timedelta(days=days_before) if since is None else since
    if first > last:
        raise InvalidInputError("since", f"{first} is after {last}, the last day")
    return first, last


def add_to_groups(groups: dict[str, Counter[str]], entries: Iterable[DailyUsage], by: str) -> None:
    """Add what entries of the ledger have spent to the sums of their groups."""
    for entry in entries:
        if by == "type":
            name = entry.job_type
        elif by == "day":
            name = entry.day.isoformat()
        elif entry.labels is None:
            name = OTHER
        else:
            name = entry.labels.get(by.removeprefix(LABEL), "")
        groups.setdefault(name, Counter()).update(entry.amounts)


def shown_groups(groups: Mapping[str, Counter[str]]) -> tuple[dict[str, Amounts], Amounts]:
    """Return the amounts by group, in the order of their names, and the total."""
    total: Counter[str] = Counter()
    for amounts in groups.values():
        total.update(amounts)
    return {name: shown(groups[name]) for name in sorted(groups)}, shown(total)
