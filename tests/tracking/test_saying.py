"""What a run says of itself when something of it cannot be told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from milepost import JobManager, Run
from milepost.core.encoding import from_json
from milepost.testing import fake_run
from tests.tracking.test_run import resumed
from tests.waiting import until

PAGES = [{"id": "a"}, {"id": "b"}, {"name": "without an id"}, {"id": "d"}]


def test_a_key_that_cannot_be_read_keeps_the_cursor_where_it_was(caplog: pytest.LogCaptureFixture) -> None:
    run = fake_run()
    cursors = [from_json(run.report().get("cursors", "{}")) for _ in run.each(PAGES, key="id")]
    assert cursors[1:] == [
        {"items": {"n": 1, "key": "a"}},
        {"items": {"n": 2, "key": "b"}},
        {"items": {"n": 2, "key": "b"}},
    ]
    assert "its place in the loop 'items' cannot be told: KeyError: 'id'" in caplog.text
    assert [line for line in run.recent_log if "cannot be told" in line] == [
        "its place in the loop 'items' cannot be told: KeyError: 'id'"
    ]


def test_the_last_item_of_a_failure_is_its_position_where_its_key_cannot_be_read() -> None:
    run = fake_run()
    loop = iter(run.each(PAGES, key="id"))
    names = [run.last_item for _ in loop]
    assert names == [None, "a", "b", "3"]


@pytest.mark.parametrize("total", ["412", object()])
def test_a_total_that_is_no_number_leaves_the_rest_to_be_said(total: Any) -> None:
    run = fake_run()
    run.progress(0.25, "loading")
    run.report()
    with run.stage("Loading", total=total):
        said = run.report()
    assert (said["progress"], said["message"]) == ("0.25", "loading")
    assert run.report()["message"] == "loading"


def test_more_stages_than_fit_leave_those_that_were_told() -> None:
    run = fake_run()
    with run.stage("first"):
        run.report()
    for number in range(9000):
        with run.stage(f"the stage of document {number}"):
            pass
    run.progress(1.0, "done")
    said = run.report()
    assert [stage["name"] for stage in from_json(said["stages"])] == ["first"]
    assert (said["progress"], said["message"]) == ("1.0", "done")


def test_the_counts_go_on_where_the_keys_of_failed_items_no_longer_fit() -> None:
    run = fake_run()
    for number in range(10_000):
        with run.item(f"{number}" + '"' * 190):
            raise ValueError("bad")
    counts = from_json(run.report()["item_counts"])
    assert counts["failed"] == 10_000
    assert 1000 < len(counts["failed_keys"]) < 10_000


def test_a_level_is_text() -> None:
    run = fake_run()
    level: Any = 20
    run.log("a line", level)
    run.log("another", "\ud800")
    assert [line["level"] for line in from_json(run.take_lines() or "")["lines"]] == ["20", "\ufffd"]


async def test_the_place_of_an_async_loop_is_told_while_it_goes_to_where_it_was() -> None:
    told: list[dict[str, str]] = []

    async def items() -> AsyncIterator[int]:
        for number in range(4):
            told.append(again.report())
            yield number

    async def begin() -> AsyncIterator[int]:
        for number in range(4):
            yield number

    run = again = fake_run()
    async for number in run.each(begin(), key=lambda number: number + 1):
        if number == 3:
            break
    again = resumed(run)
    assert [number async for number in again.each(items(), key=lambda number: number + 1)] == [3]
    assert {said["cursors"] for said in told} == {run.report()["cursors"]}
    ended = resumed(again)
    told.clear()
    again = ended
    assert [number async for number in ended.each(items(), key=lambda number: number + 1)] == []
    assert ended.report()["cursors"] == '{"items":{"n":4,"key":4}}'


def test_a_run_that_cannot_be_told_keeps_nobody_s_lease_from_being_renewed(manager: JobManager) -> None:
    def lease(run: Run) -> int:
        job = manager.get_job(run.job_id)
        assert job is not None
        return int(job.record["lease"])

    with manager.track("good") as good, manager.track("bad") as bad:
        first = lease(good), lease(bad)
        for page in bad.each(PAGES, key="id"):
            if page.get("id") == "d":
                until(lambda: lease(good) > first[0] and lease(bad) > first[1])
    for run in (good, bad):
        job = manager.get_job(run.job_id)
        assert job is not None
        assert job.status == "completed"
