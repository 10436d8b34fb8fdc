"""Tracked loops, items and `map` of a run, without a store."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from milepost import InvalidInputError, JobCancelled
from milepost.core.serialization import from_json
from milepost.testing import fake_run
from tests.run.resumed_run import resumed


def test_loop_counts_to_total() -> None:
    run = fake_run()
    assert [(number, run.fraction) for number in run.each(range(4))] == [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75)]
    assert run.fraction == 1.0


@pytest.mark.parametrize("key", [None, "id", lambda item: item["id"]])
def test_next_attempt_starts_after_last_finished_item(key: Any) -> None:
    items = [{"id": f"i{number}"} for number in range(6)]
    run = fake_run()
    for item in run.each(items, key=key, resume=True):
        if item["id"] == "i3":
            break
    again = resumed(run)
    left = [item["id"] for item in again.each(items, key=key, resume=True)]
    assert left == ["i3", "i4", "i5"]
    assert again.fraction == 1.0
    assert list(resumed(again).each(items, key=key, resume=True)) == []


def test_resume_counts_earlier_items() -> None:
    run = fake_run()
    for number in run.each(range(10), resume=True):
        if number == 5:
            break
    again = resumed(run)
    loop = iter(again.each(range(10), resume=True))
    assert next(loop) == 5
    assert again.fraction == pytest.approx(0.5)


def test_missing_resume_item_raises_with_remedy() -> None:
    run = fake_run()
    for item in run.each(["a", "b", "c"], key=str, resume=True):
        if item == "c":
            break
    with pytest.raises(InvalidInputError, match="item 2 was 'b' in the last attempt, now it is 'c'"):
        list(resumed(run).each(["a", "c"], key=str, resume=True))


def test_batches_count_their_items() -> None:
    run = fake_run()
    assert [(len(batch), run.fraction) for batch in run.each(range(10), batch=4)] == [(4, 0.0), (4, 0.4), (2, 0.8)]
    assert run.fraction == 1.0


async def test_async_items_resume() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(6):
            yield number

    run = fake_run()
    async for number in run.each(items(), key=lambda number: number, resume=True):
        if number == 3:
            break
    left = [number async for number in resumed(run).each(items(), key=lambda number: number, resume=True)]
    assert left == [3, 4, 5]
    with pytest.raises(InvalidInputError, match="async for"):
        list(run.each(items()))
    assert [number async for number in fake_run().each([1, 2])] == [1, 2]
    assert [batch async for batch in fake_run().each(items(), batch=4)] == [[0, 1, 2, 3], [4, 5]]


async def test_sync_and_async_items_work_in_either_loop() -> None:
    """The `as_completed` of Dask and of Python 3.13 are both."""

    class Both:
        def __iter__(self) -> Iterator[str]:
            return iter(["plain"])

        async def __aiter__(self) -> AsyncIterator[str]:
            yield "async"

    assert list(fake_run().each(Both())) == ["plain"]
    assert [item async for item in fake_run().each(Both())] == ["async"]


@pytest.mark.parametrize("options", [{}, {"batch": 2}, {"resume": True}, {"resume": True, "batch": 2}])
async def test_loop_that_is_left_closes_its_generator(options: dict[str, Any]) -> None:
    """Regression: the run kept it, so that its `finally` ran after the run or never."""
    closed: list[str] = []

    def numbers(name: str) -> Iterator[int]:
        try:
            yield from range(5)
        finally:
            closed.append(name)

    async def anumbers() -> AsyncIterator[int]:
        try:
            for number in range(5):
                yield number
        finally:
            closed.append("async")

    run = fake_run()
    for _ in run.each(numbers("break"), stage="break", **options):
        break
    assert closed == ["break"]
    with contextlib.suppress(ValueError):
        for _ in run.each(numbers("error"), stage="error", **options):
            raise ValueError
    assert closed == ["break", "error"]
    async for _ in run.each(anumbers(), stage="async", **options):
        break
    for _ in range(10):
        await asyncio.sleep(0)
    assert closed == ["break", "error", "async"]


def test_generator_is_looped_over_once() -> None:
    loop = fake_run().each(iter("abc"))
    for _ in loop:
        break
    with pytest.raises(InvalidInputError, match="items: were taken by an earlier loop"):
        list(loop)


@pytest.mark.parametrize("items", [5, None])
async def test_loop_over_what_is_not_iterable_says_so(items: Any) -> None:
    """Regression: it said that the items are asynchronous."""
    with pytest.raises(InvalidInputError, match=f"^items: {type(items).__name__} cannot be iterated"):
        list(fake_run().each(items))
    with pytest.raises(InvalidInputError, match="cannot be iterated"):
        async for _ in fake_run().each(items):
            pass


def test_loop_counts_into_open_stage_or_its_own() -> None:
    run = fake_run()
    with run.stage("Embedding", weight=1):
        for _ in run.each([1, 2]):
            pass
    for _ in run.each([1], stage="Writing", weight=1):
        pass
    shown = from_json(run._report()["stages"])
    assert [(stage["name"], stage["done"], stage["total"]) for stage in shown] == [
        ("Embedding", 2, 2),
        ("Writing", 1, 1),
    ]


def test_two_loops_in_one_stage_have_own_cursors() -> None:
    run = fake_run()
    with run.stage("Both", weight=1):
        list(run.each([1, 2, 3], stage="First", resume=True))
        for number in run.each([4, 5, 6], stage="Second", resume=True):
            if number == 5:
                break
    again = resumed(run)
    with again.stage("Both", weight=1):
        assert list(again.each([1, 2, 3], stage="First", resume=True)) == []
        assert list(again.each([4, 5, 6], stage="Second", resume=True)) == [5, 6]


def test_failed_item_is_recorded_and_loop_continues() -> None:
    run = fake_run()
    for number in run.each(range(5), key=lambda number: number):
        with run.item(number) as entry:
            if number == 1:
                raise ValueError("bad one")
            if number == 2:
                entry.skip()
    counts = from_json(run._report()["item_counts"])
    assert (counts["done"], counts["failed"], counts["skipped"]) == (3, 1, 1)
    assert counts["failed_keys"] == ["1"]
    assert counts["first_errors"] == ["1: ValueError: bad one"]


@pytest.mark.parametrize("key", ["id", lambda doc: doc["id"]])
def test_item_of_a_loop_with_key_may_be_given_by_its_name(key: Any) -> None:
    """Regression: `run.item(doc["id"])` read the key of the loop from the text: 'str' object has no attribute 'id'."""
    run = fake_run()
    for doc in run.each([{"id": "a.pdf"}, {"id": 7}], key=key):
        with run.item(doc["id"]):
            raise ValueError("no text in it")
    assert from_json(run._report()["item_counts"])["failed_keys"] == ["a.pdf", "7"]


def test_stop_passes_through_item() -> None:
    run = fake_run()
    run.cancel()
    with pytest.raises(JobCancelled), run.item("a"):
        run.check()
    assert "item_counts" not in run._report()


@pytest.mark.parametrize("concurrency", [1, 3])
def test_map_returns_results_in_order(concurrency: int) -> None:
    run = fake_run()
    assert run.map(lambda number: number * 2, range(7), concurrency=concurrency) == [0, 2, 4, 6, 8, 10, 12]
    assert run.fraction == 1.0


def test_map_keeps_keys_finished_out_of_order() -> None:
    def work(number: int) -> int:
        if number == 1:
            raise ValueError
        return number

    run = fake_run()
    assert run.map(work, range(4), errors="collect", concurrency=2, resume=True) == [0, None, 2, 3]
    counts = from_json(run._report()["item_counts"])
    assert (counts["done"], counts["failed_keys"]) == (3, ["1"])
    calls: list[int] = []
    resumed(run).map(lambda number: calls.append(number), range(4), resume=True)
    assert calls == [1]


def test_map_raises_first_error_and_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="bad"):
        fake_run().map(lambda number: (_ for _ in ()).throw(ValueError("bad")), range(4), concurrency=2)
    assert threading.active_count() <= before


async def test_map_awaits_async_function() -> None:
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


def test_only_selected_items_are_yielded() -> None:
    run = fake_run(only=["1", "3"])
    assert list(run.each(range(5), key=lambda number: number)) == [1, 3]
    assert fake_run(only=["b"]).map(str.upper, ["a", "b"], key=str) == [None, "B"]


@pytest.mark.parametrize("key", [None, str])
@pytest.mark.parametrize("items", [["a", "b", "c"], ["0", "2", "1"], [3, 2, 1], ["a" * 300, "b" * 300, "c" * 300]])
async def test_failed_items_are_yielded_again(items: list[Any], key: Any) -> None:
    async def awaited() -> AsyncIterator[Any]:
        for item in items:
            yield item

    run = fake_run()
    for item in run.each(items, key=key):
        with run.item(item):
            if item == items[1]:
                raise ValueError
    failed = from_json(run._report()["item_counts"])["failed_keys"]
    assert list(fake_run(only=failed).each(items, key=key)) == [items[1]]
    assert [item async for item in fake_run(only=failed).each(awaited(), key=key)] == [items[1]]


def test_item_without_key_is_named_by_position() -> None:
    pages = [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    assert list(fake_run(only=["1"]).each(pages)) == [{"text": "b"}]


def test_loop_gives_its_unit_to_open_stage_without_one() -> None:
    run = fake_run()
    with run.stage("Reading") as stage:
        for _ in run.each(range(3), unit="page"):
            pass
        assert (stage.unit, stage.total) == ("page", 3)
    with run.stage("Embedding", unit="chunk") as stage:
        for _ in run.each(range(3), unit="page"):
            pass
        assert stage.unit == "chunk"
    with run.stage("Both") as stage:
        stage.advance()
        for _ in run.each(range(3), unit="page"):
            pass
        assert stage.unit == "item"
