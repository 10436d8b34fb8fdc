"""The ticks of schedules: both changes of the clocks in five zones, against another implementation, and bad input."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from cronsim import CronSim

from milepost import InvalidInputError, Jobs, Run, Schedule
from milepost.run.schedules import ticks_of, upcoming

CHANGES = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-10-04", "2026-04-05"),  # by half an hour
    "America/Santiago": ("2026-09-06", "2026-04-05"),  # at midnight
    "Africa/Cairo": ("2026-04-24", "2026-10-30"),  # at midnight, on a Friday
}
FIXED = ("30 2 * * *", "0 3 * * *", "15 0 * * *", "45 1 * * *", "0 0 * * *", "0,30 1-3 * * *", "15 2 * * 0")
RUNNING = ("0 * * * *", "*/20 * * * *", "0 */2 * * *", "* * * * *", "5 */3 * * *")
COUNT = 40
LEFT_OUT = {
    "0 * * * *": {datetime(2026, 10, 3, 15, 30, tzinfo=UTC)},
    "*/20 * * * *": {datetime(2026, 10, 3, 15, 30, tzinfo=UTC), datetime(2026, 4, 4, 15, 10, tzinfo=UTC)},
}
"""Ticks at changes by half an hour that the reference leaves out: the end of a gap, and a time that comes twice."""


def schedule(cron: str | None = None, tz: str = "UTC", every: float | None = None) -> Schedule:
    return Schedule(name="s", job_type="t", cron=cron, tz=tz, every=every)


def reference(cron: str, zone: ZoneInfo, start: datetime) -> Iterator[datetime]:
    """Yield the ticks of croniter. It repeats fixed times that come twice, which is left out here."""
    ticks = croniter(cron, start.astimezone(zone))
    while True:
        tick = ticks.get_next(datetime)
        if cron in RUNNING or not tick.fold:
            yield tick.astimezone(UTC)


def forwards(one: Schedule, start: datetime) -> Iterator[datetime]:
    while True:
        start = ticks_of(one).after(start)
        yield start


@pytest.mark.parametrize("zone", list(CHANGES))
@pytest.mark.parametrize("cron", [*FIXED, *RUNNING])
def test_ticks_at_clock_changes_equal_reference(zone: str, cron: str) -> None:
    for day in CHANGES[zone]:
        start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) - timedelta(hours=2)
        one = schedule(cron, zone)
        found = list(islice(forwards(one, start), COUNT))
        as_reference = [tick for tick in found if zone != "Australia/Lord_Howe" or tick not in LEFT_OUT.get(cron, ())]
        assert as_reference == list(islice(reference(cron, ZoneInfo(zone), start), len(as_reference)))
        assert all(before < after for before, after in pairwise(found))
        backwards = list(islice(ticks_of(one).until(found[-1]), COUNT))
        assert backwards == found[::-1], "searched from the end, the ticks are the same"
        for before, after in pairwise(found):
            between = after - timedelta(seconds=1)
            assert (next(ticks_of(one).until(between)), ticks_of(one).after(between)) == (before, after)


def test_search_of_frequent_ticks_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of schedules compute the next ticks of each."""
    looked_at = []
    step = CronSim.__next__
    monkeypatch.setattr(CronSim, "__next__", lambda self: looked_at.append(1) or step(self))
    start = datetime(2026, 11, 27, 3, tzinfo=UTC)
    ticks = ticks_of(schedule("* * * * *", "Europe/Berlin"))
    assert (ticks.after(start), next(ticks.until(start))) == (start + timedelta(minutes=1), start)
    assert len(looked_at) < 20


def test_time_in_gap_is_one_tick_at_its_end() -> None:
    start = datetime(2026, 3, 29, tzinfo=UTC) - timedelta(hours=1)
    found = list(islice(forwards(schedule("0,30 2 * * *", "Europe/Berlin"), start), 3))
    assert [tick.isoformat() for tick in found] == [
        "2026-03-29T01:00:00+00:00",  # 03:00 local time, once for 02:00 and 02:30
        "2026-03-30T00:00:00+00:00",
        "2026-03-30T00:30:00+00:00",
    ]


