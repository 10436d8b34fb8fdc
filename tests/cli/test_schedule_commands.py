"""The commands of schedules, on every kind of store."""

from __future__ import annotations

from tests.cli.stores_fixture import StoreFixture, covers


@covers("schedule", "schedule add", "schedule ls", "schedule pause", "schedule resume", "schedule fire", "schedule rm")
def test_schedule_is_managed(working: StoreFixture) -> None:
    assert "No schedules" in working.call("schedule")
    options = ("--budget", "usd=5", "--on-budget", "ask", "--partition", "acme", "--label", "team=a")
    added = working.call(
        "schedule", "add", "nightly", "count", "3", "--cron", "0 3 * * *", "--tz", "Europe/Berlin", *options
    )
    assert added.startswith("nightly: 0 3 * * * Europe/Berlin; next ")
    assert [row["name"] for row in working.rows("schedule", "ls")] == ["nightly"]
    assert "paused" in working.call("schedule", "pause", "nightly")
    assert "next" in working.call("schedule", "resume", "nightly")
    job_id = working.call("schedule", "fire", "nightly").strip()
    [job] = working.rows("show", job_id)
    assert (job["job_type"], job["schedule"]) == ("count", "nightly")
    assert (job["partition"], job["labels"]) == ("acme", {"team": "a"})
    assert working.rows("usage", job_id)[0]["budget"] == {"usd": 5}
    assert working.call("schedule", "rm", "nightly") == "Removed nightly.\n"
    assert working.rows("schedule") == []


def test_schedule_that_never_fires_is_refused(working: StoreFixture) -> None:
    assert "cron" in working.error_line("schedule", "add", "never", "count", "1", "--cron", "0 0 31 2 *", code=2)
    assert "tz" in working.error_line(
        "schedule", "add", "x", "count", "1", "--cron", "0 3 * * *", "--tz", "Moon/Base", code=2
    )
    assert working.rows("schedule") == []
