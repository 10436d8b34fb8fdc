"""Rollups: the histogram, the texts of minutes and hours, and what goes when they are too old or too much."""

from __future__ import annotations

import pytest

from milepost.core import rollups
from milepost.core.rollups import HOUR, MINUTE

NOW = 1_764_072_000_000_000


@pytest.mark.parametrize("micros", [2, 999, 1_000_000, 3_141_592, 86_400_000_000, 10**15])
def test_bucket_is_at_most_9_percent_off(micros: int) -> None:
    assert rollups.seconds_of(rollups.bucket_of(micros)) * 1e6 == pytest.approx(micros, rel=0.095)


def test_merge_adds_and_keeps_names_apart() -> None:
    one = rollups.merge("", {rollups.series("a"): {"completed": 1, "w3": 1}, rollups.series("b", "q"): {"failed": 2}})
    both = rollups.merge(one, {rollups.series("a"): {"completed": 4}})
    assert rollups.parse(both) == {
        rollups.series("a"): {"completed": 5, "w3": 1},
        rollups.series("b", "q"): {"failed": 2},
    }
    found = rollups.assembled([(7, both)], [(7, rollups.series("a"), "completed", 1)], hourly=False)
    assert [(r.at, r.job_type, r.queue, r.ended) for r in found] == [
        (7 * MINUTE, "a", "a", {"completed": 6}),
        (7 * MINUTE, "b", "q", {"failed": 2}),
    ]


def test_old_minutes_and_hours_go() -> None:
    newest = NOW // MINUTE
    sizes = dict.fromkeys(range(newest - 3000, newest + 1), 10)
    assert rollups.outdated(sizes, NOW, hourly=False) == list(range(newest - 2880, newest - 3001, -1))
    hour = NOW // HOUR
    assert rollups.outdated({hour: 1, hour - 1440: 1, hour - 1439: 1}, NOW, hourly=True) == [hour - 1440]


def test_oldest_go_when_the_texts_are_too_long() -> None:
    newest = NOW // MINUTE
    sizes = {newest - number: 100_000 for number in range(50)}
    gone = rollups.outdated(sizes, NOW, hourly=False)
    assert gone == [newest - number for number in range(35, 50)]
    assert rollups.complete_since(NOW, max(gone), hourly=False) == (newest - 34) * MINUTE


@pytest.mark.parametrize("damage", [{"started": "never"}, {"created": "x"}, {"completed": "soon"}])
def test_damaged_times_do_not_keep_a_job_from_ending(damage: dict[str, str]) -> None:
    record = {"type": "t", "status": "completed", "created": "1", "started": "2", "completed": "3", **damage}
    counted = rollups.counted_end(record)
    assert counted[0][2] == "completed"
