"""Run, its stages, its tracked loop, map, items and ledger: everything that needs no store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from milepost import InvalidInput, JobCancelled, JobReleased
from milepost.core.encoding import from_json
from milepost.core.job import Job
from milepost.testing import FakeRun, fake_run


def resumed(run: FakeRun) -> FakeRun:
    """The run of the next attempt, after what this one has told."""
    report = run.report()
    record = {"type": "test", "status": "running", "created": "0", "attempt": "2", **report}
    return FakeRun(Job.stored("fake", record))


# --- progress, messages, log ------------------------------------------------------------------------------------------


def test_progress_goes_forward_within_its_bounds() -> None:
    run = fake_run()
    for fraction in (0.2, 0.1, 0.5, 7, -3):
        run.progress(fraction)
    assert run.progress_seen == [0.2, 0.2, 0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("fraction", [float("nan"), True, "0.5", object()])
def test_what_is_no_fraction_is_passed_over(fraction: Any, caplog: pytest.LogCaptureFixture) -> None:
    run = fake_run()
    run.progress(fraction, "still said")
    assert run.fraction == 0.0
    assert run.report()["message"] == "still said"
    assert "is not a number from 0 to 1" in caplog.text


def test_a_message_is_one_line() -> None:
    run = fake_run()
    run.progress(message="two\nlines\ud800")
    assert run.report()["message"] == "two lines\ufffd"


def test_log_lines_are_taken_once_and_the_newest_are_kept() -> None:
    run = fake_run()
    for number in range(30):
        run.log(f"line {number}")
    run.log("two\nlines", "warning")
    taken = from_json(run.take_lines() or "")["lines"]
    assert len(taken) == 32
    assert taken[-1]["text"] == "lines"
    assert taken[-1]["level"] == "warning"
    assert run.take_lines() is None
    assert len(run.log_lines) == 20


def test_too_many_lines_are_dropped_and_counted() -> None:
    run = fake_run()
    for number in range(5003):
        run.log(str(number))
    taken = from_json(run.take_lines() or "")["lines"]
    assert len(taken) == 5001
    assert taken[-1]["text"] == "3 log lines were dropped"


def test_secrets_are_masked_in_all_that_a_run_says() -> None:
    run = fake_run()
    run.masks = ("hush-hush",)
    run.log("the word is hush-hush")
    run.progress(0.1, "hush-hush!")
    with run.stage("hush-hush"), run.item("a"):
        raise ValueError("hush-hush")
    assert "hush" not in str(run.report()) + str(run.take_lines()) + str(run.log_lines)


# --- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tick",
    [
        lambda run: run.check(),
        lambda run: run.progress(0.5),
        lambda run: run.stage("Next"),
        lambda run: list(run.each([1])),
        lambda run: run.checkpoint(1),
        lambda run: run.map(lambda item: item, [1]),
    ],
    ids=["check", "progress", "stage", "each", "checkpoint", "map"],
)
def test_every_report_is_a_cancel_point(tick: Any) -> None:
    run = fake_run()
    assert not run.cancelled
    run.cancel("enough")
    assert run.cancelled
    with pytest.raises(JobCancelled, match="enough"):
        tick(run)


def test_advance_is_a_cancel_point() -> None:
    run = fake_run()
    with pytest.raises(JobCancelled), run.stage("Loading", total=2) as stage:  # noqa: PT012
        stage.advance()
        run.cancel()
        stage.advance()


def test_the_first_reason_counts_and_except_exception_lets_it_pass() -> None:
    run = fake_run()
    run.stop(JobReleased("first"))
    run.cancel()
    with pytest.raises(JobReleased):  # noqa: PT012
        try:
            run.check()
        except Exception:
            pytest.fail("a Stop is no Exception")


# --- stages -----------------------------------------------------------------------------------------------------------


def test_the_fraction_is_the_weighted_sum_of_the_stages() -> None:
    run = fake_run()
    with run.stage("Loading", weight=1):
        assert run.fraction == 0.0
    assert run.fraction == pytest.approx(0.1)
    with run.stage("Embedding", weight=9, total=4) as stage:
        stage.advance(2)
        assert run.fraction == pytest.approx(0.1 + 0.45)
        assert run.stage_name == "Embedding"
    assert run.fraction == pytest.approx(1.0)
    assert run.stage_name is None


def test_stages_nest() -> None:
    run = fake_run()
    with run.stage("All", weight=10):
        with run.stage("Half", weight=5):
            pass
        assert run.fraction == pytest.approx(0.5)
    shown = from_json(run.report()["stages"])
    assert [(stage["name"], stage.get("parent")) for stage in shown] == [("All", None), ("Half", "All")]


def test_an_error_leaves_a_stage_as_far_as_it_came() -> None:
    run = fake_run()
    with pytest.raises(ValueError), run.stage("Loading", weight=10, total=10) as stage:  # noqa: PT012
        stage.advance(3)
        raise ValueError
    assert run.fraction == pytest.approx(0.3)
    assert run.stage_name is None


# --- each -------------------------------------------------------------------------------------------------------------


def test_a_loop_counts_and_ends_at_the_whole() -> None:
    run = fake_run()
    assert [(number, run.fraction) for number in run.each(range(4))] == [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75)]
    assert run.fraction == 1.0


@pytest.mark.parametrize("key", [None, "id", lambda item: item["id"]])
def test_the_next_attempt_begins_after_the_last_finished_item(key: Any) -> None:
    items = [{"id": f"i{number}"} for number in range(6)]
    run = fake_run()
    for item in run.each(items, key=key):
        if item["id"] == "i3":
            break
    again = resumed(run)
    left = [item["id"] for item in again.each(items, key=key)]
    assert left == ["i3", "i4", "i5"]
    assert again.fraction == 1.0
    assert list(resumed(again).each(items, key=key)) == []


def test_a_resume_counts_what_was_done_before() -> None:
    run = fake_run()
    for number in run.each(range(10)):
        if number == 5:
            break
    again = resumed(run)
    loop = iter(again.each(range(10)))
    assert next(loop) == 5
    assert again.fraction == pytest.approx(0.5)


def test_an_item_that_is_gone_is_an_error_with_the_remedy() -> None:
    run = fake_run()
    for item in run.each(["a", "b", "c"], key=str):
        if item == "c":
            break
    with pytest.raises(InvalidInput, match="the last attempt came to item 'b'"):
        list(resumed(run).each(["a", "c"], key=str))


def test_batches_count_their_items() -> None:
    run = fake_run()
    assert [(len(batch), run.fraction) for batch in run.each(range(10), batch=4)] == [(4, 0.0), (4, 0.4), (2, 0.8)]
    assert run.fraction == 1.0


async def test_async_items_resume_too() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(6):
            yield number

    run = fake_run()
    async for number in run.each(items(), key=lambda number: number):
        if number == 3:
            break
    left = [number async for number in resumed(run).each(items(), key=lambda number: number)]
    assert left == [3, 4, 5]
    with pytest.raises(InvalidInput, match="async for"):
        list(run.each(items()))
    assert [number async for number in fake_run().each([1, 2])] == [1, 2]
    assert [batch async for batch in fake_run().each(items(), batch=4)] == [[0, 1, 2, 3], [4, 5]]


async def test_items_of_both_kinds_go_into_either_loop() -> None:
    """As the `as_completed` of Dask and of Python 3.13 do."""

    class Both:
        def __iter__(self) -> Iterator[str]:
            return iter(["plain"])

        async def __aiter__(self) -> AsyncIterator[str]:
            yield "async"

    assert list(fake_run().each(Both())) == ["plain"]
    assert [item async for item in fake_run().each(Both())] == ["async"]


def test_a_loop_counts_into_the_stage_that_is_open_or_one_of_its_own() -> None:
    run = fake_run()
    with run.stage("Embedding", weight=1):
        for _ in run.each([1, 2]):
            pass
    for _ in run.each([1], stage="Writing", weight=1):
        pass
    shown = from_json(run.report()["stages"])
    assert [(stage["name"], stage["done"], stage["total"]) for stage in shown] == [
        ("Embedding", 2, 2),
        ("Writing", 1, 1),
    ]


def test_two_loops_in_one_stage_have_cursors_of_their_own() -> None:
    run = fake_run()
    with run.stage("Both", weight=1):
        list(run.each([1, 2, 3]))
        for number in run.each([4, 5, 6]):
            if number == 5:
                break
    again = resumed(run)
    with again.stage("Both", weight=1):
        assert list(again.each([1, 2, 3])) == []
        assert list(again.each([4, 5, 6])) == [5, 6]


# --- items, map -------------------------------------------------------------------------------------------------------


def test_a_bad_item_is_written_down_and_the_loop_goes_on() -> None:
    run = fake_run()
    for number in run.each(range(5), key=lambda number: number):
        with run.item(number) as entry:
            if number == 1:
                raise ValueError("bad one")
            if number == 2:
                entry.skip()
    counts = from_json(run.report()["item_counts"])
    assert (counts["done"], counts["failed"], counts["skipped"]) == (3, 1, 1)
    assert counts["failed_keys"] == ["1"]
    assert counts["first_errors"] == ["1: ValueError: bad one"]


def test_a_stop_passes_through_an_item() -> None:
    run = fake_run()
    run.cancel()
    with pytest.raises(JobCancelled), run.item("a"):
        run.check()
    assert "item_counts" not in run.report()


@pytest.mark.parametrize("concurrency", [1, 3])
def test_map_gives_the_results_in_order(concurrency: int) -> None:
    run = fake_run()
    assert run.map(lambda number: number * 2, range(7), concurrency=concurrency) == [0, 2, 4, 6, 8, 10, 12]
    assert run.fraction == 1.0


def test_map_remembers_what_is_done_out_of_order() -> None:
    def work(number: int) -> int:
        if number == 1:
            raise ValueError
        return number

    run = fake_run()
    assert run.map(work, range(4), errors="collect", concurrency=2) == [0, None, 2, 3]
    counts = from_json(run.report()["item_counts"])
    assert (counts["done"], counts["failed_keys"]) == (3, ["1"])
    calls: list[int] = []
    resumed(run).map(lambda number: calls.append(number), range(4))
    assert calls == [1]


def test_map_raises_the_first_error_and_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="bad"):
        fake_run().map(lambda number: (_ for _ in ()).throw(ValueError("bad")), range(4), concurrency=2)
    assert threading.active_count() == before


async def test_map_awaits_an_async_function() -> None:
    now, most = 0, 0

    async def work(number: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return number

    assert await fake_run().map(work, range(6), concurrency=2) == [0, 1, 2, 3, 4, 5]
    assert most == 2


def test_only_the_chosen_items_are_handed_out() -> None:
    run = fake_run(only=["1", "3"])
    assert list(run.each(range(5), key=lambda number: number)) == [1, 3]
    assert fake_run(only=["b"]).map(str.upper, ["a", "b"], key=str) == [None, "B"]


@pytest.mark.parametrize("key", [None, str])
@pytest.mark.parametrize("items", [["a", "b", "c"], ["0", "2", "1"], [3, 2, 1], ["a" * 300, "b" * 300, "c" * 300]])
async def test_the_items_that_failed_are_those_that_are_handed_out_again(items: list[Any], key: Any) -> None:
    async def awaited() -> AsyncIterator[Any]:
        for item in items:
            yield item

    run = fake_run()
    for item in run.each(items, key=key):
        with run.item(item):
            if item == items[1]:
                raise ValueError
    failed = from_json(run.report()["item_counts"])["failed_keys"]
    assert list(fake_run(only=failed).each(items, key=key)) == [items[1]]
    assert [item async for item in fake_run(only=failed).each(awaited(), key=key)] == [items[1]]


def test_a_position_is_the_name_of_an_item_that_has_no_other() -> None:
    pages = [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    assert list(fake_run(only=["1"]).each(pages)) == [{"text": "b"}]


# --- checkpoints ------------------------------------------------------------------------------------------------------


async def test_checkpoints_are_json() -> None:
    run = fake_run(last_checkpoint={"page": 3})
    assert run.last_checkpoint == {"page": 3}
    run.checkpoint({"page": 4})
    await run.acheckpoint([5])
    assert run.checkpoints == [{"page": 4}, [5]]
    with pytest.raises(InvalidInput):
        run.checkpoint(object())
    with pytest.raises(InvalidInput, match="the limit is"):
        run.checkpoint("x" * 300_000)


def test_a_handler_can_be_tested_without_any_store() -> None:
    from milepost import Jobs, Run

    jobs = Jobs()

    @jobs.job("reindex", max_attempts=3)
    def reindex(run: Run, index: str, batch_size: int = 64) -> dict[str, int]:
        start = run.last_checkpoint or 0
        for page in run.each(range(start, 100)):
            if page % 50 == 0:
                run.checkpoint(page)
        return {"done": 100 - start}

    run = fake_run(last_checkpoint=40)
    assert reindex(run, index="docs") == {"done": 60}
    assert run.progress_seen[-1] == 1.0
