"""The ledger of usage: sums that do not depend on records being kept, by day, and for the descendants of a job.

Whenever the `usage` of a record changes, the store adds the difference to books of the ledger, in the same step. So the
ledger agrees with the records at every instant, and a repeated or refused write counts nothing. A book has amounts in
millionths by series and name:

``day:N``     what was spent on day N since 1970, in UTC: the series is a job type and the labels of its jobs. From MAX_ROWS
              sums on, what other combinations spend is added up by type, without their labels
``total``     what was ever spent: the series is a job type
``tree:ID``   what descendants of that job have spent: one empty series. It is removed with the record of the job

Reports of usage return what the ledger has, in the units of users.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import US
from milepost.core.usage import MILLION, decode_millionths, shown

DAY = 86_400 * MILLION
"""Microseconds."""
DAYS_KEPT = 100
TOTAL, TREE, DAY_BOOK = "total", "tree:", "day:"
MAX_ROWS = 5000
"""The sums in the book of a day from which on new ones are added up by type. It bounds what a report has to read."""
OTHERS = "*"
"""Stands for the labels of these in a series. Pairs of labels have an equals sign."""
MAX_SUM = 9 * 10**18
"""The largest sum in a book, in millionths; what is beyond it is not counted. Integers of stores have 64 bits."""

Book = Mapping[tuple[str, str], int]
"""Amounts in millionths by series and name."""


class Spent(NamedTuple):
    """An amount in millionths to add to the sum of a book, series and name."""

    book: str
    series: str
    name: str
    amount: int


class DailyUsage(NamedTuple):
    """What jobs of one type with the same labels have spent in one day, in millionths by name.

    The labels None are those of several combinations, see MAX_ROWS.
    """

    day: date
    job_type: str
    labels: Mapping[str, str] | None
    amounts: dict[str, int]


def day_book(day: date) -> str:
    """Return the name of the book of a day. Names of days are in order of the days."""
    return _numbered_book((day - date(1970, 1, 1)).days)


def first_kept(now: int) -> str:
    """Return the name of the oldest book of a day that is kept at a time in microseconds."""
    return _numbered_book(max(0, now // DAY - DAYS_KEPT + 1))


def _numbered_book(number: int) -> str:
    return f"{DAY_BOOK}{number:06d}"


def oldest_day(now: int) -> date:
    """Return the oldest day that is kept."""
    return today(now) - timedelta(days=DAYS_KEPT - 1)


def today(now: int) -> date:
    """Return the day of a time in microseconds, in UTC."""
    return datetime.fromtimestamp(now // MILLION, UTC).date()


def changed_usage(record: Mapping[str, str], before: Mapping[str, str], now: int) -> list[Spent]:
    """Return what a change of the usage of a record adds to the ledger. `before` is the old record, or empty."""
    old, new = decode_millionths(before.get("usage")), decode_millionths(record.get("usage"))
    own = (pair for pair in record.get("labels", "").split(US) if pair and not pair.startswith(":"))
    series = US.join((record["type"], *own))
    books = [(_numbered_book(now // DAY), series), (TOTAL, record["type"])]
    books += [(TREE + job_id, "") for job_id in record.get("ancestors", "").split(US) if job_id]
    return [
        Spent(book, series, name, amount)
        for name in new
        if (amount := new[name] - old.get(name, 0))
        for book, series in books
    ]


def summed(spent: Iterable[Spent]) -> Counter[tuple[str, str, str]]:
    """Return the sums of amounts by book, series and name."""
    sums: Counter[tuple[str, str, str]] = Counter()
    for book, series, name, amount in spent:
        sums[book, series, name] += amount
    return sums


def others(series: str) -> str:
    """Return the series to which a series of a full book is added."""
    return US.join((series.partition(US)[0], OTHERS))


def read_day(day: date, book: Book) -> Iterator[DailyUsage]:
    """Return the entries of the book of a day."""
    found: dict[str, dict[str, int]] = {}
    for (series, name), amount in book.items():
        found.setdefault(series, {})[name] = amount
    for series, amounts in found.items():
        job_type, *pairs = series.split(US)
        labels = None if pairs == [OTHERS] else dict(pair.partition("=")[::2] for pair in pairs)
        yield DailyUsage(day, job_type, labels, amounts)


def tree_books(job_ids: Sequence[str]) -> list[str]:
    """Return the names of the books of the descendants of jobs."""
    return [TREE + job_id for job_id in job_ids]


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
