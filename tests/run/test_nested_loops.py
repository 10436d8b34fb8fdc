"""Where nested loops and maps resume in the next attempt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from milepost.core.serialization import from_json
from milepost.testing import FakeRun, fake_run
from tests.run.resumed_run import resumed


def test_nested_loop_resumes_in_item_of_outer_loop() -> None:
    """By order alone, the first loop of the next attempt would take the cursor of another item."""

    def work(run: FakeRun, until: tuple[int, int] | None = None) -> list[tuple[int, int]]:
        seen = []
        for outer in run.each(range(4), resume=True):
            for inner in run.each(range(5), resume=True):
                if (outer, inner) == until:
                    return seen
                seen.append((outer, inner))
        return seen

    run = fake_run()
    assert work(run, (2, 3)) == [(outer, inner) for outer in range(2) for inner in range(5)] + [(2, 0), (2, 1), (2, 2)]
    assert len(from_json(run._report()["cursors"])) == 2  # those of items that are done are not kept
    again = resumed(run)
    assert work(again) == [(2, 3), (2, 4)] + [(3, inner) for inner in range(5)]
    assert work(resumed(again)) == []


async def test_nested_async_loop_resumes_in_item_of_outer_loop() -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async def work(run: FakeRun, fails_at: tuple[int, int] | None = None) -> list[tuple[int, int]]:
        seen = []

        async def inside(outer: int) -> None:
            async for inner in run.each(numbers(), resume=True):
                if (outer, inner) == fails_at:
                    raise ConnectionError
                seen.append((outer, inner))

        with contextlib.suppress(ConnectionError):
            async for outer in run.each(numbers(), resume=True):
                await asyncio.gather(inside(outer))
        return seen

    run = fake_run()
    assert await work(run, (1, 1)) == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert await work(resumed(run)) == [(1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]


@pytest.mark.parametrize("concurrency", [1, 2])
def test_each_map_and_loop_keeps_its_own_items(concurrency: int) -> None:
    def fails_at(number: int) -> Any:
        def work(item: int) -> int:
            if item == number:
                raise ConnectionError
            return item

        return work

    run = fake_run()
    run.map(fails_at(3), range(4), errors="collect", concurrency=concurrency, resume=True)
    again = resumed(run)
    assert again.map(fails_at(9), range(4), concurrency=concurrency, resume=True) == [None, None, None, 3]
    assert again.map(fails_at(9), range(4), stage="Two", concurrency=concurrency, resume=True) == [0, 1, 2, 3]
    assert list(again.each(range(4), stage="Three", resume=True)) == [0, 1, 2, 3]


@pytest.mark.parametrize("concurrency", [1, 2])
def test_loop_in_map_resumes_in_its_item(concurrency: int) -> None:
    def work(run: FakeRun, fails_at: tuple[str, int] | None = None) -> list[tuple[str, int]]:
        seen = []

        def inside(name: str) -> None:
            for number in run.each(range(3), resume=True):
                if (name, number) == fails_at:
                    raise ConnectionError
                seen.append((name, number))

        with contextlib.suppress(ConnectionError):
            names = ["a", "b", "c"][: 3 if fails_at is None else 2]
            run.map(inside, names, key=str, concurrency=concurrency, resume=True)
        return sorted(seen)

    run = fake_run()
    assert ("b", 2) not in work(run, ("b", 2))
    assert work(resumed(run)) == [("b", 2), ("c", 0), ("c", 1), ("c", 2)]
