"""The ledger of usage: sums that do not depend on records being kept, by day, and for the descendants of a job.

Whenever the `usage` of a record changes, the store adds the difference to books of the ledger, in the same step. So the
ledger agrees with the records at every instant, and a repeated or refused write counts nothing. A book has amounts in
millionths by series and name:

``day:N``     what was spent on day N since 1970, in UTC: the series is a job type and the labels of its jobs. From MAX_ROWS
              sums on, what other combinations spend is added up by type, without their labels
``total``     what was ever spent: the series is a job type
``tree:ID``   what descendants of that job have spent: one empty series. It is removed with the record of the job
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from milepost.core.serialization import US
from milepost.core.usage import MILLION, decode_millionths

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
