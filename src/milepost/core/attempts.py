"""The attempts of a job: which worker ran which release of the code, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from milepost.core.serialization import RS, US, from_micros

FIELDS = ("started", "completed", "attempt", "worker", "release")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job. `attempt` is its number, which repeats after a run that was not charged; `ended_at` is None while it runs."""

    attempt: int
    worker: str | None
    started_at: datetime | None
    ended_at: datetime | None = None
    release: str | None = None


def attempts_of(record: Mapping[str, str]) -> tuple[Attempt, ...]:
    """Return the attempts that a record keeps, oldest first, including the current or last one."""
    return tuple(
        Attempt(int(number) if number.isdigit() else 0, worker or None, _moment(start), _moment(end), release or None)
        for start, end, number, worker, release in attempt_rows(record)
    )


def attempt_rows(record: Mapping[str, str]) -> list[list[str]]:
    """Return the stored texts of the attempts, each with those of FIELDS."""
    lines = [line.split(US) for line in record["runs"].split(RS) if line] if "runs" in record else []
    if record.get("started"):
        start, end, number, *rest = (record.get(name, "") for name in FIELDS)
        # A crash is not charged, so its run loses its number; after the end of a crash loop that number may be 0.
        lines.append([start, end, "1" if number == "0" else number, *rest])
    return [line for line in lines if len(line) == len(FIELDS)]


def _moment(text: str) -> datetime | None:
    return from_micros(int(text)) if text.isdigit() else None