def test_time_that_comes_twice_is_one_tick() -> None:
    """Also if the search begins between the two."""
    one = schedule("30 2 * * *", "Europe/Berlin")
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert ticks_of(one).after(first - timedelta(hours=1)) == first
    for minutes in (1, 15, 45, 90):
        assert ticks_of(one).after(first + timedelta(minutes=minutes)) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
        assert next(ticks_of(one).until(first + timedelta(minutes=minutes))) == first


def test_interval_ticks_are_multiples_since_1970() -> None:
    at = datetime(2026, 11, 26, 10, 7, 30, tzinfo=UTC)
    ticks = ticks_of(schedule(every=900.0))
    assert ticks.after(at) == datetime(2026, 11, 26, 10, 15, tzinfo=UTC)
    assert ticks.after(datetime(2026, 11, 26, 10, 15, tzinfo=UTC)) == datetime(2026, 11, 26, 10, 30, tzinfo=UTC)
    assert [f"{tick:%H:%M}" for tick in islice(ticks.until(at), 3)] == ["10:00", "09:45", "09:30"]


def test_upcoming_ticks_begin_with_the_next_one() -> None:
    one = Schedule(name="s", job_type="t", cron="0 3 * * 1-5", next_at=datetime(2026, 11, 27, 3, tzinfo=UTC))
    assert [f"{tick:%d}" for tick in upcoming(one, 3)] == ["27", "30", "01"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"cron": "61 * * * *"}, "cron: '61 * * * *': bad minute; use five fields"),
        ({"cron": "* * * *"}, "cron: '* * * *' has 4 fields; use five fields"),
        ({"cron": "0 0 0 * * *"}, "has 6 fields"),
        ({"cron": "@daily"}, "has 1 field; use five"),
        ({"cron": "0 0 30 2 *"}, "cron: '0 0 30 2 *': bad day-of-month"),
        ({"cron": "0 0 31 4,6,9 *"}, "bad day-of-month"),
        ({"cron": ""}, "has 0 fields"),
        ({"cron": 5}, "cron: 5 is not text"),
        ({"cron": "0 3 * * *", "tz": "Europe/Berlim"}, "tz: 'Europe/Berlim' is not a time zone"),
        ({"cron": "0 3 * * *", "tz": "../../etc/passwd"}, "is not a time zone"),
        ({"cron": "0 3 * * *", "tz": ""}, "tz: '' is not a time zone"),
        ({"every": "15m", "tz": "Europe/Berlin"}, "tz: belongs to cron"),
        ({"every": 0.5}, "every: 0.5 must be whole seconds from 1 s to 366 days"),
        ({"every": 0}, "every: 0 must be whole seconds"),
        ({"every": "400d"}, "every: '400d' must be whole seconds"),
        ({"every": "often"}, "every: 'often' is not a duration"),
        ({}, "cron: give either cron or every"),
        ({"cron": "0 3 * * *", "every": 60}, "cron: give either cron or every"),
        ({"every": 60, "catch_up": "some"}, "catch_up: 'some' must be 'last' or 'none' or 'all'"),
        ({"every": 60, "overlap": "never"}, "overlap: 'never' must be 'skip' or 'queue' or 'allow'"),
        ({"every": 60, "name": "a:b"}, "name: 'a:b' must be 1 to 100 of the characters"),
        ({"every": 60, "name": "x" * 101}, "name: "),
        ({"every": 60, "params": {"index": 5, "more": 1}}, "more"),
        ({"every": 60, "params": "docs"}, "params: is a str; must be a dict"),
        ({"every": 60, "params": ["docs"]}, "params: is a list; must be a dict"),
        ({"every": 60, "params": {"index": "x" * 70_000}}, "params: a schedule has at most 64 KiB"),
    ],
)
def test_bad_input_names_field_and_remedy(given: dict[str, object], text: str) -> None:
    jobs = Jobs("memory://")

    @jobs.job("reindex")
    def reindex(run: Run, index: str = "docs") -> None:
        """Do nothing."""

    name = given.pop("name", "nightly")
    with pytest.raises(InvalidInputError) as error:
        jobs.schedule(name, reindex, **given)  # type: ignore[arg-type]
    assert text in str(error.value)
    assert "\n" not in str(error.value)
    assert jobs.handlers.schedules == {}
    with pytest.raises(InvalidInputError):
        jobs.add_schedule(name, reindex, **given)  # type: ignore[arg-type]
    assert jobs.list_schedules() == []
